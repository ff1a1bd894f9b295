//! What is known about one workload's load: reports of its pods and of the activators that hold
//! for it, as windows.
//!
//! Demand is what pods have in flight plus what activators hold; a request is in one of the two, so
//! nothing counts twice. All times are since the process's start.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use lull_contract::{
    Metric, Settings,
    report::{HeldWorkload, Load, QueueProxyReport, Woken},
};

use crate::kpa::Window;

/// A report older than this says nothing about now: three pulls were missed.
const MAX_REPORT_AGE: Duration = Duration::from_millis(3_500);

/// Who reported.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// The queue-proxy of the pod with this name.
    Pod(String),
    /// The activator pod with this name.
    Activator(String),
}

/// Load of one workload.
#[derive(Debug)]
pub struct Demand {
    stable: Window,
    panic: Window,
    metric: Metric,
    lengths: (Duration, Duration),
    sources: HashMap<Source, Heard>,
    arrivals: u64,
    /// A wake that nobody has taken note of.
    woken: Option<Woken>,
}

/// The last report of a source.
#[derive(Debug, Clone)]
struct Heard {
    boot: u64,
    now_us: u64,
    load: Load,
    forwarding: u64,
    ports: Vec<u16>,
    /// Since when an activator has held somebody, on our clock.
    held_since: Option<Duration>,
    /// Number of the last wake of which an activator has told; 0 = of none lately.
    wake: u64,
    at: Duration,
}

/// Sums over all sources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// In flight at pods plus held at activators.
    pub in_flight: u64,
    /// Held at activators.
    pub held: u64,
    /// Let through by activators and not ended.
    pub forwarding: u64,
    /// Requests that have arrived anywhere since this process knows the workload; only grows.
    pub arrivals: u64,
}

// === impl Demand ===

