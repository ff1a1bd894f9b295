//! The only place that talks to Kubernetes: two watches that feed the directory.

use std::{net::IpAddr, sync::Arc};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use lull_contract::{
    names::POD_LABEL,
    ports::{ADMIN, app_port_of},
    scaled_workload::ScaledWorkload,
};
use lull_process::readiness::Readiness;

use crate::{
    directory::{Described, Directory},
    workload::{PodView, View},
};

/// Starts both watches.
pub fn start(client: &Client, directory: &Arc<Directory>, readiness: &Readiness) {
    let pending = readiness.expect("scaled-workloads");
    tokio::spawn(watch_workloads(
        Api::all(client.clone()),
        Arc::clone(directory),
        pending,
    ));
    let pending = readiness.expect("pods");
    tokio::spawn(watch_pods(
        Api::all(client.clone()),
        Arc::clone(directory),
        pending,
    ));
}

/// `None` where the object lacks what makes it one of ours.
fn describe(workload: &ScaledWorkload) -> Option<Described> {
    Some(Described {
        namespace: workload.namespace()?,
        name: workload.name_any(),
        uid: workload.uid()?,
        view: View {
            settings: workload.spec.settings.clone(),
            mode: workload
                .status
                .as_ref()
                .map(|status| status.mode)
                .unwrap_or_default(),
            selector: workload.spec.pod_selector.clone().into_iter().collect(),
        },
        ports: workload
            .spec
            .ports
            .iter()
            .map(|port| (port.activator_port, port.app_port, port.protocol))
            .collect(),
    })
}

/// `None` where nothing can be sent to the pod: no address yet, going, or over.
fn view(pod: &Pod) -> Option<PodView> {
    let status = pod.status.as_ref()?;
    let over = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
    if over || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let named: Vec<(&str, u16)> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some((
                port.name.as_deref()?,
                u16::try_from(port.container_port).ok()?,
            ))
        })
        .collect();
    let conditions = status.conditions.iter().flatten();
    Some(PodView {
        name: pod.name_any(),
        ip: status.pod_ip.as_deref()?.parse::<IpAddr>().ok()?,
        ports: named
            .iter()
            .filter_map(|(name, port)| Some((app_port_of(name)?, *port)))
            .collect(),
        admin_port: named
            .iter()
            .find(|(name, _)| *name == "lull-admin")
            .map_or(ADMIN, |(_, port)| *port),
        ready: conditions
            .into_iter()
            .any(|c| c.type_ == "Ready" && c.status == "True"),
    })
}

async fn watch_workloads(
    api: Api<ScaledWorkload>,
    directory: Arc<Directory>,
    pending: lull_process::readiness::Pending,
) {
    let mut pending = Some(pending);
    let mut seen = Vec::new();
    let stream = watcher(api, watcher::Config::default()).default_backoff();
    let mut stream = std::pin::pin!(stream);
    loop {
        match stream.try_next().await {
            Ok(Some(Event::Init)) => seen.clear(),
            Ok(Some(Event::InitApply(workload))) => {
                seen.push((
                    workload.namespace().unwrap_or_default(),
                    workload.name_any(),
                ));
                describe(&workload)
                    .into_iter()
                    .for_each(|w| directory.apply_workload(w));
            }
            Ok(Some(Event::InitDone)) => {
                directory.retain(Some(&seen), None);
                drop(pending.take());
            }
            Ok(Some(Event::Apply(workload))) => {
                describe(&workload)
                    .into_iter()
                    .for_each(|w| directory.apply_workload(w));
            }
            Ok(Some(Event::Delete(workload))) => {
                let namespace = workload.namespace().unwrap_or_default();
                directory.remove_workload(&namespace, &workload.name_any());
            }
            Ok(None) => break,
            // The watcher comes back by itself, with backoff.
            Err(error) => tracing::warn!(%error, "watch of ScaledWorkloads failed"),
        }
    }
    tracing::error!("watch of ScaledWorkloads ended");
}

async fn watch_pods(
    api: Api<Pod>,
    directory: Arc<Directory>,
    pending: lull_process::readiness::Pending,
) {
    let mut pending = Some(pending);
    let mut seen = Vec::new();
    let stream = watcher(api, watcher::Config::default().labels(POD_LABEL)).default_backoff();
    let mut stream = std::pin::pin!(stream);
    loop {
        match stream.try_next().await {
            Ok(Some(Event::Init)) => seen.clear(),
            Ok(Some(Event::InitApply(pod))) => {
                seen.push((pod.namespace().unwrap_or_default(), pod.name_any()));
                apply_pod(&directory, &pod);
            }
            Ok(Some(Event::InitDone)) => {
                directory.retain(None, Some(&seen));
                drop(pending.take());
            }
            Ok(Some(Event::Apply(pod))) => apply_pod(&directory, &pod),
            Ok(Some(Event::Delete(pod))) => {
                directory.remove_pod(&pod.namespace().unwrap_or_default(), &pod.name_any());
            }
            Ok(None) => break,
            Err(error) => tracing::warn!(%error, "watch of pods failed"),
        }
    }
    tracing::error!("watch of pods ended");
}

fn apply_pod(directory: &Directory, pod: &Pod) {
    let namespace = pod.namespace().unwrap_or_default();
    match view(pod) {
        Some(view) => {
            let labels = pod.labels().clone().into_iter().collect();
            directory.apply_pod(&namespace, labels, view);
        }
        None => directory.remove_pod(&namespace, &pod.name_any()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(status: &serde_json::Value, deleted: bool) -> Pod {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "shop-1", "namespace": "default" },
            "spec": { "containers": [{ "name": "lull-queue-proxy", "ports": [
                { "name": "lull-8080", "containerPort": 8012 },
                { "name": "lull-admin", "containerPort": 8023 }] }] },
            "status": status,
        }))
        .unwrap();
        if deleted {
            pod.metadata.deletion_timestamp =
                serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        }
        pod
    }

    #[test]
    fn a_pod_counts_from_its_address_until_it_goes() {
        let running = json!({ "phase": "Running", "podIP": "10.0.0.9" });
        let seen = view(&pod(&running, false)).unwrap();
        assert_eq!(
            (seen.ports[&8080], seen.admin_port, seen.ready),
            (8012, 8023, false)
        );
        assert_eq!(view(&pod(&running, true)), None);
        assert_eq!(view(&pod(&json!({ "phase": "Pending" }), false)), None);
        assert_eq!(
            view(&pod(
                &json!({ "phase": "Failed", "podIP": "10.0.0.9" }),
                false
            )),
            None
        );
    }
}
