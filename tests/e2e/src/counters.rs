//! Counters in Prometheus' text.

/// Sum of the series of `name` whose labels hold each of `labels`, such as `verb="POST"`.
#[must_use]
pub fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let value = |line: &str| -> Option<f64> {
        let series = line.strip_prefix(name)?.strip_prefix('{')?;
        let (found, value) = series.rsplit_once("} ")?;
        let fits = labels.iter().all(|label| found.contains(label));
        // A time stamp may follow.
        fits.then(|| value.split(' ').next()?.parse().ok())
            .flatten()
    };
    metrics.lines().filter_map(value).sum()
}

/// Value of the series `name`, which has no labels; NaN where there is none.
#[must_use]
pub fn plain(metrics: &str, name: &str) -> f64 {
    let value = |line: &str| -> Option<f64> {
        let value = line.strip_prefix(name)?.strip_prefix(' ')?;
        value.split(' ').next()?.parse().ok()
    };
    metrics.lines().find_map(value).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_series_with_the_labels_are_summed() {
        let text = "# HELP calls x\ncalls{what=\"Scale\",done=\"Yes\"} 3\n\
            calls{what=\"Scale\",done=\"No\"} 1\ncalls{what=\"Other\",done=\"Yes\"} 9 17\n\
            calls_created{what=\"Scale\"} 100\n";
        assert_eq!(sum(text, "calls", &["what=\"Scale\""]), 4.0);
        assert_eq!(sum(text, "calls", &["what=\"Other\"", "done=\"Yes\""]), 9.0);
        assert_eq!(sum(text, "calls", &["what=\"None\""]), 0.0);
    }

    #[test]
    fn a_series_without_labels_is_found_by_its_whole_name() {
        let text = "# TYPE cpu counter\ncpu_limit 2\ncpu 1.5 17\n";
        assert_eq!(plain(text, "cpu"), 1.5);
        assert!(plain(text, "memory").is_nan());
    }
}