impl Demand {
    /// Nothing known yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let lengths = (settings.window.0, settings.panic_window());
        Self {
            stable: Window::new(lengths.0),
            panic: Window::new(lengths.1),
            metric: settings.metric,
            lengths,
            sources: HashMap::new(),
            arrivals: 0,
            woken: None,
        }
    }

    /// Takes changed settings over; a changed window starts empty, so that nothing is decided on it
    /// until it is known.
    pub fn configure(&mut self, settings: &Settings) -> bool {
        let changed = self.lengths != (settings.window.0, settings.panic_window())
            || self.metric != settings.metric;
        if changed {
            let sources = std::mem::take(&mut self.sources);
            *self = Self {
                sources,
                arrivals: self.arrivals,
                ..Self::new(settings)
            };
        }
        changed
    }

    /// Takes the report of a pod that arrived at `at`.
    pub fn pod_reported(&mut self, pod: &str, report: &QueueProxyReport, at: Duration) {
        let heard = Heard {
            boot: report.boot,
            now_us: report.now_us,
            load: report.load,
            forwarding: 0,
            ports: Vec::new(),
            held_since: None,
            wake: 0,
            at,
        };
        self.take(Source::Pod(pod.to_owned()), heard);
    }

    /// Takes what the activator pod `activator` said about this workload at `at`.
    pub fn activator_reported(
        &mut self,
        activator: &str,
        (boot, now_us): (u64, u64),
        held: &HeldWorkload,
        at: Duration,
    ) {
        let heard = Heard {
            boot,
            now_us,
            load: held.held,
            forwarding: held.forwarding,
            ports: held.ports.clone(),
            held_since: (held.held.in_flight > 0)
                .then(|| at.saturating_sub(Duration::from_micros(held.held_for_us))),
            wake: held.woken.as_ref().map_or(0, |woken| woken.number),
            at,
        };
        let source = Source::Activator(activator.to_owned());
        let before = self.sources.get(&source).filter(|b| b.boot == heard.boot);
        if before.map_or(0, |before| before.wake) < heard.wake {
            self.woken.clone_from(&held.woken);
        }
        self.take(source, heard);
    }

    fn take(&mut self, source: Source, heard: Heard) {
        let before = self.sources.get(&source).filter(|b| b.boot == heard.boot);
        let (from_us, load) = match before {
            Some(before) if before.now_us >= heard.now_us => return,
            Some(before) => (before.now_us, before.load),
            // A process younger than the window is known from its start; an older one from now on.
            None if heard.now_us < micros(self.lengths.0) => (0, Load::default()),
            None => (heard.now_us, heard.load),
        };
        let span = Duration::from_micros(heard.now_us - from_us);
        let arrived = heard.load.requests.saturating_sub(load.requests);
        let integral = heard.load.in_flight_us.saturating_sub(load.in_flight_us);
        self.arrivals += arrived;
        let amount = match (self.metric, &source) {
            (Metric::Concurrency, _) => Duration::from_micros(integral).as_secs_f64(),
            (Metric::Rps, Source::Pod(_)) => as_f64(arrived),
            // It will arrive at a pod and count there.
            (Metric::Rps, Source::Activator(_)) => 0.0,
        };
        let from = heard.at.saturating_sub(span);
        self.stable.record_span(from, heard.at, amount);
        self.panic.record_span(from, heard.at, amount);
        self.sources.insert(source, heard);
    }

    /// Forgets sources that are gone: pods not in `pods`, activators not in `activators`.
    pub fn retain(&mut self, pods: &HashSet<String>, activators: &HashSet<String>) {
        self.sources.retain(|source, _| match source {
            Source::Pod(name) => pods.contains(name),
            Source::Activator(name) => activators.contains(name),
        });
    }

    /// Averages over the stable and the panic window that end at `now`.
    ///
    /// The newest second is left out: its reports are still on their way.
    #[must_use]
    pub fn averages(&self, now: Duration) -> (f64, f64) {
        let known = now.saturating_sub(Duration::from_secs(1));
        (self.stable.average(known), self.panic.average(known))
    }

    /// Sums of the last reports.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            arrivals: self.arrivals,
            ..Totals::default()
        };
        for (source, heard) in &self.sources {
            totals.in_flight += heard.load.in_flight;
            totals.forwarding += heard.forwarding;
            if matches!(source, Source::Activator(_)) {
                totals.held += heard.load.in_flight;
            }
        }
        totals
    }

    /// Since when somebody has been held at an activator, but for the way of its report to here.
    #[must_use]
    pub fn held_since(&self) -> Option<Duration> {
        self.sources
            .values()
            .filter_map(|heard| heard.held_since)
            .min()
    }

    /// The wake that ended since this was asked last.
    pub fn take_woken(&mut self) -> Option<Woken> {
        self.woken.take()
    }

    /// Whether every one of `expected` has been heard lately.
    #[must_use]
    pub fn all_heard<'a>(
        &self,
        mut expected: impl Iterator<Item = &'a Source>,
        now: Duration,
    ) -> bool {
        expected.all(|source| {
            self.sources
                .get(source)
                .is_some_and(|heard| now <= heard.at + MAX_REPORT_AGE)
        })
    }

    /// Whether `activator` has said that it listens on every one of `ports`.
    #[must_use]
    pub fn listens(&self, activator: &str, ports: impl Iterator<Item = u16>) -> bool {
        let mut ports = ports;
        self.sources
            .get(&Source::Activator(activator.to_owned()))
            .is_some_and(|heard| ports.all(|port| heard.ports.contains(&port)))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn as_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lull_contract::{HumanDuration, report::VERSION};

    fn report(boot: u64, now_us: u64, load: (u64, u64, u64)) -> QueueProxyReport {
        QueueProxyReport {
            v: VERSION,
            pod: "p".into(),
            boot,
            now_us,
            load: Load {
                in_flight: load.0,
                in_flight_us: load.1,
                requests: load.2,
            },
            queued: 0,
            limit: 0,
            app_ready: true,
            draining: false,
            bypass: 0,
        }
    }

    fn demand() -> Demand {
        let window = HumanDuration::from_secs(10);
        Demand::new(&Settings {
            window,
            ..Settings::default()
        })
    }

    const SEC: u64 = 1_000_000;

    #[test]
    fn a_missed_pull_loses_nothing() {
        let at = Duration::from_secs;
        let (mut each, mut late) = (demand(), demand());
        for second in 1..=8 {
            each.pod_reported(
                "p",
                &report(1, second * SEC, (2, 2 * second * SEC, 4 * second)),
                at(100 + second),
            );
        }
        late.pod_reported("p", &report(1, SEC, (2, 2 * SEC, 4)), at(101));
        late.pod_reported("p", &report(1, 8 * SEC, (2, 16 * SEC, 32)), at(108));
        assert_eq!(each.averages(at(108)), (2.0, 2.0));
        assert_eq!(late.averages(at(108)), (2.0, 2.0));
        assert_eq!(each.totals(), late.totals());
        assert_eq!(late.totals().arrivals, 32);
    }

    #[test]
    fn an_old_process_is_known_from_now_on_and_a_restart_is_no_drop() {
        let at = Duration::from_secs;
        let mut demand = demand();
        demand.pod_reported("p", &report(1, 1000 * SEC, (0, 5000 * SEC, 9000)), at(10));
        assert_eq!(demand.totals().arrivals, 0);
        demand.pod_reported("p", &report(2, SEC, (0, SEC, 3)), at(12));
        assert_eq!(demand.totals().arrivals, 3);
        // A report that comes twice, or late, counts once.
        demand.pod_reported("p", &report(2, SEC, (0, SEC, 3)), at(13));
        assert_eq!(demand.totals().arrivals, 3);
    }

    #[test]
    fn silence_is_unknown_and_gone_sources_are_forgotten() {
        let at = Duration::from_secs;
        let mut demand = demand();
        let pod = [Source::Pod("p".into())];
        assert!(!demand.all_heard(pod.iter(), at(0)));
        demand.pod_reported("p", &report(1, SEC, (7, 0, 0)), at(1));
        assert!(demand.all_heard(pod.iter(), at(4)));
        assert!(!demand.all_heard(pod.iter(), at(5)));
        demand.retain(&HashSet::new(), &HashSet::new());
        assert_eq!(demand.totals(), Totals::default());
    }

    #[test]
    fn held_counts_as_demand_and_tells_its_ports() {
        let mut demand = demand();
        let held = HeldWorkload {
            namespace: "d".into(),
            name: "shop".into(),
            uid: "u".into(),
            ports: vec![10_001],
            held: Load {
                in_flight: 5,
                in_flight_us: 0,
                requests: 5,
            },
            forwarding: 2,
            held_for_us: 400_000,
            woken: None,
        };
        demand.activator_reported("a", (1, SEC), &held, Duration::from_secs(1));
        let totals = demand.totals();
        assert_eq!(
            (totals.held, totals.in_flight, totals.forwarding),
            (5, 5, 2)
        );
        assert_eq!(demand.held_since(), Some(Duration::from_millis(600)));
        assert!(demand.listens("a", [10_001].into_iter()));
        assert!(!demand.listens("a", [10_002].into_iter()));
        assert!(!demand.listens("b", [10_001].into_iter()));
    }
}
