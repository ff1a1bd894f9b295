use lull_contract::names::{
    INJECTED_ANNOTATION, ISTIO_EXCLUDE_INBOUND_PORTS, ISTIO_INCLUDE_INBOUND_PORTS, POD_LABEL,
    QUEUE_PROXY_CONTAINER,
};
use serde_json::{Value, json};

use super::*;

mod captured;
mod classic;
mod defaults;
mod leave;
mod properties;
mod renumbered;
mod resources;
mod rules;
mod sticky;

fn config() -> InjectConfig {
    image("lull/queue-proxy:1")
}

fn image(reference: &str) -> InjectConfig {
    InjectConfig {
        image: Image {
            version: "1.0.0".to_owned(),
            reference: reference.to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
        },
        defaults: Arc::default(),
        otlp_endpoint: None,
        classic_proxies: false,
    }
}

/// The same with cluster-wide defaults.
fn defaults(pairs: &[(&str, &str)]) -> InjectConfig {
    let data = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    InjectConfig {
        defaults: Arc::new(Defaults::parse(&data).expect("valid")),
        ..config()
    }
}

/// A Deployment as the API server shows it to us, with these annotations.
fn deployment(annotations: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "shop", "namespace": "default", "annotations": annotations },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "shop" } },
            "someFutureField": { "kept": true },
            "template": {
                "metadata": { "labels": { "app": "shop" } },
                "spec": {
                    "terminationGracePeriodSeconds": 60,
                    "containers": [{
                        "name": "app",
                        "image": "shop:1",
                        "ports": [
                            { "name": "http", "containerPort": 8080, "protocol": "TCP" },
                            { "name": "tcp-db", "containerPort": 5432, "protocol": "TCP" },
                            { "name": "dns", "containerPort": 53, "protocol": "UDP" },
                        ],
                        "readinessProbe": {
                            "httpGet": {
                                "path": "/healthz",
                                "port": "http",
                                "httpHeaders": [{ "name": "X-Probe", "value": "1" }],
                            },
                            "timeoutSeconds": 2,
                        },
                        "someFutureField": 7,
                    }],
                },
            },
        },
    })
}

fn opted_in() -> Value {
    deployment(&json!({ "lull.dev/scale": "true" }))
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        other => other[key.replace("~1", "/")] = value,
    }
    object
}

/// An opted-in workload whose pods have these annotations.
fn with_pod_annotations(annotations: Value) -> Value {
    with(
        opted_in(),
        "/spec/template/metadata/annotations",
        annotations,
    )
}

fn without(mut object: Value, pointer: &str) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent
        .remove(&key.replace("~1", "/"))
        .expect("it was there");
    object
}

fn create(new: &Value) -> Value {
    mutate(None, new, &config()).expect("admitted").object
}

fn update(old: &Value, new: &Value) -> Value {
    mutate(Some(old), new, &config()).expect("admitted").object
}

fn template(object: &Value) -> &Value {
    &object["spec"]["template"]
}

fn sidecar(object: &Value) -> &Value {
    let containers = template(object)["spec"]["containers"].as_array().unwrap();
    let last = containers.last().unwrap();
    assert_eq!(
        last["name"], QUEUE_PROXY_CONTAINER,
        "the sidecar is the last"
    );
    last
}

fn env(object: &Value, name: &str) -> Option<String> {
    let env = sidecar(object)["env"].as_array()?;
    let entry = env.iter().find(|entry| entry["name"] == name)?;
    Some(entry["value"].as_str()?.to_owned())
}

fn port(object: &Value, name: &str) -> u64 {
    let ports = sidecar(object)["ports"].as_array().unwrap();
    let port = ports.iter().find(|port| port["name"] == name).unwrap();
    port["containerPort"].as_u64().unwrap()
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    template(object)["metadata"]["annotations"][key].as_str()
}

/// What the API server's defaulting adds to what we wrote.
fn defaulted(mut object: Value) -> Value {
    let containers = object["spec"]["template"]["spec"]["containers"]
        .as_array_mut()
        .unwrap();
    for container in containers {
        container["terminationMessagePath"] = "/dev/termination-log".into();
        for pointer in ["/lifecycle/preStop/httpGet", "/readinessProbe/httpGet"] {
            if let Some(get) = container.pointer_mut(pointer) {
                get["scheme"] = "HTTP".into();
            }
        }
    }
    object
}

fn refused(new: &Value) -> String {
    mutate(None, new, &config())
        .expect_err("refused")
        .to_string()
}
