//! Benches of Lull's proxies beside HAProxy and Envoy, on loopback.
//!
//! ```text
//! bin/bench-* --> measure --> load --> proxies (a core of its own) --> nginx
//!        |
//!        `--> table (figures, bounds, verdict)
//! ```
//!
//! Every process is a [`Child`] that dies with its owner; every figure is a [`Sample`] over rounds
//! that take turns, so that a slow minute of the machine hits all proxies alike.

pub mod baseline;
pub mod bench;
pub mod child;
pub mod cores;
pub mod load;
pub mod machine;
pub mod measure;
pub mod nginx;
pub mod ports;
pub mod proxies;
pub mod sample;
pub mod say;
pub mod scratch;
pub mod table;

pub use bench::{Bench, Programs};
pub use child::Child;
pub use cores::Cores;
pub use nginx::{Nginx, Protocol};
pub use proxies::{Kind, Proxy};
pub use sample::Sample;
pub use say::{progress, say};
pub use scratch::Scratch;
pub use table::{Bound, Limit, Row};
