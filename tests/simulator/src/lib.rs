//! The autoscaler's own decisions against modelled traffic, pods and endpoints, in virtual time.
//!
//! ```text
//! traffic --requests--> cluster (pods, activator, what callers see of the endpoints)
//!                          |  ^
//!                   reports|  |actions
//!                          v  |
//!                  controller (the real Demand, Policy and state machine)
//! ```
//!
//! Everything is a function of a seed: a run can be had again.

pub mod cluster;
pub mod controller;
pub mod plot;
pub mod run;
pub mod scenario;
pub mod table;

pub use cluster::Cluster;
pub use controller::Controller;
pub use run::{Faults, Outcome, Point, run};
pub use scenario::{Scenario, all};
