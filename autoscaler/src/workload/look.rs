//! What is seen of a workload: from the watch caches and the reports to [`Facts`].

use std::{collections::HashSet, sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use kube::ResourceExt;
use lull_contract::{
    Class, Settings,
    assignment::{self, Activator},
    names, ports,
    report::{MAX_QUEUE_PROXY_BYTES, QueueProxyReport},
    scaled_workload::{ScaledWorkload, State},
};

use super::Task;
use crate::{
    demand::{Source, Totals},
    kpa::{Decider, Decision, Observed},
    machine::Facts,
    objects,
    plan::{self, PlannedService},
};

/// Longest wait for one pod's report: less than a tick.
const PULL_TIMEOUT: Duration = Duration::from_millis(900);
/// Knative's tick: decisions less far apart would shrink faster than its rate limit means.
const DECIDE_EVERY: Duration = Duration::from_secs(2);
/// How long a count that we wrote is believed over the watch cache.
const WRITTEN_BELIEVED: Duration = Duration::from_secs(5);

/// One look.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) facts: Facts,
    /// Every pod and activator was heard lately.
    heard: bool,
    pub(super) totals: Totals,
    pub(super) decision: Decision,
}

// === impl Look ===

impl Look {
    /// Why the workload is as it is, where the step has nothing to say.
    pub(super) fn reason(&self, state: State) -> String {
        match state {
            State::Enrolling => "waiting for pods with the sidecar".to_owned(),
            State::Asleep => "idle".to_owned(),
            State::Waking => format!("no pod is ready yet, {} held", self.totals.held),
            State::Settling => "pods are ready, activators are about to leave".to_owned(),
            State::FallingAsleep => "idle: activators first, then the pods go".to_owned(),
            _ if !self.heard => "not every pod and activator is heard: nothing shrinks".to_owned(),
            _ if !self.facts.known => "watched for less than a window: nothing shrinks".to_owned(),
            _ => self.decision.reason.to_string(),
        }
    }
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod.status.as_ref().is_some_and(|status| {
            status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
}

fn node_of(pod: &Pod) -> &str {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.unwrap_or_default()
}

/// The number behind the container port called `name`, else `default`.
fn port_of(pod: &Pod, name: &str, default: u16) -> u16 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some(name))
        .and_then(|port| u16::try_from(port.container_port).ok())
        .unwrap_or(default)
}

