//! How many may wait for a slot: more while the pod is fresh. Pure.
//!
//! Inside a mesh an activator sees connections, no requests: all that a caller's Envoy has collected
//! during a wake comes at once, on one connection, to the first pod that is there. Elsewhere the
//! activator holds just these until there are slots, so here they wait as they would wait there: in the
//! same number, as far as the sidecar's memory goes.

use std::time::Duration;

use lull_contract::settings::{
    MAX_HELD_PER_WORKLOAD, QUEUE_DEPTH_PER_SLOT, SIDECAR_MEMORY_LIMIT_MIB,
};

use super::wide;

/// So long after its first request a pod is fresh: what was collected comes at once, and on connections
/// that are made anew within seconds. Later ones find a queue that is as short as everywhere: a new pod
/// of a workload that has too few may not collect what it can't answer in time.
const FRESH: Duration = Duration::from_secs(10);
/// Taken for each request that waits: its head, its stream or connection, its task.
const WAITING_BYTES: u64 = 16 * 1024;
/// Taken for the memory limit where nobody can say what it is (cgroup v1): the default one.
const DEFAULT_MEMORY: u64 = SIDECAR_MEMORY_LIMIT_MIB << 20;
/// Share of the memory limit that those who wait may take: the rest is for bodies and all else.
const MEMORY_SHARE: u64 = 4;

/// How many requests may wait for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    usual: usize,
    fresh: usize,
}

// === impl Depth ===

impl Depth {
    /// The same at all times.
    pub(crate) fn fixed(depth: u32) -> Self {
        let depth = wide(depth);
        Self {
            usual: depth,
            fresh: depth,
        }
    }

    /// `depth` places behind `limit` slots in a process that may take `memory` bytes (`None`: nobody can
    /// say). Another depth than the default one is somebody's wish, and holds from the first
    /// request on.
    pub(crate) fn of(limit: u32, depth: u32, memory: Option<u64>) -> Self {
        let usual = Self::fixed(depth);
        if depth != limit.saturating_mul(QUEUE_DEPTH_PER_SLOT) {
            return usual;
        }
        let room = memory.unwrap_or(DEFAULT_MEMORY) / MEMORY_SHARE / WAITING_BYTES;
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        Self {
            fresh: room.min(MAX_HELD_PER_WORKLOAD).max(usual.usual),
            ..usual
        }
    }

    /// So long after the first request.
    pub(super) fn at(self, age: Duration) -> usize {
        if age < FRESH { self.fresh } else { self.usual }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_fresh_pod_lets_as_many_wait_as_an_activator_or_as_its_memory_has_room_for() {
        let rows = [
            // Limit, depth, memory; when fresh, and later.
            ((10, 100, None), (4_096, 100)),
            ((10, 100, Some(256 * MIB)), (4_096, 100)),
            ((10, 100, Some(1024 * MIB)), (10_000, 100)),
            ((10, 100, Some(1)), (100, 100)),
            ((2_000, 20_000, None), (20_000, 20_000)),
            // What somebody wants.
            ((10, 5, None), (5, 5)),
            ((10, 0, None), (0, 0)),
            ((10, 500, Some(MIB)), (500, 500)),
        ];
        for ((limit, depth, memory), expected) in rows {
            let depths = Depth::of(limit, depth, memory);
            let found = (
                depths.at(Duration::ZERO),
                depths.at(FRESH + Duration::from_millis(1)),
            );
            assert_eq!(found, expected, "{limit} {depth} {memory:?}");
        }
    }
}
