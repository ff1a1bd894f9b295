//! The measurements, for any of the proxies.

mod cost;
mod held;
mod instructions;
mod latency;
mod memory;
mod size;
mod start;
mod volume;

pub use cost::{Cost, cost};
pub use held::{Held, MANY, Many, held, many};
pub use instructions::{Scenario, instructions};
pub use latency::{Latency, latency};
pub use memory::{CROWD, State, Usage, memory};
pub use size::shipped_mb;
pub use start::start_ms;
pub use volume::volume;

/// Connections over which HTTP/1.1 is sent.
pub const CONNECTIONS: u32 = 64;
