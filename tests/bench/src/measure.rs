//! The measurements, for any of the proxies.

mod cost;
mod instructions;
mod latency;
mod memory;
mod size;
mod start;

pub use cost::{Cost, cost};
pub use instructions::{Scenario, instructions};
pub use latency::{Latency, latency};
pub use memory::{CROWD, State, Usage, memory};
pub use size::shipped_mb;
pub use start::start_ms;

/// Connections over which HTTP/1.1 is sent.
pub const CONNECTIONS: u32 = 64;
