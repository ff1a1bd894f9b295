//! One figure over several rounds.

/// Values of one figure, one per round.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample(Vec<f64>);

// === impl Sample ===

impl Sample {
    /// Adds a round's value.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle value; of an even number the mean of the middle two; NaN of none.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            length if length.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        }
    }

    /// Smallest and greatest value.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (least, most)
    }

    /// Each round's value by that of `other` in the same round, which a slow minute of the machine
    /// changes less than either.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(Sample::from_iter([3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Sample::from_iter([4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(Sample::default().median().is_nan());
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let ours = Sample::from_iter([1.0, 4.0]);
        let theirs = Sample::from_iter([2.0, 4.0]);
        assert_eq!(ours.over(&theirs), Sample::from_iter([0.5, 1.0]));
        assert_eq!(ours.over(&theirs).range(), (0.5, 1.0));
    }
}
