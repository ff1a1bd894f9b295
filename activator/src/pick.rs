//! Which pod takes the next one: pure.

/// What a pod has in flight, by our own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InFlight {
    /// HTTP requests: these take the pod's slots.
    pub(crate) requests: u32,
    /// Spliced connections: their requests are not visible here, so they take none.
    pub(crate) connections: u32,
}

/// The place in `pods` that takes the next one: least in flight among those with a free slot, ties
/// in turn.
///
/// `pods` has an entry for each pod, `None` where it can't be used, else with the requests that it
/// may have from us (`None` = no limit). `cursor` = where a tie starts; the caller sets it behind the pick.
pub(crate) fn pick(
    pods: impl ExactSizeIterator<Item = Option<(InFlight, Option<u32>)>>,
    cursor: usize,
) -> Option<usize> {
    let count = pods.len();
    pods.enumerate()
        .filter_map(|(place, pod)| Some((place, pod?)))
        .filter(|(_, (pod, slots))| slots.is_none_or(|slots| pod.requests < slots))
        .min_by_key(|(place, (pod, _))| {
            let turn = (place + count - cursor % count) % count;
            (u64::from(pod.requests) + u64::from(pod.connections), turn)
        })
        .map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(requests: &[i64]) -> Vec<Option<InFlight>> {
        let pod = |n: &i64| {
            u32::try_from(*n).ok().map(|requests| InFlight {
                requests,
                connections: 0,
            })
        };
        requests.iter().map(pod).collect()
    }

    fn picked(requests: &[i64], slots: u32, cursor: usize) -> Option<usize> {
        let slots = (slots > 0).then_some(slots);
        let pods = pods(requests).into_iter();
        pick(pods.map(|pod| Some((pod?, slots))), cursor)
    }

    #[test]
    fn least_in_flight_is_first() {
        assert_eq!(picked(&[3, 1, 2], 0, 0), Some(1));
    }

    #[test]
    fn pods_that_cannot_be_used_are_passed_over() {
        assert_eq!(picked(&[-1, 5, -1], 0, 2), Some(1));
        assert_eq!(picked(&[-1], 0, 0), None);
        assert_eq!(picked(&[], 0, 3), None);
    }

    #[test]
    fn a_pod_without_a_free_slot_waits() {
        assert_eq!(picked(&[2, 1], 2, 0), Some(1));
        assert_eq!(picked(&[2, 2], 2, 0), None);
    }

    #[test]
    fn ties_rotate() {
        let mut cursor = 0;
        let mut order = Vec::new();
        for _ in 0..4 {
            let place = picked(&[1, 1, 1], 0, cursor).unwrap();
            order.push(place);
            cursor = place + 1;
        }
        assert_eq!(order, [0, 1, 2, 0]);
    }

    #[test]
    fn connections_weigh_but_take_no_slot() {
        let busy = InFlight {
            requests: 0,
            connections: 9,
        };
        let idle = InFlight {
            requests: 1,
            connections: 0,
        };
        let picked = |slots| pick([busy, idle].map(|pod| Some((pod, slots))).into_iter(), 0);
        assert_eq!(picked(None), Some(1));
        assert_eq!(picked(Some(1)), Some(0));
    }

    #[test]
    fn a_pod_of_which_no_slot_is_ours_is_passed_over() {
        let idle = InFlight {
            requests: 0,
            connections: 0,
        };
        let pods = [Some((idle, Some(0))), Some((idle, Some(1)))];
        assert_eq!(pick(pods.into_iter(), 0), Some(1));
    }
}
