//! At the end: which records still send callers here.

use std::collections::BTreeSet;

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{Event, watcher},
    },
};
use lull_contract::names;
use lull_kubernetes::watched;

use crate::hub::Hub;

/// Once the drain has begun, keeps [`Hub::set_listed`] true to the slices; does not end.
pub(crate) async fn follow(client: Client, hub: &Hub) {
    hub.draining.cancelled().await;
    let ours = format!("{}={}", names::SLICE_MANAGED_BY_LABEL, names::MANAGED_BY);
    let config = watched().labels(&ours);
    let events = watcher(Api::<EndpointSlice>::all(client), config).default_backoff();
    let mut events = std::pin::pin!(events);
    let (us, namespace) = (&hub.config.pod_name, hub.config.namespace.as_deref());
    let mut listing = BTreeSet::new();
    let mut is_complete = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                listing.clear();
                is_complete = false;
            }
            Ok(Event::InitApply(slice) | Event::Apply(slice)) => {
                let key = (slice.namespace(), slice.name_any());
                match lists(&slice, (us, namespace)) {
                    true => listing.insert(key),
                    false => listing.remove(&key),
                };
            }
            Ok(Event::Delete(slice)) => {
                listing.remove(&(slice.namespace(), slice.name_any()));
            }
            Ok(Event::InitDone) => is_complete = true,
            Err(error) => tracing::warn!(%error, "watch of EndpointSlices failed: tried again"),
        }
        hub.set_listed(is_complete.then_some(listing.len()));
    }
}

/// Whether `slice` names this pod; a namespace that is not known is any.
fn lists(slice: &EndpointSlice, (pod, namespace): (&str, Option<&str>)) -> bool {
    let targets = slice.endpoints.iter().filter_map(|e| e.target_ref.as_ref());
    targets.into_iter().any(|target| {
        target.name.as_deref() == Some(pod)
            && (namespace.is_none() || target.namespace.as_deref() == namespace)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_slice_lists_us_by_name_and_namespace() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.2"],
                 "targetRef": {"kind": "Pod", "namespace": "lull-system", "name": "a-1"}},
            ],
        }))
        .unwrap();
        assert!(lists(&slice, ("a-1", Some("lull-system"))));
        assert!(lists(&slice, ("a-1", None)));
        assert!(!lists(&slice, ("a-2", Some("lull-system"))));
        assert!(!lists(&slice, ("a-1", Some("other"))));
    }
}
