//! Which pod takes the next one: pure.

/// The place in `pods` that takes the next one: least in flight, ties in turn.
///
/// `pods` has an entry for each pod: what it has in flight, `None` where it can take nothing.
/// `cursor` = where a tie starts; the caller sets it behind the pick.
pub(crate) fn pick(
    pods: impl ExactSizeIterator<Item = Option<u32>>,
    cursor: usize,
) -> Option<usize> {
    let count = pods.len();
    pods.enumerate()
        .filter_map(|(place, in_flight)| Some((place, in_flight?)))
        .min_by_key(|(place, in_flight)| {
            let turn = (place + count - cursor % count) % count;
            (*in_flight, turn)
        })
        .map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked<const N: usize>(pods: [Option<u32>; N], cursor: usize) -> Option<usize> {
        pick(pods.into_iter(), cursor)
    }

    #[test]
    fn least_in_flight_is_first() {
        assert_eq!(picked([Some(3), Some(1), Some(2)], 0), Some(1));
    }

    #[test]
    fn pods_that_cannot_be_used_are_passed_over() {
        assert_eq!(picked([None, Some(5), None], 2), Some(1));
        assert_eq!(picked([None], 0), None);
        assert_eq!(picked([], 3), None);
    }

    #[test]
    fn ties_rotate() {
        let mut cursor = 0;
        let mut order = Vec::new();
        for _ in 0..4 {
            let place = picked([Some(1); 3], cursor).unwrap();
            order.push(place);
            cursor = place + 1;
        }
        assert_eq!(order, [0, 1, 2, 0]);
    }
}
