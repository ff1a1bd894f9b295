//! Workloads of ten pods: reports as they come over the network, read, taken and decided on.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use autoscaler::{
    demand::{Demand, Hearing, Reporter},
    machine::{self, Delays, Facts},
    policy::{Policy, Seen},
};
use lull_bench::{Sample, child::Memory};
use lull_contract::{
    Settings,
    report::{CallerRequests, HeldWorkload, Lately, Load, QueueProxyReport, VERSION, Ways},
    scaled_workload::State,
};
use serde_json::{Value, json};

/// Pods of a workload.
const PODS: usize = 10;
/// Activators that tell of it.
const ACTIVATORS: [&str; 2] = ["activator-1", "activator-2"];
/// Seconds of a tick: a pull in each, a decision at its end.
const SECONDS: u32 = 2;

/// This process, in `/proc`.
pub(crate) const SELF: &str = "self";

struct Workload {
    settings: Settings,
    pods: Vec<String>,
    demand: Demand,
    policy: Policy,
}

/// Runs `ticks` ticks for `count` workloads, each pod of which names so many `callers`.
pub(crate) fn measure(count: usize, ticks: u32, callers: usize) -> anyhow::Result<Value> {
    let before = Memory::of(SELF)?.resident_mib;
    let mut workloads: Vec<Workload> = (0..count).map(Workload::new).collect();
    let (mut all, mut reading, mut deciding) = (Sample::default(), Duration::ZERO, Duration::ZERO);
    let mut allocations = 0;
    for tick in 0..ticks {
        let mut time = Duration::ZERO;
        for (number, workload) in workloads.iter_mut().enumerate() {
            for second in 1..=SECONDS {
                let second = tick * SECONDS + second;
                let reports = workload.encoded(number, second, callers)?;
                let begun = Instant::now();
                workload.read(&reports, second)?;
                reading += begun.elapsed();
                time += begun.elapsed();
            }
            let now = Duration::from_secs(u64::from((tick + 1) * SECONDS));
            let begun = Instant::now();
            let info = allocation_counter::measure(|| {
                black_box(workload.decide(now));
            });
            deciding += begun.elapsed();
            time += begun.elapsed();
            // The first decision makes the memory of those that follow.
            if tick > 0 {
                allocations += info.count_total;
            }
        }
        all.push(time.as_secs_f64() * 1e3);
    }
    let resident = Memory::of(SELF)?.resident_mib;
    let decisions = count as f64 * f64::from(ticks);
    let reports = decisions * f64::from(SECONDS) * PODS as f64;
    Ok(json!({
        "tick_p50_ms": all.median(),
        "tick_p99_ms": all.quantile(0.99),
        "report_ns": reading.as_secs_f64() * 1e9 / reports,
        "decision_ns": deciding.as_secs_f64() * 1e9 / decisions,
        "allocations_per_decision": allocations as f64 / decisions,
        "resident_mib": resident,
        "kib_per_workload": (resident - before) * 1024.0 / count as f64,
    }))
}

// === impl Workload ===

impl Workload {
    fn new(number: usize) -> Self {
        let settings = Settings::default();
        Self {
            pods: (0..PODS).map(|pod| format!("app-{number}-{pod}")).collect(),
            demand: Demand::new(&settings),
            policy: Policy::new(true, Duration::ZERO),
            settings,
        }
    }

    /// The reports of all pods at a second: some are busier than others.
    fn encoded(&self, number: usize, second: u32, callers: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        let report = |(index, pod): (usize, &String)| {
            let load = ((number + index) % 60) as u64;
            let second = u64::from(second);
            let (now_us, requests) = (second * 1_000_000, load * second * 10);
            let report = QueueProxyReport {
                v: VERSION,
                pod: pod.clone(),
                boot: 1 << 52,
                now_us,
                load: Load {
                    in_flight: load,
                    in_flight_us: load * now_us,
                    requests,
                },
                queued: 0,
                limit: 0,
                app_ready: true,
                draining: false,
                bypass: 0,
                lately: lately(callers, requests, now_us),
                loopback_only: Vec::new(),
            };
            serde_json::to_vec(&report).context("encode a report")
        };
        self.pods.iter().enumerate().map(report).collect()
    }

    fn read(&mut self, reports: &[Vec<u8>], second: u32) -> anyhow::Result<()> {
        let at = Duration::from_secs(u64::from(second));
        for (pod, bytes) in self.pods.iter().zip(reports) {
            let report = QueueProxyReport::parse(bytes)?;
            self.demand.pod_reported(pod, &report, at);
        }
        if second == 1 {
            // An activator tells of a workload when something changes, and nothing does.
            for activator in ACTIVATORS {
                self.demand
                    .activator_reported(activator, (None, hearing(at)), &idle());
            }
        }
        Ok(())
    }

    fn decide(&mut self, now: Duration) -> (State, u32) {
        let reporter = |name| Reporter { name, ready: true };
        let activators = ACTIVATORS.map(|name| (reporter(name), Some(hearing(now))));
        let measured = self.demand.measure(
            &self.settings,
            self.pods.iter().map(|pod| reporter(pod)),
            activators.into_iter(),
            now,
        );
        let ready = u32::try_from(PODS).unwrap_or(u32::MAX);
        let seen = Seen {
            replicas: ready,
            ready,
        };
        let verdict = self.policy.verdict(&self.settings, &measured, seen, now);
        // The count is as it is: what is measured is the decision, not the API server.
        self.policy.wrote(ready);
        let facts = Facts {
            services_switched: true,
            native_ready: true,
            activators: 2,
            want: ready,
            ..verdict.facts(&self.settings, &measured, seen)
        };
        let step = machine::step(State::Awake, &facts, &Delays::default());
        (step.state, verdict.want)
    }
}

/// Who has called a pod lately, as it tells that: in turn by account, as in a mesh, and by address.
fn lately(callers: usize, requests: u64, now_us: u64) -> Lately {
    if callers == 0 {
        return Lately::default();
    }
    let share = requests / callers as u64;
    let asked = [("GET /api/*", share), ("POST /pay", 1)];
    let told = |index: usize| CallerRequests {
        caller: match index % 2 {
            0 => format!("prod/checkout-{index}"),
            _ => format!("10.1.2.{index}"),
        },
        requests: share,
        asked: asked.map(|(class, of)| (class.to_owned(), of)).into(),
    };
    Lately {
        last_us: now_us,
        requests,
        callers: (0..callers).map(told).collect(),
    }
}

fn hearing(at: Duration) -> Hearing {
    Hearing {
        boot: 1,
        complete: 1,
        now_us: 1,
        at,
    }
}

fn idle() -> HeldWorkload {
    HeldWorkload {
        namespace: "bench".to_owned(),
        name: "app".to_owned(),
        uid: "uid".to_owned(),
        ports: vec![10_000],
        held: Load::default(),
        forwarding: 0,
        held_for_us: 0,
        woken: None,
        callers: Vec::new(),
        ways: Ways::default(),
    }
}

#[cfg(test)]
mod tests {
    use lull_contract::report::MAX_LATELY;

    use super::*;

    #[test]
    fn callers_are_told_as_pods_tell_them() {
        let workload = Workload::new(1);
        for callers in [0, 3, MAX_LATELY] {
            let reports = workload.encoded(1, 600, callers).unwrap();
            // Where they were not, they would be left out.
            let report = QueueProxyReport::parse(&reports[0]).unwrap();
            assert_eq!(report.lately.callers.len(), callers);
        }
    }
}
