//! What is seen of a workload: from the watch caches and the reports to [`Facts`].

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use kube::ResourceExt;
use lull_contract::{
    assignment::{self, Activator},
    names, ports,
    report::{MAX_QUEUE_PROXY_BYTES, QueueProxyReport},
    scaled_workload::{ScaledWorkload, State},
};

use super::Task;
use crate::{
    demand::{Measured, Reporter},
    machine::Facts,
    objects::{self, is_ready},
    plan::{self, PlannedService},
    policy::{Seen, Verdict},
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

// === impl Look ===

impl Look {
    /// Why the workload is as it is, where the step has nothing to say.
    pub(super) fn reason(&self, state: State) -> String {
        match state {
            State::Enrolling => "waiting for pods with the sidecar".to_owned(),
            State::Asleep => "idle".to_owned(),
            State::Waking => format!("no pod is ready yet, {} held", self.facts.held),
            State::Settling => "pods are ready, activators are about to leave".to_owned(),
            State::FallingAsleep => "idle: activators first, then the pods go".to_owned(),
            _ if !self.measured.heard => {
                "not every pod and activator is heard: nothing shrinks".to_owned()
            }
            _ if !self.facts.known => "watched for less than a window: nothing shrinks".to_owned(),
            _ if self.facts.want == 0 && self.facts.bypassed => {
                "connections go round the queue-proxy: it stays awake".to_owned()
            }
            _ => self.verdict.to_string(),
        }
    }
}

fn reporters(pods: &[Arc<Pod>]) -> impl Iterator<Item = Reporter<'_>> + Clone {
    pods.iter().map(|pod| Reporter {
        name: pod.metadata.name.as_deref().unwrap_or_default(),
        ready: is_ready(pod),
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
            .filter(|pod| {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let hearing = self.ctx.hearing(name);
                is_ready(pod) && hearing.is_some_and(|h| demand.listens((name, h), ports()))
            })
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
        let settings = &workload.spec.settings;
        let (now, pods) = (self.ctx.now(), self.pods());
        let seen = Seen {
            replicas: self.replicas(deployment),
            ready: count(pods.iter().filter(|pod| is_ready(pod)).count()),
        };
        let measured = {
            let activators = self.ctx.stores.activators.all();
            let mut demand = self.mailbox.demand.lock();
            let heard = reporters(&activators).map(|pod| (pod, self.ctx.hearing(pod.name)));
            demand.measure(settings, reporters(&pods), heard, now)
        };
        let verdict = self.policy.verdict(settings, &measured, seen, now);
        let switched = |planned: &PlannedService| {
            self.service(&planned.name)
                .is_some_and(|s| plan::is_switched(&s, planned))
        };
        let facts = Facts {
            arrived: measured.totals.arrivals != self.arrivals_at_state,
            rolling: is_rolling(deployment),
            services_switched: !services.is_empty() && services.iter().all(switched),
            selector_held: services.iter().any(|s| {
                self.service(&s.name)
                    .is_some_and(|service| plan::is_held(&service))
            }),
            native_ready: self.native_ready(services),
            activators: count(self.usable_activators(workload).len()),
            since: self.state_since.elapsed(),
            ..verdict.facts(settings, &measured, seen)
        };
        Look {
            facts,
            measured,
            verdict,
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

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
