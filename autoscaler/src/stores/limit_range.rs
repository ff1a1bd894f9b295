//! LimitRanges: what single containers and pods may ask for, and what they get that don't say it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use k8s_openapi::api::core::v1::{self as core, LimitRangeItem};
use kube::{Api, Client, ResourceExt};
use lull_contract::Quantity;
use lull_injection::resources::{Amounts, Resources};
use lull_process::readiness::Readiness;

use super::{OnTouched, Touched, Watch};
use crate::{
    amounts::amounts,
    cache::{Cache, Keys, Writer},
};

/// A LimitRange, as much of it as Lull reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRange {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Of each container.
    pub container: Bounds,
    /// Most of a pod's containers together. The least and the ratio are not kept: what others add to a
    /// pod, such as Istio, may put them right.
    pub pod_max: Amounts<Quantity>,
    /// What containers get that don't say it.
    pub defaults: Resources<Quantity>,
}

/// What a container's requests and limits may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Least.
    pub min: Amounts<Quantity>,
    /// Most.
    pub max: Amounts<Quantity>,
    /// Most that a limit may be of its request, in thousandths.
    pub ratio: Amounts<Quantity>,
}

/// All LimitRanges, once they could be listed: without the right to, nothing is known.
#[derive(Debug, Clone)]
pub struct LimitRanges {
    cache: Cache<LimitRange>,
    is_listed: Arc<AtomicBool>,
}

// === impl LimitRange ===

impl LimitRange {
    const KEYS: Keys<Self> = Keys {
        place: |range| (range.namespace.clone(), range.name.clone()),
        group: |_| None,
        part: |range| &range.namespace,
        alike: |a, b| a == b,
    };
}

impl From<core::LimitRange> for LimitRange {
    fn from(range: core::LimitRange) -> Self {
        let (namespace, name) = (range.namespace().unwrap_or_default(), range.name_any());
        let items = range.spec.unwrap_or_default().limits;
        // There is at most one of each type.
        let of = |kind: &str| items.iter().find(|item| item.type_ == kind);
        let (container, pod) = (of("Container"), of("Pod"));
        Self {
            namespace,
            name,
            container: container.map(Bounds::of).unwrap_or_default(),
            pod_max: amounts(pod.and_then(|item| item.max.as_ref())),
            defaults: Resources {
                requests: amounts(container.and_then(|item| item.default_request.as_ref())),
                limits: amounts(container.and_then(|item| item.default.as_ref())),
            },
        }
    }
}

// === impl Bounds ===

impl Bounds {
    fn of(item: &LimitRangeItem) -> Self {
        Self {
            min: amounts(item.min.as_ref()),
            max: amounts(item.max.as_ref()),
            ratio: amounts(item.max_limit_request_ratio.as_ref()),
        }
    }
}

// === impl LimitRanges ===

impl LimitRanges {
    /// Starts to watch them; nothing waits for what may not be read.
    pub(super) fn start(
        client: &Client,
        (readiness, on_touched): (&Readiness, &OnTouched),
    ) -> Self {
        let writer = Writer::new(LimitRange::KEYS);
        let ranges = Self {
            cache: writer.cache(),
            is_listed: Arc::default(),
        };
        let watch = Watch {
            touched: |range: &LimitRange| Touched::Namespace(range.namespace.clone()),
            is_vital: false,
            unplanned: Some(|_| None),
            ..Watch::new("limitranges", (readiness, on_touched))
        };
        let api = Api::<core::LimitRange>::all(client.clone());
        let what = (api, lull_kubernetes::watched());
        let is_listed = Arc::clone(&ranges.is_listed);
        let on_listed = move || is_listed.store(true, Ordering::Relaxed);
        tokio::spawn(watch.run(what, writer, LimitRange::from, on_listed));
        ranges
    }

    /// Those of a namespace; `None` as long as nobody knows whether there are any.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Option<Vec<Arc<LimitRange>>> {
        let is_listed = self.is_listed.load(Ordering::Relaxed);
        is_listed.then(|| self.cache.in_namespace(namespace))
    }

    /// The version of those of a namespace, and of whether they are known ([`Cache::version`]).
    #[must_use]
    pub fn version(&self, namespace: &str) -> u64 {
        let is_listed = self.is_listed.load(Ordering::Relaxed);
        self.cache.version(namespace) + u64::from(is_listed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bounds_and_defaults_are_read_by_type() {
        let limits = json!([
            { "type": "Pod", "max": { "memory": "1Gi" }, "min": { "memory": "9Mi" } },
            {
                "type": "Container", "min": { "cpu": "10m" }, "max": { "memory": "512Mi" },
                "maxLimitRequestRatio": { "memory": "4" },
                "default": { "cpu": "1" }, "defaultRequest": { "cpu": "0.5" },
            },
            { "type": "PersistentVolumeClaim", "max": { "storage": "1Gi" } },
        ]);
        let metadata = json!({ "name": "r", "namespace": "shop" });
        let range = json!({ "metadata": metadata, "spec": { "limits": limits } });
        let range = LimitRange::from(serde_json::from_value::<core::LimitRange>(range).unwrap());
        let of = |text: &str| Quantity::read(text);
        assert_eq!(range.pod_max.memory, of("1Gi"));
        let bounds = range.container;
        assert_eq!((bounds.min.cpu, bounds.min.memory), (of("10m"), None));
        assert_eq!(bounds.max.memory, of("512Mi"));
        assert_eq!(bounds.ratio.memory, of("4"));
        assert_eq!(range.defaults.limits.cpu, of("1"));
        assert_eq!(range.defaults.requests.cpu, of("500m"));
    }
}
