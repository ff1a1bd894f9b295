//! How measured values are spread.

/// Some figures of many values, in their unit; NaN where there is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Half of the values are no larger.
    pub p50: f64,
    /// 99 % of the values are no larger.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

// === impl Spread ===

impl Spread {
    /// Of `values`.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            p50: at(values.len().saturating_sub(1) / 2),
            p99: at((values.len() * 99).div_ceil(100).saturating_sub(1)),
            max: at(values.len().saturating_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_hundred_may_be_larger_than_p99() {
        let values = (1..=100).rev().map(f64::from);
        let spread = Spread::of(values);
        assert_eq!((spread.p50, spread.p99, spread.max), (50.0, 99.0, 100.0));
        assert!(Spread::of([]).p50.is_nan());
    }
}
