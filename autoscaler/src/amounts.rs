//! CPU and memory as Kubernetes' typed objects have them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity as Written,
};
use lull_contract::Quantity;
use lull_injection::resources::{Amounts, Resources};

/// Amounts by the names of their resources.
type ByName = BTreeMap<String, Written>;

/// The amount of this name; `None` also where it can't be read.
pub(crate) fn amount(amounts: Option<&ByName>, name: &str) -> Option<Quantity> {
    let Written(text) = amounts?.get(name)?;
    Quantity::read(text)
}

/// Those of CPU and memory.
pub(crate) fn amounts(amounts: Option<&ByName>) -> Amounts<Quantity> {
    Amounts {
        cpu: amount(amounts, "cpu"),
        memory: amount(amounts, "memory"),
    }
}

/// What a container, or a pod as a whole, asks for.
pub(crate) fn resources(asked: Option<&ResourceRequirements>) -> Resources<Quantity> {
    Resources {
        requests: amounts(asked.and_then(|asked| asked.requests.as_ref())),
        limits: amounts(asked.and_then(|asked| asked.limits.as_ref())),
    }
}
