//! The sidecar of a workload's pods: limits concurrency, queues, counts and drains.
//!
//! ```text
//! caller --> listen --> connection --(TLS, TCP)--> splice ---------------------> app at the pod IP
//!                           `-------(HTTP)-----> request --> limiter --> upstream -^
//! kubelet, activator --> admin 8022 --> probe (is the app up?), drain
//! autoscaler --> report 9090 --> traffic (counts), callers (who), bypass (connections that went round us),
//!                                loopback (an app that listens where we don't call it)
//! preStop `queue-proxy drain` --> control (unix socket) --> drain
//! request, splice --> access --> standard output (where it is asked for)
//! request --> lull_traces --> collector (where it is asked for)
//! ```
//!
//! The data plane has a runtime and a thread of its own; everything else shares a second one, so
//! that neither a busy data plane makes probes slow nor the reverse.

pub mod app;
pub mod config;
pub mod control;

mod access;
mod activity;
mod admin;
mod body;
mod bypass;
mod caller;
mod callers;
mod connection;
mod drain;
mod error;
mod first_bytes;
mod grpc;
mod headers;
mod histogram;
mod limiter;
mod loopback;
mod metrics;
mod probe;
mod request;
mod splice;
mod stall;
mod traffic;
mod tunnel;
mod upload;
mod upstream;
mod wire;

pub use app::{Addresses, Bound, build};
pub use config::Config;
