//! What is seen of a workload: from the watch caches and the reports to [`Facts`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use lull_contract::{
    assignment::{self, Activator},
    names,
    report::{MAX_QUEUE_PROXY_BYTES, QueueProxyReport, ReportError},
    scaled_workload::{ScaledWorkload, State},
};

use super::{Task, Written, waking_reason};
use crate::{
    context::{Context, Key, Mailbox},
    demand::{Measured, Reporter},
    machine::Facts,
    metrics::{Asked, Numbers},
    plan::{self, Plan, PlannedService},
    pod::Pod,
    policy::{Seen, Verdict},
    target::Target,
    why::Why,
};

/// Longest wait for one pod's report: less than a tick.
const PULL_TIMEOUT: Duration = Duration::from_millis(900);
/// How long a count that we wrote is believed over the watch cache.
const WRITTEN_BELIEVED: Duration = Duration::from_secs(5);

/// One look.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) facts: Facts,
    pub(super) measured: Measured,
    pub(super) verdict: Verdict,
}

/// A pull of a workload's pods. Its end leads to an evaluation, also where it is a panic: what isn't
/// heard has to be seen to be silent.
struct Pulling(Arc<Mailbox>);

// === impl Look ===

impl Look {
    /// Why the workload is as it is, where the step has nothing to say.
    pub(super) fn reason(&self, state: State) -> String {
        match state {
            State::Enrolling => "waiting for pods with the sidecar".to_owned(),
            State::Asleep => "idle".to_owned(),
            State::Waking => waking_reason(self.facts.held),
            State::Settling => "pods are ready, activators are about to leave".to_owned(),
            State::FallingAsleep => "idle: activators first, then the pods go".to_owned(),
            _ => self.why().text(&self.verdict, &self.facts, &self.measured),
        }
    }

    /// What of it is shown, for a workload in `state`.
    pub(super) fn numbers(&self, state: State) -> Numbers {
        let Facts {
            want,
            ready,
            in_flight,
            held,
            ..
        } = self.facts;
        Numbers {
            state,
            desired: want,
            ready,
            in_flight,
            held,
            panicking: self.verdict.decision.panicking,
            heard: self.measured.heard,
        }
    }

    /// Why the workload has the count that it has.
    pub(super) fn why(&self) -> Why {
        Why::of(&self.verdict, &self.facts, &self.measured)
    }
}

// === impl Pulling ===

impl Drop for Pulling {
    fn drop(&mut self) {
        self.0.changed.notify_one();
    }
}

fn reporters(pods: &[Arc<Pod>]) -> impl Iterator<Item = Reporter<'_>> + Clone {
    pods.iter().map(|pod| Reporter {
        name: &pod.name,
        ready: pod.is_ready,
    })
}

// === impl Task ===

impl Task {
    /// The workload's pods as the cache has them.
    pub(super) fn pods(&self) -> Vec<Arc<Pod>> {
        let label = names::label_value(&self.key.name);
        self.ctx.stores.pods.in_group(&self.key.namespace, &label)
    }

    /// Activators for `workload`, of those that are ready and listen on all its ports.
    pub(super) fn usable_activators(&self, workload: &ScaledWorkload) -> Vec<Arc<Pod>> {
        let demand = self.mailbox.demand.lock();
        let ports = || workload.spec.ports.iter().map(|port| port.activator_port);
        let mut usable: Vec<Arc<Pod>> = self
            .ctx
            .stores
            .activators
            .all()
            .into_iter()
            .filter(|pod| {
                let hearing = self.ctx.hearing(&pod.name);
                let listens = |h| demand.listens((&pod.name, h), ports());
                pod.is_ready && hearing.is_some_and(listens)
            })
            .collect();
        drop(demand);
        let assigned: Vec<String> = {
            let candidates = usable.iter().map(|pod| Activator {
                name: &pod.name,
                node: pod.node.as_deref().unwrap_or_default(),
                zone: pod.zone().unwrap_or_default(),
            });
            let uid = workload.uid().unwrap_or_default();
            let assigned = assignment::assigned(&uid, candidates);
            assigned.into_iter().map(str::to_owned).collect()
        };
        usable.retain(|pod| assigned.contains(&pod.name));
        usable.sort_by(|a, b| a.name.cmp(&b.name));
        usable
    }

    /// What a replica that doesn't lead has to do itself: a leader does it with each measurement.
    pub(super) fn forget_the_gone(&self) {
        let (pods, activators) = (self.pods(), self.ctx.stores.activators.all());
        let mut demand = self.mailbox.demand.lock();
        demand.keep_only(&reporters(&pods), &reporters(&activators));
    }

    pub(super) fn service(&self, name: &str) -> Option<Arc<Service>> {
        self.ctx.stores.services.get(&self.key.namespace, name)
    }

