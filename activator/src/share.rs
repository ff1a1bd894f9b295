//! How the slots of a workload's pods are divided among the activators: pure.
//!
//! Each activator counts only what it sends itself. So that all of them together never send a pod
//! more than its hard limit, every slot belongs to one of them. They agree without talking: all see
//! the same activators and the same pods, in the order of their names.

/// Which of the activators we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Our place among them, from 0.
    place: usize,
    /// How many there are, with us.
    of: usize,
}

// === impl Share ===

impl Share {
    /// Everything is ours.
    pub(crate) const WHOLE: Self = Self { place: 0, of: 1 };

    /// Ours among the activators with these `names`; one that is not listed counts itself: whoever
    /// reaches us is served, too.
    pub(crate) fn among<'a>(us: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut others: Vec<&str> = names.into_iter().filter(|name| *name != us).collect();
        others.sort_unstable();
        others.dedup();
        Self {
            place: others.partition_point(|name| *name < us),
            of: others.len() + 1,
        }
    }

    /// Our slots at the pod with this `rank` among `pods`, each of which has `limit` (1 or more).
    ///
    /// All slots in a row are dealt in turn, so that no activator has two more than another. Where
    /// there are fewer slots than activators, those without one take part of a slot that belongs to
    /// another: the pod's queue-proxy lets the second wait, and nobody starves here.
    pub(crate) fn of_pod(self, limit: u32, (rank, pods): (usize, usize)) -> u32 {
        let limit = limit as usize;
        let first = (rank * limit) % self.of;
        let turn = (self.place + self.of - first) % self.of;
        let mut ours = limit / self.of + usize::from(turn < limit % self.of);
        let has_none = self.place >= pods * limit;
        if has_none && self.place % pods.max(1) == rank {
            ours = ours.max(1);
        }
        u32::try_from(ours).unwrap_or(u32::MAX)
    }

    /// Which of so many `pods`, none of which has a slot of ours, takes one of ours all the same:
    /// activators in a row go to pods in a row. `None` where there is no pod.
    pub(crate) fn among_lenders(self, pods: usize) -> Option<usize> {
        self.place.checked_rem(pods)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots of each activator at each pod.
    fn dealt(limit: u32, pods: usize, of: usize) -> Vec<Vec<u32>> {
        let slots = |place| {
            let share = Share { place, of };
            (0..pods).map(move |rank| share.of_pod(limit, (rank, pods)))
        };
        (0..of).map(|place| slots(place).collect()).collect()
    }

    #[test]
    fn every_slot_is_somebodys_and_nobodys_twice() {
        for (limit, pods, of) in [(10, 5, 2), (1, 3, 2), (3, 4, 5), (7, 1, 3), (100, 9, 4)] {
            let dealt = dealt(limit, pods, of);
            for rank in 0..pods {
                let sum: u32 = dealt.iter().map(|activator| activator[rank]).sum();
                assert_eq!(
                    sum, limit,
                    "pod {rank} of {pods}, {of} activators: {dealt:?}"
                );
            }
            let totals: Vec<u32> = dealt
                .iter()
                .map(|activator| activator.iter().sum())
                .collect();
            let (least, most) = (totals.iter().min().unwrap(), totals.iter().max().unwrap());
            assert!(most - least <= 1, "{totals:?}");
        }
    }

    #[test]
    fn with_fewer_slots_than_activators_each_still_has_one() {
        for (limit, pods, of) in [(1, 1, 2), (1, 2, 5), (2, 1, 3)] {
            let dealt = dealt(limit, pods, of);
            for activator in &dealt {
                assert!(activator.iter().sum::<u32>() >= 1, "{dealt:?}");
            }
        }
    }

    #[test]
    fn lenders_are_taken_in_turn() {
        let lenders = |pods| [0, 1, 2].map(|place| Share { place, of: 3 }.among_lenders(pods));
        assert_eq!(lenders(2), [Some(0), Some(1), Some(0)]);
        assert_eq!(lenders(0), [None; 3]);
    }

    #[test]
    fn the_place_comes_from_the_names_and_we_always_count() {
        let share = |us| Share::among(us, ["c", "a", "b", "a"]);
        assert_eq!(share("b"), Share { place: 1, of: 3 });
        assert_eq!(share("d"), Share { place: 3, of: 4 });
        assert_eq!(Share::among("x", []), Share::WHOLE);
    }
}
