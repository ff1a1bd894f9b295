//! What every Lull process needs: configuration from the environment, logging, a small HTTP server
//! for admin and reports, readiness by name, pauses between tries, and shutdown.

pub mod backoff;
#[cfg(any(test, feature = "doc-tests"))]
pub mod docs;
pub mod env;
pub mod logging;
pub mod otlp;
pub mod readiness;
pub mod server;
pub mod shutdown;

use std::hash::{BuildHasher, Hasher, RandomState};

/// A random number for this process: tells a restarted reporter from one whose counters fell.
///
/// std's hasher keys are random per process, which is all that is needed; not for secrets.
#[must_use]
pub fn boot_id() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    // JSON readers in other languages keep 53 bits of a number.
    hasher.finish() >> 11
}