    /// How long nobody has called the workload. A process that has not heard of a call goes by the
    /// time of the last change of state, which mostly was the end of calls.
    pub(super) fn unused(&self) -> Duration {
        let called_at = self.mailbox.demand.lock().called_at();
        if let Some(at) = called_at {
            return self.ctx.now().saturating_sub(at);
        }
        let Key { namespace, name } = &self.key;
        let workload = self.ctx.stores.workloads.get(namespace, name);
        let status = workload
            .as_ref()
            .and_then(|workload| workload.status.as_ref());
        let since = status.and_then(|status| status.state_since.as_ref());
        since.map_or(Duration::MAX, |since| {
            Timestamp::now().duration_since(since.0).unsigned_abs()
        })
    }

    /// `spec.replicas`, or what we wrote just now.
    pub(super) fn replicas(&mut self, target: &Target) -> u32 {
        let seen = target.replicas;
        match self.written_replicas {
            // Any third count is somebody else's, and newer.
            Some(Written { from, to, at }) if seen == from && at.elapsed() < WRITTEN_BELIEVED => to,
            _ => {
                self.written_replicas = None;
                seen
            }
        }
    }

    /// How long there has been none, though `replicas` asks for one. For one that ends its controller may be
    /// waiting.
    fn podless(&mut self, replicas: u32, pods: &[Arc<Pod>]) -> Duration {
        lasts(&mut self.podless_since, replicas > 0 && pods.is_empty())
    }

    /// Whether activators are listed from before; asked of the caches only where it matters. What stands
    /// behind other Services than `services` is not taken away on the way to `Awake`, so it leads to no step
    /// out of there, and neither do entries of those that `stand_by`.
    fn is_left_listed(&self, services: &[PlannedService], stand_by: bool) -> bool {
        match self.state {
            Some(State::Enrolling) => self.lists_activators(),
            Some(State::Awake) if stand_by => self.has_slices_behind(services),
            Some(State::Awake) => self.lists_activators_behind(services),
            _ => false,
        }
    }

    pub(super) fn look(&mut self, target: &Target, workload: &ScaledWorkload, plan: &Plan) -> Look {
        let services = self.services_of(plan);
        let settings = &workload.spec.settings;
        let (now, pods) = (self.ctx.now(), self.pods());
        let replicas = self.replicas(target);
        let podless = self.podless(replicas, &pods);
        let selector_held = services.iter().any(|s| {
            self.service(&s.name)
                .is_some_and(|service| plan::is_held(&service))
        });
        let native_for = self.native_for(services, selector_held);
        let pods_first = self.pods_first(workload, plan);
        let seen = Seen {
            replicas,
            ready: count(pods.iter().filter(|pod| pod.is_ready).count()),
        };
        let measured = {
            let activators = self.ctx.stores.activators.all();
            let mut demand = self.mailbox.demand.lock();
            let heard = reporters(&activators).map(|pod| (pod, self.ctx.hearing(pod.name)));
            demand.measure(settings, reporters(&pods), heard, now)
        };
        let verdict = self.policy.verdict(settings, &measured, seen, now);
        let settled = self.are_numbers_settled(target);
        let switched = |planned: &PlannedService| {
            self.service(&planned.name)
                .is_some_and(|s| plan::is_switched(&s, planned, settled))
        };
        let seen = verdict.facts(settings, &measured, seen);
        let no_activator = self.ctx.no_activator();
        let has_shared_port = self.has_shared_port(workload);
        let has_pods = pods.iter().any(|pod| !pod.is_leaving);
        let is_kept_awake = plan.keeps_awake(has_pods) || no_activator || has_shared_port;
        let facts = Facts {
            // What stands in the way of enrolment keeps it from sleep later.
            may_sleep: seen.may_sleep && !is_kept_awake,
            // Activators go to pods that serve the port by its new number.
            burst_short: seen.burst_short && !has_shared_port && !self.is_renumbering(target),
            burst_enough: seen.burst_enough || has_shared_port,
            no_activator,
            arrived: measured.totals.arrivals != self.arrivals_at_state,
            rolling: target.is_rolling,
            services_switched: !services.is_empty() && services.iter().all(switched),
            selector_held,
            native_ready: self.native_ready(services),
            native_for,
            listed: self.is_left_listed(services, pods_first.is_some()),
            pods_first,
            activators: count(self.usable_activators(workload).len()),
            since: self.state_since.elapsed(),
            podless,
            ..seen
        };
        Look {
            facts,
            measured,
            verdict,
        }
    }

    /// Pulls at once in a new term: who led before has pulled the pods so far, and until they are
    /// heard this replica is blind.
    pub(super) fn begin_to_pull(&mut self) {
        if self.term.is_some() {
            self.mailbox.demand.lock().begin(self.ctx.now());
            self.start_pull();
        }
    }

