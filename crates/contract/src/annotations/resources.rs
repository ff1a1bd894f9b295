//! Requests and limits of the sidecar.

use super::reader::{Reader, number};
use crate::settings::SIDECAR_MEMORY_LIMIT_MIB;

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
        let amount = |quantity: &String| amount(quantity).unwrap_or(0.0);
        let memory = (MEMORY_REQUEST, &mut resources.memory_request);
        r.keep_order(memory, (MEMORY_LIMIT, &mut resources.memory_limit), amount);
        if let Some(limit) = &mut resources.cpu_limit {
            let cpu = (CPU_REQUEST, &mut resources.cpu_request);
            r.keep_order(cpu, (CPU_LIMIT, limit), amount);
        }
        resources
    }
}

/// A positive quantity with Kubernetes' common suffixes.
fn parse_quantity(value: &str) -> Option<String> {
    amount(value).map(|_| value.to_owned())
}

/// How much a quantity is, in whole units; `None` where it is none, or not positive.
fn amount(quantity: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 10] = [
        ("", 1.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("Ki", 1_024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
    ];
    let digits = quantity
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(quantity.len());
    let (digits, suffix) = quantity.split_at(digits);
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == suffix)?;
    number(digits).filter(|n| *n > 0.0).map(|n| n * unit)
}
