//! Figures beside what they must be, as markdown.

use crate::Sample;

/// What a figure must keep.
#[derive(Debug, Clone)]
pub struct Bound {
    /// What is bounded, as it is printed: "x Envoy", or the figure's unit.
    pub of: String,
    /// Each round's value of it.
    pub value: Sample,
    /// The limit.
    pub limit: Limit,
}

/// On which side of a number a value must stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Not above.
    Most(f64),
    /// Not below.
    Least(f64),
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured, with its unit.
    pub figure: String,
    /// Ours; what it was beside; empty where it was not measured.
    pub cells: Vec<Sample>,
    /// What it must keep.
    pub bounds: Vec<Bound>,
}

// === impl Bound ===

impl Bound {
    /// `value` must not be above `limit`, in `of`.
    #[must_use]
    pub fn most(value: Sample, of: &str, limit: f64) -> Self {
        Self {
            of: of.to_owned(),
            value,
            limit: Limit::Most(limit),
        }
    }

    /// Whether the median keeps the limit.
    #[must_use]
    pub fn reached(&self) -> bool {
        let median = self.value.median();
        match self.limit {
            Limit::Most(most) => median <= most,
            Limit::Least(least) => median >= least,
        }
    }

    fn must(&self) -> String {
        match self.limit {
            Limit::Most(most) => format!("≤ {most} {}", self.of),
            Limit::Least(least) => format!("≥ {least} {}", self.of),
        }
    }
}

// === impl Row ===

impl Row {
    fn markdown(&self) -> String {
        let mut cells = vec![self.figure.clone()];
        cells.extend(self.cells.iter().map(|sample| spread(sample, "")));
        let each = |text: fn(&Bound) -> String| {
            let all: Vec<String> = self.bounds.iter().map(text).collect();
            all.join("; ")
        };
        cells.push(each(|bound| spread(&bound.value, &bound.of)));
        cells.push(each(Bound::must));
        cells.push(each(|bound| {
            let verdict = if bound.reached() { "yes" } else { "**no**" };
            verdict.to_owned()
        }));
        format!("| {} |", cells.join(" | "))
    }
}

/// The table of `rows`, whose cells are of `columns`.
#[must_use]
pub fn markdown(columns: &[&str], rows: &[Row]) -> String {
    let mut head = vec!["figure"];
    head.extend(columns);
    head.extend(["ratio or value", "must", "reached"]);
    let mut lines = vec![
        format!("| {} |", head.join(" | ")),
        format!("|{}", "---|".repeat(head.len())),
    ];
    lines.extend(rows.iter().map(Row::markdown));
    lines.join("\n")
}

/// How many bounds are kept, and of how many.
#[must_use]
pub fn verdict(rows: &[Row]) -> (usize, usize) {
    let bounds = rows.iter().flat_map(|row| &row.bounds);
    let reached = bounds.clone().filter(|bound| bound.reached()).count();
    (reached, bounds.count())
}

/// Median, least and most, with a unit; a dash of nothing.
fn spread(sample: &Sample, unit: &str) -> String {
    let median = sample.median();
    if median.is_nan() {
        return "–".to_owned();
    }
    let (least, most) = sample.range();
    let digits = digits(median);
    let unit = if unit.is_empty() {
        String::new()
    } else {
        format!(" {unit}")
    };
    if least == most {
        return format!("{median:.digits$}{unit}");
    }
    format!("{median:.digits$}{unit} ({least:.digits$}..{most:.digits$})")
}

/// Decimals that show about three significant digits.
fn digits(value: f64) -> usize {
    match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64) -> Row {
        Row {
            figure: "CPU, µs".to_owned(),
            cells: vec![Sample::from_iter([9.0, value, 11.0]), Sample::default()],
            bounds: vec![Bound {
                of: "x Envoy".to_owned(),
                value: Sample::from_iter([value / 20.0]),
                limit: Limit::Most(0.5),
            }],
        }
    }

    #[test]
    fn a_line_shows_median_spread_bound_and_verdict() {
        let text = markdown(&["ours", "Envoy"], &[row(10.0)]);
        let last = text.lines().next_back();
        assert_eq!(
            last,
            Some("| CPU, µs | 10.0 (9.0..11.0) | – | 0.50 x Envoy | ≤ 0.5 x Envoy | yes |")
        );
    }

    #[test]
    fn bounds_are_counted_and_nothing_measured_is_not_reached() {
        assert_eq!(verdict(&[row(10.0), row(10.5), row(f64::NAN)]), (1, 3));
    }
}