    /// Starts to pull the pods' reports, where this replica leads; whether there is one to wait for.
    pub(super) fn start_pull(&mut self) -> bool {
        if self.pull.as_ref().is_some_and(|pull| !pull.is_finished()) {
            return true;
        }
        let pods = to_pull(self.ctx.leadership.term(&self.key), &self.pods());
        if pods.is_empty() {
            return false;
        }
        let (ctx, pulling) = (Arc::clone(&self.ctx), Pulling(Arc::clone(&self.mailbox)));
        self.pull = Some(tokio::spawn(async move {
            let pulls = pods.iter().map(|(name, ip, port)| {
                let (ctx, mailbox) = (&ctx, &pulling.0);
                async move {
                    let limits = (PULL_TIMEOUT, MAX_QUEUE_PROXY_BYTES);
                    let begun = ctx.now();
                    match ctx.puller.get((ip, *port), "/report", limits).await {
                        Ok(body) => {
                            let now = ctx.now();
                            ctx.metrics.pulled(now.saturating_sub(begun));
                            match read(ctx, name, &body) {
                                // The address is another pod's by now.
                                Ok(report) if report.pod != *name => {
                                    tracing::debug!(
                                        pod = name,
                                        other = report.pod,
                                        "not its report"
                                    );
                                }
                                Ok(report) => {
                                    mailbox.demand.lock().pod_reported(name, &report, now);
                                }
                                Err(error) => {
                                    ctx.metrics.refused(Asked::Pod, &error);
                                    tracing::warn!(pod = name, %error, "report refused");
                                }
                            }
                        }
                        Err(error) => {
                            ctx.metrics.pull_failed(Asked::Pod, &error);
                            tracing::debug!(pod = name, %error, "report not had");
                        }
                    }
                }
            });
            futures::future::join_all(pulls).await;
            drop(pulling);
        }));
        true
    }
}

/// Reads the report of a pod. Callers that it can't name are refused alone: nothing is decided by them, and a
/// pod that is not heard would keep its workload awake.
fn read(ctx: &Context, pod: &str, body: &[u8]) -> Result<QueueProxyReport, ReportError> {
    QueueProxyReport::parse_telling(body, |error| {
        ctx.metrics.refused(Asked::Pod, error);
        tracing::warn!(pod, %error, "callers in its report refused");
    })
}

/// Name, address and port of the pods to pull: none without a `term`, since only who leads decides
/// by what they say. A wake, which any replica may do, follows from what activators hold.
fn to_pull(term: Option<u64>, pods: &[Arc<Pod>]) -> Vec<(String, String, u16)> {
    let reachable = |pod: &Arc<Pod>| Some((pod.name.clone(), pod.ip.clone()?, pod.report_port));
    let pods = term.map_or(&[][..], |_| pods);
    pods.iter().filter_map(reachable).collect()
}

/// How long something has been so without a break, which `is_so` now; `since` is when it was seen first.
pub(super) fn lasts(since: &mut Option<Instant>, is_so: bool) -> Duration {
    let first = since.filter(|_| is_so);
    *since = is_so.then(|| first.unwrap_or_else(Instant::now));
    since.map_or(Duration::ZERO, |at| at.elapsed())
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use lull_contract::ports;
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, status: &Value) -> Arc<Pod> {
        let pod = json!({ "metadata": { "name": name }, "status": status });
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
        Arc::new(pod.into())
    }

    async fn panic_with(_pulling: Pulling) {
        panic!("as the test wants it")
    }

    #[tokio::test]
    async fn a_pull_leads_to_an_evaluation_however_it_ends() {
        let mailbox = Arc::new(Mailbox::default());
        let pulling = Pulling(Arc::clone(&mailbox));
        let is_woken = || mailbox.changed.notified().now_or_never().is_some();
        assert!(!is_woken());
        let ended = tokio::spawn(panic_with(pulling)).await;
        assert!(ended.unwrap_err().is_panic() && is_woken());
    }

    #[test]
    fn what_is_interrupted_begins_anew() {
        let minute = Duration::from_secs(60);
        let mut since = Instant::now().checked_sub(minute);
        assert!(lasts(&mut since, true) >= minute);
        assert_eq!(lasts(&mut since, false), Duration::ZERO);
        assert!(since.is_none());
        assert!(lasts(&mut since, true) < minute && since.is_some());
    }

    #[test]
    fn only_who_leads_pulls_and_only_what_has_an_address() {
        let pods = [
            pod("a", &json!({ "podIP": "10.0.0.1" })),
            pod("b", &json!({})),
        ];
        let all = [("a".to_owned(), "10.0.0.1".to_owned(), ports::REPORT)];
        assert_eq!(to_pull(Some(0), &pods), all);
        assert!(to_pull(None, &pods).is_empty());
    }
}
