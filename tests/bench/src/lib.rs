//! Benches of Lull's proxies beside HAProxy and Envoy, on loopback.
//!
//! ```text
//! bin/bench-* --> measure --> load --> proxies (a core of its own) --> nginx
//!        |
//!        `--> table (figures, bounds, verdict)
//! ```
//!
//! CPU per request is the time of all the proxy's threads on a core, in the kernel, too, by the
//! number of requests, while as many are sent as it can take: it then finds several at each look,
//! which is the cheapest case for all of them. The latency's load is half of that and comes one by
//! one, so that every request wakes the proxy; on a virtual machine most of what is added then is
//! the way from one core to the other.
//!
//! Every process is a [`Child`] that dies with its owner; every figure is a [`Sample`] over rounds
//! that take turns, so that a slow minute of the machine hits all proxies alike.

pub mod baseline;
pub mod bench;
pub mod child;
pub mod cores;
pub mod interrupt;
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

pub use bench::{Bench, Programs, sorted};
pub use child::Child;
pub use cores::Cores;
pub use interrupt::until_interrupted;
pub use nginx::{Nginx, Protocol};
pub use proxies::{Kind, Proxy};
pub use sample::Sample;
pub use say::{progress, say};
pub use scratch::Scratch;
pub use table::{Bound, Limit, Row};
