//! HorizontalPodAutoscalers: who else scales a workload.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;

use crate::cache::Keys;

/// A HorizontalPodAutoscaler, as much of it as Lull reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hpa {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// What it scales: `<kind>/<name>`, as [`Hpa::target_of`] writes it.
    pub target: String,
}

// === impl Hpa ===

impl Hpa {
    pub(super) const KEYS: Keys<Self> = Keys {
        place: |hpa| (hpa.namespace.clone(), hpa.name.clone()),
        group: |hpa| Some(&hpa.target),
        part: |hpa| &hpa.namespace,
        alike: |a, b| a == b,
    };

    /// How [`Hpa::target`] names the object `name` of `kind`.
    #[must_use]
    pub fn target_of(kind: &str, name: &str) -> String {
        format!("{kind}/{name}")
    }
}

impl From<HorizontalPodAutoscaler> for Hpa {
    fn from(hpa: HorizontalPodAutoscaler) -> Self {
        let target = hpa.spec.as_ref().map(|spec| &spec.scale_target_ref);
        Self {
            target: target.map_or_else(String::new, |t| Self::target_of(&t.kind, &t.name)),
            namespace: hpa.namespace().unwrap_or_default(),
            name: hpa.name_any(),
        }
    }
}
