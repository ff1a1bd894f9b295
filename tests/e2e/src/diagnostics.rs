//! What is known when a test fails, on standard error.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ListParams, LogParams},
};
use serde_json::Value;

use crate::{
    Kind, Namespace,
    cluster::{COMPONENTS, call},
    workload::has_sidecar,
};

/// Lines of each component's log.
const TAIL: i64 = 60;

/// Writes everything; what can't be had is said so.
pub async fn dump(namespace: &Namespace) {
    let name = &namespace.name;
    let workloads = Kind::ALL.map(|kind| (kind.plural(), kind.path(name)));
    let others = [
        (
            "scaledworkloads",
            format!("/apis/lull.dev/v1alpha1/namespaces/{name}/scaledworkloads"),
        ),
        ("services", format!("/api/v1/namespaces/{name}/services")),
        (
            "slices",
            format!("/apis/discovery.k8s.io/v1/namespaces/{name}/endpointslices"),
        ),
        // Where there is a mesh.
        (
            "workloadentries",
            format!("/apis/networking.istio.io/v1/namespaces/{name}/workloadentries"),
        ),
        (
            "destinationrules",
            format!("/apis/networking.istio.io/v1/namespaces/{name}/destinationrules"),
        ),
    ];
    for (title, path) in workloads.into_iter().chain(others) {
        eprintln!("--- {title} of {name}");
        match namespace.cluster.get_if_there(&path).await {
            Ok(list) => show_list(&list.unwrap_or_default()),
            Err(error) => eprintln!("{error:#}"),
        }
    }
    pods(namespace).await;
    events(namespace).await;
    logs(namespace).await;
}

fn show_list(list: &Value) {
    for item in list["items"].as_array().into_iter().flatten() {
        let mut item = item.clone();
        if let Some(metadata) = item["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        match serde_json::to_string_pretty(&item) {
            Ok(text) => eprintln!("{text}"),
            Err(error) => eprintln!("{error}"),
        }
    }
}

async fn pods(namespace: &Namespace) {
    eprintln!("--- pods of {}", namespace.name);
    let api: Api<Pod> = namespace.api();
    match call("list pods", api.list(&ListParams::default())).await {
        Ok(pods) => {
            for pod in pods {
                let status = pod.status.unwrap_or_default();
                eprintln!(
                    "{} ip={} phase={} deleted={}",
                    pod.metadata.name.unwrap_or_default(),
                    status.pod_ip.unwrap_or_default(),
                    status.phase.unwrap_or_default(),
                    pod.metadata.deletion_timestamp.is_some(),
                );
                // Among the first is Istio's.
                let first = status.init_container_statuses.unwrap_or_default();
                let others = status.container_statuses.unwrap_or_default();
                for container in first.into_iter().chain(others) {
                    eprintln!(
                        "    {} ready={} restarts={} state={}",
                        container.name,
                        container.ready,
                        container.restart_count,
                        serde_json::to_string(&container.state).unwrap_or_default(),
                    );
                }
            }
        }
        Err(error) => eprintln!("{error:#}"),
    }
}

async fn events(namespace: &Namespace) {
    eprintln!("--- events of {}", namespace.name);
    let path = format!("/api/v1/namespaces/{}/events", namespace.name);
    match namespace.cluster.get(&path).await {
        Ok(list) => {
            for event in list["items"].as_array().into_iter().flatten() {
                let text = |pointer: &str| {
                    event
                        .pointer(pointer)
                        .and_then(Value::as_str)
                        .unwrap_or("-")
                        .to_owned()
                };
                eprintln!(
                    "{} {}/{} {}: {}",
                    text("/metadata/creationTimestamp"),
                    text("/involvedObject/kind"),
                    text("/involvedObject/name"),
                    text("/reason"),
                    text("/message"),
                );
            }
        }
        Err(error) => eprintln!("{error:#}"),
    }
}

async fn logs(namespace: &Namespace) {
    let cluster = &namespace.cluster;
    for component in COMPONENTS {
        match cluster.component_pods(component).await {
            Ok(pods) => {
                let api = Api::namespaced(cluster.client.clone(), &cluster.lull_namespace);
                for pod in pods {
                    log(&api, &pod, None).await;
                }
            }
            Err(error) => eprintln!("{error:#}"),
        }
    }
    let api: Api<Pod> = namespace.api();
    if let Ok(pods) = call("list pods", api.list(&ListParams::default())).await {
        for pod in pods.items.iter().filter(|pod| has_sidecar(pod)) {
            log(&api, pod, Some(lull_contract::names::QUEUE_PROXY_CONTAINER)).await;
        }
    }
}

async fn log(api: &Api<Pod>, pod: &Pod, container: Option<&str>) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    eprintln!("--- log of {name}");
    let params = LogParams {
        container: container.map(str::to_owned),
        tail_lines: Some(TAIL),
        timestamps: true,
        ..LogParams::default()
    };
    match call("read the log", api.logs(name, &params)).await {
        Ok(text) => eprintln!("{text}"),
        Err(error) => eprintln!("{error:#}"),
    }
}
