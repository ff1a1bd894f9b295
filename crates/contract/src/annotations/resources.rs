//! Requests and limits of the sidecar.

use super::reader::Reader;
use crate::{Quantity, settings::SIDECAR_MEMORY_LIMIT_MIB};

const MEMORY_REQUEST: &str = "lull.dev/sidecar-memory-request";
const MEMORY_LIMIT: &str = "lull.dev/sidecar-memory-limit";
const CPU_REQUEST: &str = "lull.dev/sidecar-cpu-request";
const CPU_LIMIT: &str = "lull.dev/sidecar-cpu-limit";

/// Requests and limits of the injected queue-proxy, as Kubernetes quantities.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarResources {
    /// CPU request.
    pub cpu_request: String,
    /// Memory request.
    pub memory_request: String,
    /// CPU limit; none by default, so that the sidecar is never throttled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<String>,
    /// Memory limit.
    pub memory_limit: String,
}

// === impl SidecarResources ===

impl SidecarResources {
    /// From the annotations, or as it is by default.
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let mut quantity = |key, default: &str| {
            r.read(
                key,
                "must be a Kubernetes quantity such as \"25m\" or \"64Mi\"",
                parse_quantity,
            )
            .unwrap_or_else(|| default.to_owned())
        };
        let mut resources = Self {
            cpu_request: quantity(CPU_REQUEST, "25m"),
            memory_request: quantity(MEMORY_REQUEST, "16Mi"),
            memory_limit: quantity(MEMORY_LIMIT, &format!("{SIDECAR_MEMORY_LIMIT_MIB}Mi")),
            cpu_limit: Some(quantity(CPU_LIMIT, "")).filter(|v| !v.is_empty()),
        };
        // Kubernetes refuses pods that request more than they may have.
        let amount = |quantity: &String| {
            let quantity = Quantity::read(quantity).unwrap_or_default();
            quantity.milli() as f64
        };
        let memory = (MEMORY_REQUEST, &mut resources.memory_request);
        r.keep_order(memory, (MEMORY_LIMIT, &mut resources.memory_limit), amount);
        if let Some(limit) = &mut resources.cpu_limit {
            let cpu = (CPU_REQUEST, &mut resources.cpu_request);
            r.keep_order(cpu, (CPU_LIMIT, limit), amount);
        }
        resources
    }
}

/// A positive quantity.
fn parse_quantity(value: &str) -> Option<String> {
    let quantity = Quantity::read(value)?;
    (quantity > Quantity::default()).then(|| value.to_owned())
}
