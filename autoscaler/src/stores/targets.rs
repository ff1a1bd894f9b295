//! The objects that may be scaled, of every kind that the configuration names.

use std::{sync::Arc, time::Duration};

use kube::{Api, Client, core::ApiResource, core::DynamicObject};
use lull_contract::{scaled_workload, target_resource::TargetResource};
use lull_process::readiness::Pending;
use parking_lot::RwLock;

use super::{OnTouched, Teller, Touched, Watch};
use crate::{
    cache::{Cache, Keys, Writer},
    discovery::{Said, Search},
    namespaces::Namespaces,
    target::{DiscoveryError, Target, discover, is_of_kind},
};

/// Between two questions for a kind that is not there: its CRD may come later.
const DISCOVER_EVERY: Duration = Duration::from_secs(10);

const KEYS: Keys<Target> = Keys {
    place: |target| (target.namespace.clone(), target.id()),
    group: |_| None,
    part: |target| &target.namespace,
    alike: Target::is_planned_alike,
};

/// Objects by namespace and [`Target::id`]. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// Kinds whose first list is complete.
    kinds: Arc<RwLock<Vec<Kind>>>,
    /// Objects elsewhere are as if they were not there.
    namespaces: Arc<Namespaces>,
}

#[derive(Debug, Clone)]
struct Kind {
    resource: Arc<ApiResource>,
    cache: Cache<Target>,
}

// === impl Targets ===

impl Targets {
    /// None yet; of these namespaces alone.
    pub(super) fn of(namespaces: &Namespaces) -> Self {
        Self {
            kinds: Arc::default(),
            namespaces: Arc::new(namespaces.clone()),
        }
    }

    /// The object of this id.
    #[must_use]
    pub fn get(&self, namespace: &str, id: &str) -> Option<Arc<Target>> {
        if !self.namespaces.has(namespace) {
            return None;
        }
        let kinds = self.kinds.read();
        kinds.iter().find_map(|kind| kind.cache.get(namespace, id))
    }

    /// Every object of a namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<Target>> {
        if !self.namespaces.has(namespace) {
            return Vec::new();
        }
        let kinds = self.kinds.read();
        let found = kinds.iter().map(|kind| kind.cache.in_namespace(namespace));
        found.flatten().collect()
    }

    /// The version of all objects of a namespace ([`Cache::version`]), with each kind that is known.
    #[must_use]
    pub fn version(&self, namespace: &str) -> u64 {
        let kinds = self.kinds.read();
        let versions = kinds.iter().map(|kind| kind.cache.version(namespace));
        versions.sum()
    }

    /// Every object.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Target>> {
        let kinds = self.kinds.read();
        let all = kinds.iter().flat_map(|kind| kind.cache.all());
        all.filter(|target| self.namespaces.has(&target.namespace))
            .collect()
    }

    /// Whether all objects of this one's kind are known: where they are not, one that isn't found
    /// may still be there.
    #[must_use]
    pub fn knows_kind_of(&self, target: &scaled_workload::Target) -> bool {
        let kinds = self.kinds.read();
        kinds.iter().any(|kind| is_of_kind(target, &kind.resource))
    }

    /// Looks for `resource` until the API server has it, and watches it from then on. `pending`
    /// goes with its first list, or when it turns out that it isn't there yet.
    pub(super) fn watch(
        &self,
        client: &Client,
        resource: &TargetResource,
        pending: Pending,
        on_touched: &OnTouched,
    ) {
        let (kinds, client) = (Arc::clone(&self.kinds), client.clone());
        let wanted = resource.clone();
        let teller = Teller::new(&resource.to_string(), on_touched);
        tokio::spawn(async move {
            let search = Search::new(DISCOVER_EVERY, is_builtin(&wanted));
            let (resource, pending) = search.run(pending, || said(&wanted, &client)).await;
            let resource = Arc::new(resource);
            let writer = Writer::new(KEYS);
            let kind = Kind {
                resource: Arc::clone(&resource),
                cache: writer.cache(),
            };
            let watch = Watch {
                teller,
                pending,
                touched: |target: &Target| Touched::Workload(target.namespace.clone(), target.id()),
                is_vital: is_builtin(&wanted),
                unplanned: None,
            };
            let api: Api<DynamicObject> = Api::all_with(client, &*resource);
            let kept = |object| Target::new(&resource, object);
            let on_listed = || {
                let mut kinds = kinds.write();
                if !kinds.iter().any(|known| known.resource == kind.resource) {
                    kinds.push(kind.clone());
                }
            };
            let what = (api, lull_kubernetes::watched());
            watch.run(what, writer, kept, on_listed).await;
        });
    }
}

/// Whether every API server has it. One that is broken keeps nobody from the others; its own
/// workloads are left alone until all of them are known.
fn is_builtin(resource: &TargetResource) -> bool {
    resource.group == "apps"
}

/// What the API server says of the kind.
async fn said(wanted: &TargetResource, client: &Client) -> Said<ApiResource> {
    match discover(wanted, client).await {
        Ok(resource) => Said::There(resource),
        Err(error @ DiscoveryError::Api { .. }) => Said::Nothing(error.to_string()),
        Err(error) => Said::Missing(Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    /// A Deployment `hello` in each of the namespaces `web` and `shop`.
    fn two(namespaces: &str) -> Targets {
        let targets = Targets::of(&namespaces.parse().unwrap());
        let resource = Arc::new(ApiResource::erase::<Deployment>(&()));
        let mut writer = Writer::new(KEYS);
        for namespace in ["web", "shop"] {
            let object = json!({ "metadata": { "namespace": namespace, "name": "hello" } });
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            writer.take(Event::Apply(Target::new(&resource, object)));
        }
        let cache = writer.cache();
        targets.kinds.write().push(Kind { resource, cache });
        targets
    }

    fn namespaces(found: &[Arc<Target>]) -> Vec<&str> {
        let mut names: Vec<&str> = found.iter().map(|t| t.namespace.as_str()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn objects_of_other_namespaces_are_as_if_they_were_not_there() {
        let all = two("");
        assert_eq!(namespaces(&all.all()), ["shop", "web"]);
        let some = two("web");
        assert_eq!(namespaces(&some.all()), ["web"]);
        assert_eq!(namespaces(&some.in_namespace("web")), ["web"]);
        assert_eq!(namespaces(&some.in_namespace("shop")), [""; 0]);
        let id = some.in_namespace("web")[0].id();
        assert!(some.get("web", &id).is_some() && some.get("shop", &id).is_none());
        assert!(all.get("shop", &id).is_some());
    }
}
