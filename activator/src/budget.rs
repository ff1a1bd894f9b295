//! How much may be held: one budget for all workloads, which no workload can use up alone.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What is held in all, beside its bounds.
#[derive(Debug)]
pub(crate) struct Budget {
    count: AtomicUsize,
    bytes: AtomicUsize,
    /// Bounds.
    most: Amount,
}

/// Requests and connections that are held, and what they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

// === impl Budget ===

impl Budget {
    pub(crate) fn new(most: Amount) -> Self {
        Self {
            count: AtomicUsize::default(),
            bytes: AtomicUsize::default(),
            most,
        }
    }

    /// Held in all.
    pub(crate) fn held(&self) -> Amount {
        Amount {
            count: self.count.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// Whether a workload that holds `own` may hold one more of `bytes`.
    ///
    /// It may have as much as is left for all (the dynamic threshold of shared-memory switches,
    /// Choudhury and Hahne 1998): one alone gets half of the budget, two a third each, and there
    /// always is something left for one that has nothing yet.
    pub(crate) fn admits(&self, own: Amount, bytes: usize) -> bool {
        let held = self.held();
        let left = Amount {
            count: self.most.count.saturating_sub(held.count),
            bytes: self.most.bytes.saturating_sub(held.bytes),
        };
        own.count < left.count && own.bytes.saturating_add(bytes) <= left.bytes
    }

    pub(crate) fn add(&self, bytes: usize) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back what [`Self::add`] has added.
    pub(crate) fn sub(&self, bytes: usize) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills up one workload after the other; what each got.
    fn filled(most: Amount, bytes: usize, workloads: usize) -> Vec<usize> {
        let budget = Budget::new(most);
        let fill = |_| {
            let mut own = Amount::default();
            while budget.admits(own, bytes) {
                budget.add(bytes);
                own.count += 1;
                own.bytes += bytes;
            }
            own.count
        };
        (0..workloads).map(fill).collect()
    }

    #[test]
    fn a_flood_leaves_room_for_the_next_and_the_next() {
        let most = Amount {
            count: 64,
            bytes: usize::MAX,
        };
        assert_eq!(filled(most, 1, 4), [32, 16, 8, 4]);
    }

    #[test]
    fn large_heads_are_bounded_by_bytes() {
        let most = Amount {
            count: usize::MAX,
            bytes: 64 << 20,
        };
        assert_eq!(filled(most, 1 << 20, 2), [32, 16]);
        assert_eq!(filled(most, 65 << 20, 1), [0]);
    }

    #[test]
    fn what_has_gone_is_free_again() {
        let budget = Budget::new(Amount {
            count: 1,
            bytes: 10,
        });
        budget.add(10);
        assert!(!budget.admits(Amount::default(), 1));
        budget.sub(10);
        assert!(budget.admits(Amount::default(), 10));
        assert_eq!(budget.held(), Amount::default());
    }
}
