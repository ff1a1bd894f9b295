//! Traces of the proxies: W3C trace context in and out, spans by OTLP over HTTP to a collector. Off
//! unless there is one.
//!
//! ```text
//! caller --traceparent--> proxy --its own traceparent--> next
//!                           | span, at its end
//!                           v
//!            Traces --bounded queue--> Exporter --batches--> collector
//! ```
//!
//! The data plane never waits: what the queue does not take is lost and counted.

#[cfg(feature = "test-collector")]
pub mod collector;
mod exporter;
mod parent;
mod span;

pub use exporter::{Exporter, Traces, traces};
pub use parent::{TRACE_PARENT, TraceParent};
pub use span::Span;
