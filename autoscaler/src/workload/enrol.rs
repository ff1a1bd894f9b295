//! Enrolment: the ScaledWorkload, the private Service, and the switch of the public Services.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{Api, Resource, ResourceExt, api::Patch};
use lull_contract::{
    AppPort, AppProtocol,
    names::{
        FINALIZER, INJECTED_ANNOTATION, POD_LABEL, QUEUE_PROXY_CONTAINER, label_value,
        private_service,
    },
    scaled_workload::{ScaledWorkload, ScaledWorkloadSpec, State, Target, WorkloadPort},
};
use serde_json::json;

use super::{Task, act::apply, look::is_rolling};
use crate::{
    allocate::free_port,
    context::WriteError,
    injected, objects,
    plan::{self, PlannedService, Template},
};

/// App ports as the injected sidecar serves them: `QP_PORTS="8012=8080/http,8013=5432/tcp"`.
fn served_ports(deployment: &Deployment) -> Vec<AppPort> {
    let spec = deployment
        .spec
        .as_ref()
        .and_then(|s| s.template.spec.as_ref());
    let sidecar = spec
        .into_iter()
        .flat_map(|spec| &spec.containers)
        .find(|container| container.name == QUEUE_PROXY_CONTAINER);
    let value = sidecar
        .and_then(|c| {
            c.env
                .as_ref()?
                .iter()
                .find(|e| e.name == "QP_PORTS")?
                .value
                .clone()
        })
        .unwrap_or_default();
    value.split(',').filter_map(served_port).collect()
}

fn served_port(item: &str) -> Option<AppPort> {
    let (number, protocol) = item.split_once('=')?.1.split_once('/')?;
    let protocol = if protocol == "tcp" {
        AppProtocol::Tcp
    } else {
        AppProtocol::Http
    };
    Some(AppPort {
        number: number.parse().ok()?,
        protocol,
    })
}

/// What the webhook noted about the sidecar that it injected.
fn injected_record(deployment: &Deployment) -> Option<&str> {
    let template = &deployment.spec.as_ref()?.template;
    let annotations = template.metadata.as_ref()?.annotations.as_ref()?;
    annotations.get(INJECTED_ANNOTATION).map(String::as_str)
}

/// What of `deployment` its Services are planned by.
fn template_of(deployment: &Deployment) -> Template {
    let Some(template) = deployment.spec.as_ref().map(|s| &s.template) else {
        return Template::default();
    };
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    Template {
        labels: template
            .metadata
            .as_ref()
            .and_then(|m| m.labels.clone())
            .unwrap_or_default(),
        named_ports: containers
            .filter(|container| container.name != QUEUE_PROXY_CONTAINER)
            .flat_map(|container| container.ports.iter().flatten())
            .filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?)))
            .collect(),
        app_ports: served_ports(deployment)
            .iter()
            .map(|port| port.number)
            .collect(),
    }
}

// === impl Task ===

impl Task {
    /// The ScaledWorkload as the annotations want it; `None` where they can't be read and there is
    /// no earlier one.
    pub(super) async fn ensure_workload(
        &mut self,
        deployment: &Deployment,
        there: Option<Arc<ScaledWorkload>>,
    ) -> Result<Option<Arc<ScaledWorkload>>, WriteError> {
        let defaults = Arc::clone(&self.ctx.settings.borrow().defaults);
        let record = injected_record(deployment);
        let settings = match injected::settings(deployment.annotations(), &defaults, record) {
            Ok(settings) => settings,
            Err(faults) => {
                // The webhook refuses these; it can only have been away.
                let text = faults
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("; ");
                self.tell_obstacles(deployment, &text);
                return Ok(there);
            }
        };
        if let Some(gone) = there
            .as_ref()
            .filter(|w| w.metadata.deletion_timestamp.is_some())
        {
            // Somebody deleted it by hand: it comes back with what the objects say.
            self.drop_finalizer(gone).await?;
            return Ok(None);
        }
        let ports = self.ports(deployment, there.as_deref())?;
        let spec = ScaledWorkloadSpec {
            target: Target {
                api_version: "apps/v1".into(),
                kind: "Deployment".into(),
                name: self.key.name.clone(),
                uid: deployment.uid().unwrap_or_default(),
            },
            pod_selector: BTreeMap::from([(POD_LABEL.to_owned(), label_value(&self.key.name))]),
            ports,
            settings,
            original_replicas: match &there {
                Some(there) => there.spec.original_replicas,
                None => self.replicas(deployment),
            },
        };
        if there.as_ref().is_some_and(|there| there.spec == spec) {
            return Ok(there);
        }
        let mut workload = ScaledWorkload::new(&self.key.name, spec);
        workload.metadata.namespace = Some(self.key.namespace.clone());
        workload.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        workload.metadata.owner_references = deployment.controller_owner_ref(&()).map(|o| vec![o]);
        let api: Api<ScaledWorkload> = self.api();
        let written = self
            .call(
                "writing the ScaledWorkload",
                api.patch(&self.key.name, &apply(), &Patch::Apply(&workload)),
            )
            .await?;
        Ok(Some(Arc::new(written)))
    }

    /// Activator ports: those there are stay, new ones are allocated.
    fn ports(
        &self,
        deployment: &Deployment,
        there: Option<&ScaledWorkload>,
    ) -> Result<Vec<WorkloadPort>, WriteError> {
        let known = there.map(|w| w.spec.ports.as_slice()).unwrap_or_default();
        let mut ports = Vec::new();
        for AppPort { number, protocol } in served_ports(deployment) {
            let activator_port = match known.iter().find(|port| port.app_port == number) {
                Some(port) => port.activator_port,
                None => self.allocate(number)?,
            };
            ports.push(WorkloadPort {
                app_port: number,
                protocol,
                activator_port,
            });
        }
        Ok(ports)
    }

