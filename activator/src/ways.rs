//! How callers come to a workload: by which of the two ways through it is held and passed on.

use std::sync::atomic::{AtomicU64, Ordering};

use lull_contract::report::Ways;

use crate::metrics::Kind;

/// Connections that were taken in, by what they carry.
#[derive(Debug, Default)]
pub(crate) struct WayCounts {
    http1: AtomicU64,
    h2c: AtomicU64,
    tls: AtomicU64,
    tcp: AtomicU64,
}

// === impl WayCounts ===

impl WayCounts {
    pub(crate) fn add(&self, kind: Kind) {
        let count = match kind {
            Kind::Http1 => &self.http1,
            Kind::H2c => &self.h2c,
            Kind::Tls => &self.tls,
            Kind::Tcp => &self.tcp,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn told(&self) -> Ways {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ways {
            http1: read(&self.http1),
            h2c: read(&self.h2c),
            tls: read(&self.tls),
            tcp: read(&self.tcp),
        }
    }
}
