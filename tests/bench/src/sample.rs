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

    /// Number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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

    /// The value that `share` of all (0 to 1) do not exceed; NaN of none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to length"
        )]
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
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

    /// Each round's value less that of `other` in the same round.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a - b).collect())
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
    fn a_quantile_is_one_of_the_values() {
        let hundred: Sample = (1..=100).map(f64::from).collect();
        assert_eq!(
            (hundred.quantile(0.5), hundred.quantile(0.99)),
            (50.0, 99.0)
        );
        assert_eq!((hundred.quantile(0.0), hundred.quantile(1.0)), (1.0, 100.0));
        assert!(Sample::default().quantile(0.5).is_nan());
    }

    #[test]
    fn ratios_and_differences_are_taken_round_by_round() {
        let ours = Sample::from_iter([1.0, 4.0]);
        let theirs = Sample::from_iter([2.0, 4.0]);
        assert_eq!(ours.over(&theirs), Sample::from_iter([0.5, 1.0]));
        assert_eq!(ours.over(&theirs).range(), (0.5, 1.0));
        assert_eq!(ours.minus(&theirs), Sample::from_iter([-1.0, 0.0]));
    }
}