    /// A new activator port, reserved until the cache shows it.
    fn allocate(&self, app_port: u16) -> Result<u16, WriteError> {
        let mut reserved = self.ctx.reserved.lock();
        let workloads = self.ctx.stores.workloads.all();
        let mut used: HashSet<u16> = workloads
            .iter()
            .flat_map(|w| w.spec.ports.iter().map(|port| port.activator_port))
            .collect();
        // What the cache shows needs no reservation any more.
        reserved.retain(|port| !used.contains(port));
        used.extend(reserved.iter());
        let place = (
            self.key.namespace.as_str(),
            self.key.name.as_str(),
            app_port,
        );
        let range = &self.ctx.activator_ports;
        let port = free_port(place, &used, range)
            .ok_or_else(|| WriteError::PortsExhausted(range.clone()))?;
        reserved.insert(port);
        Ok(port)
    }

    /// The Services that carry the workload's traffic, or what stands in the way as text.
    pub(super) fn plan(
        &self,
        deployment: &Deployment,
        workload: &ScaledWorkload,
    ) -> Result<Vec<PlannedService>, String> {
        let services = self.ctx.stores.services.in_namespace(&self.key.namespace);
        let services: Vec<&Service> = services.iter().map(Arc::as_ref).collect();
        let others: Vec<_> = self
            .ctx
            .stores
            .deployments
            .in_namespace(&self.key.namespace)
            .iter()
            .filter(|d| d.name_any() != workload.name_any())
            .map(|d| (d.name_any(), template_of(d).labels))
            .collect();
        plan::plan(&template_of(deployment), &services, &others).map_err(|obstacles| {
            obstacles
                .iter()
                .map(|o| o.message.clone())
                .collect::<Vec<_>>()
                .join("; ")
        })
    }

    /// Makes the private Service and switches the public ones, once every ready pod has the sidecar.
    ///
    /// Later it puts back what somebody's `kubectl apply` has undone.
    pub(super) async fn keep_services(
        &mut self,
        deployment: &Deployment,
        workload: &ScaledWorkload,
        services: &[PlannedService],
    ) -> Result<(), WriteError> {
        if self.state == Some(State::Enrolling) && is_rolling(deployment) {
            return Ok(());
        }
        if let Some(first) = services.first() {
            self.ensure_private(workload, first).await?;
        }
        for planned in services {
            let Some(service) = self.service(&planned.name) else {
                continue;
            };
            if !plan::is_switched(&service, planned) {
                let patch = plan::switch_patch(&service, planned);
                self.patch_service(&service, patch, "switching to named ports")
                    .await?;
            }
        }
        Ok(())
    }

    async fn ensure_private(
        &self,
        workload: &ScaledWorkload,
        planned: &PlannedService,
    ) -> Result<(), WriteError> {
        let name = private_service(&self.key.name);
        let (Some(public), None) = (self.service(&planned.name), self.service(&name)) else {
            return Ok(());
        };
        let private = objects::private(workload, &public, planned);
        let api: Api<Service> = self.api();
        self.call(
            "writing the private Service",
            api.patch(&name, &apply(), &Patch::Apply(&private)),
        )
        .await
        .map(drop)
    }

    /// An Event with what stands in the way, once for each text.
    pub(super) fn tell_obstacles(&mut self, deployment: &Deployment, text: &str) {
        if self.obstacles_told != text {
            tracing::warn!(workload = %self.key, obstacles = text, "can't be enrolled");
            text.clone_into(&mut self.obstacles_told);
            self.ctx.event(
                deployment.object_ref(&()),
                true,
                "NotEnrolled",
                text.to_owned(),
            );
        }
    }

    pub(super) async fn drop_finalizer(&self, workload: &ScaledWorkload) -> Result<(), WriteError> {
        if workload.finalizers().is_empty() {
            return Ok(());
        }
        let api: Api<ScaledWorkload> = self.api();
        let patch = json!({ "metadata": { "finalizers": null } });
        let name = workload.name_any();
        match self
            .call(
                "letting the ScaledWorkload go",
                api.patch(
                    &name,
                    &kube::api::PatchParams::default(),
                    &Patch::Merge(&patch),
                ),
            )
            .await
        {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn served_ports_are_read_from_the_sidecar() {
        let deployment: Deployment = serde_json::from_value(json!({
            "spec": { "selector": {}, "template": { "spec": { "containers": [
                { "name": "app", "ports": [{ "name": "web", "containerPort": 8080 }] },
                { "name": QUEUE_PROXY_CONTAINER, "ports": [{ "name": "lull-8080", "containerPort": 8012 }],
                  "env": [{ "name": "QP_PORTS", "value": "8012=8080/http,8013=5432/tcp,odd" }] },
            ] } } },
        }))
        .unwrap();
        let ports = served_ports(&deployment);
        assert_eq!(ports.len(), 2);
        assert_eq!(
            ports[1],
            AppPort {
                number: 5432,
                protocol: AppProtocol::Tcp
            }
        );
        let template = template_of(&deployment);
        assert_eq!(template.named_ports, [("web".to_owned(), 8080)]);
        assert_eq!(template.app_ports, [8080, 5432]);
    }
}
