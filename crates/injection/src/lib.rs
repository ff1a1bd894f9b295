//! What an injected pod template looks like, and how our parts are taken out of it again.
//!
//! The webhook puts them in and takes them out; where it is gone already, `autoscaler restore` takes
//! them out. Pure, on raw JSON: a typed round trip would drop fields that this build doesn't know.

pub mod parts;
mod record;
pub mod resources;
pub mod shape;
mod strip;

pub use record::{Classic, Image, Included, ProxyConfig, Record, Renumbered, SmallPorts};
pub use strip::strip;