/// Whether old and new pods stand side by side, or the controller hasn't seen the template yet.
pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else {
        return true;
    };
    let seen =
        status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0);
    let (all, updated) = (
        status.replicas.unwrap_or(0),
        status.updated_replicas.unwrap_or(0),
    );
    !seen || updated < all
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
            .filter(|pod| is_ready(pod) && demand.listens(&pod.name_any(), ports()))
            .collect();
        drop(demand);
        let assigned: Vec<String> = {
            let candidates = usable.iter().map(|pod| Activator {
                name: pod.metadata.name.as_deref().unwrap_or_default(),
                node: node_of(pod),
            });
            let uid = workload.uid().unwrap_or_default();
            let assigned = assignment::assigned(&uid, candidates);
            assigned.into_iter().map(str::to_owned).collect()
        };
        usable.retain(|pod| assigned.contains(&pod.name_any()));
        usable.sort_by_key(|pod| pod.name_any());
        usable
    }

    pub(super) fn service(&self, name: &str) -> Option<Arc<Service>> {
        self.ctx.stores.services.get(&self.key.namespace, name)
    }

    /// `spec.replicas`, or what we wrote just now.
    pub(super) fn replicas(&mut self, deployment: &Deployment) -> u32 {
        let seen = deployment
            .spec
            .as_ref()
            .and_then(|s| s.replicas)
            .unwrap_or(1);
        let seen = u32::try_from(seen).unwrap_or(0);
        match self.written_replicas {
            Some((written, at)) if written != seen && at.elapsed() < WRITTEN_BELIEVED => written,
            _ => {
                self.written_replicas = None;
                seen
            }
        }
    }

    /// Every Service has a ready pod in Kubernetes' own slices.
    pub(super) fn native_ready(&self, services: &[PlannedService]) -> bool {
        let slices = |service: &str| {
            let slices = &self.ctx.stores.slices;
            slices.in_group(&self.key.namespace, service)
        };
        let is_ready = |service: &PlannedService| {
            objects::native_ready(slices(&service.name).iter().map(Arc::as_ref)) > 0
        };
        !services.is_empty() && services.iter().all(is_ready)
    }

    pub(super) fn look(
        &mut self,
        deployment: &Deployment,
        workload: &ScaledWorkload,
        services: &[PlannedService],
    ) -> Look {
        let (ctx, settings) = (Arc::clone(&self.ctx), &workload.spec.settings);
        let (now, pods) = (ctx.now(), self.pods());
        let ready = count(pods.iter().filter(|pod| is_ready(pod)).count());
        let (totals, heard, averages) = self.read_demand(settings, &pods, now);
        let replicas = self.replicas(deployment);
        let decision = self.decide(settings, averages, (ready, &totals), now);
        let known = heard && now >= self.known_since + settings.window.0;
        let want = self.want(settings, &decision, &totals, (replicas, now));
        let switched = |planned: &PlannedService| {
            self.service(&planned.name)
                .is_some_and(|s| plan::is_switched(&s, planned))
        };
        let facts = Facts {
            replicas,
            ready,
            want,
            zero_only: settings.class != Class::Kpa,
            may_sleep: settings.min_scale == 0 && settings.class != Class::None,
            burst_short: decision.excess_burst_capacity < 0,
            in_flight: totals.in_flight,
            held: totals.held,
            forwarding: totals.forwarding,
            arrived: totals.arrivals != self.arrivals_at_state,
            known,
            rolling: is_rolling(deployment),
            services_switched: !services.is_empty() && services.iter().all(switched),
            selector_held: services.iter().any(|s| {
                self.service(&s.name)
                    .is_some_and(|service| plan::is_held(&service))
            }),
            native_ready: self.native_ready(services),
            activators: count(self.usable_activators(workload).len()),
            since: self.state_since.elapsed(),
        };
        Look {
            facts,
            heard,
            totals,
            decision,
        }
    }

    /// Takes changed settings over and forgets who is gone; totals, whether all were heard, and
    /// the averages.
    fn read_demand(
        &mut self,
        settings: &Settings,
        pods: &[Arc<Pod>],
        now: Duration,
    ) -> (Totals, bool, (f64, f64)) {
        let activators = self.ctx.stores.activators.all();
        let names = |pods: &[Arc<Pod>]| pods.iter().map(|p| p.name_any()).collect::<HashSet<_>>();
        let mut demand = self.mailbox.demand.lock();
        if demand.configure(settings) {
            self.known_since = now;
        }
        demand.retain(&names(pods), &names(&activators));
        let expected: Vec<Source> = pods
            .iter()
            .filter(|pod| is_ready(pod))
            .map(|pod| Source::Pod(pod.name_any()))
            .chain(
                activators
                    .iter()
                    .filter(|pod| is_ready(pod))
                    .map(|pod| Source::Activator(pod.name_any())),
            )
            .collect();
        (
            demand.totals(),
            demand.all_heard(expected.iter(), now),
            demand.averages(now),
        )
    }

    /// The decision; a kept one until the next is due, but at once when requests are held.
    fn decide(
        &mut self,
        settings: &Settings,
        (stable, panic): (f64, f64),
        (ready, totals): (u32, &Totals),
        now: Duration,
    ) -> Decision {
        if let Some((at, decision)) = &self.decision
            && now < *at + DECIDE_EVERY
            && totals.held == 0
        {
            return decision.clone();
        }
        let decider = self.decider.get_or_insert_with(|| Decider::new(ready, now));
        let decision = decider.decide(
            settings,
            Observed {
                stable,
                panic,
                ready,
            },
            now,
        );
        self.decision = Some((now, decision.clone()));
        decision
    }

    /// The decision within min and max, lifted by what is held and by the retention period.
    fn want(
        &mut self,
        settings: &Settings,
        decision: &Decision,
        totals: &Totals,
        (replicas, now): (u32, Duration),
    ) -> u32 {
        if settings.class == Class::None {
            return replicas;
        }
        let held = wanted_for_held(settings, totals.held);
        let mut want = decision.want.max(held).max(settings.min_scale);
        if want == 0 {
            let since = *self.idle_since.get_or_insert(now);
            if now < since + settings.scale_to_zero_pod_retention_period.0 && replicas > 0 {
                want = 1;
            }
        } else {
            self.idle_since = None;
        }
        if settings.max_scale > 0 {
            want.min(settings.max_scale)
        } else {
            want
        }
    }

    /// Starts to pull the pods' reports; whether there is one to wait for.
    pub(super) fn start_pull(&mut self) -> bool {
        if self.pull.as_ref().is_some_and(|pull| !pull.is_finished()) {
            return true;
        }
        let pods: Vec<(String, String, u16)> = self
            .pods()
            .iter()
            .filter_map(|pod| {
                let ip = pod.status.as_ref()?.pod_ip.clone()?;
                Some((
                    pod.name_any(),
                    ip,
                    port_of(pod, "lull-report", ports::REPORT),
                ))
            })
            .collect();
        if pods.is_empty() {
            return false;
        }
        let (ctx, mailbox) = (Arc::clone(&self.ctx), Arc::clone(&self.mailbox));
        self.pull = Some(tokio::spawn(async move {
            let pulls = pods.iter().map(|(name, ip, port)| {
                let (ctx, mailbox) = (&ctx, &mailbox);
                async move {
                    let limits = (PULL_TIMEOUT, MAX_QUEUE_PROXY_BYTES);
                    match ctx.puller.get((ip, *port), "/report", limits).await {
                        Ok(body) => match QueueProxyReport::parse(&body) {
                            Ok(report) => {
                                mailbox.demand.lock().pod_reported(name, &report, ctx.now());
                            }
                            Err(error) => {
                                ctx.metrics.reports_refused.inc();
                                tracing::warn!(pod = name, %error, "report refused");
                            }
                        },
                        Err(error) => {
                            ctx.metrics.pulls_failed.inc();
                            tracing::debug!(pod = name, %error, "report not had");
                        }
                    }
                }
            });
            futures::future::join_all(pulls).await;
            mailbox.changed.notify_one();
        }));
        true
    }
}

/// Pods for `held` requests that wait right now, at least the activation scale.
pub(super) fn wanted_for_held(settings: &Settings, held: u64) -> u32 {
    if held == 0 {
        return 0;
    }
    let held = f64::from(u32::try_from(held).unwrap_or(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a saturating cast of a whole number that is not negative"
    )]
    let pods = (held / settings.total_per_pod().max(1.0)).ceil() as u32;
    let pods = pods.max(settings.activation_scale);
    if settings.max_scale > 0 {
        pods.min(settings.max_scale)
    } else {
        pods
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_is_sized_by_what_is_held() {
        let settings = Settings::default();
        assert_eq!(wanted_for_held(&settings, 0), 0);
        assert_eq!(wanted_for_held(&settings, 1), 1);
        assert_eq!(wanted_for_held(&settings, 250), 3);
        let bounded = Settings {
            max_scale: 2,
            activation_scale: 5,
            ..settings
        };
        assert_eq!(wanted_for_held(&bounded, 1), 2);
    }
}
