//! The app and the load client that Lull's e2e suite runs inside the cluster.
//!
//! Both live in one static binary and one image. The suite drives the client ([`agent`]) from
//! outside, through the API server's pod proxy, with the JSON types of [`wire`]. [`metrics_api`] gives
//! a HorizontalPodAutoscaler something to go by.

pub mod agent;
pub mod metrics_api;
pub mod serve;
pub mod wire;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970 on this machine's clock.
#[must_use]
pub fn unix_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// `duration` in milliseconds, with fractions.
#[must_use]
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// An error with its causes in one line: hyper's own text alone says little.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
