//! What Lull's components agree on: annotation keys and their values, ports, object names, the
//! reports that the autoscaler pulls, the pages that it serves, and the `ScaledWorkload` resource.
//!
//! Everything here is pure: no I/O, no clock. A component that wants to know "what is it called"
//! or "what does it look like on the wire" finds the one answer here.

pub mod annotations;
pub mod assignment;
pub mod duration;
pub mod headers;
pub mod injected;
pub mod names;
pub mod original;
pub mod ports;
pub mod quantity;
pub mod report;
#[cfg(feature = "crd")]
pub mod scaled_workload;
pub mod settings;
pub mod shards;
pub mod target_resource;
pub mod view;

pub use duration::HumanDuration;
pub use quantity::Quantity;
pub use settings::{AppPort, AppProtocol, Class, Metric, Settings};
pub use shards::Shards;
