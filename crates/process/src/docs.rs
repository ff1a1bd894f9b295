//! Compares documentation with what the code does. For tests only (feature `doc-tests`).
//!
//! The documents are Markdown with one `## section` for each component and one table in each
//! section. What a machine compares stands in backticks; the rest is for people.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_client::registry::Registry;

/// One row of a table: the text of each cell by the head of its column.
pub type Row = BTreeMap<String, String>;

/// A metric's type and, by label, its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

type Metrics = BTreeMap<String, Metric>;

/// The rows of the first table below `## section` of `markdown`; empty where there is none.
#[must_use]
pub fn table(markdown: &str, section: &str) -> Vec<Row> {
    let mut lines = markdown
        .lines()
        .skip_while(|line| line.strip_prefix("## ") != Some(section))
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .map(cells);
    let Some(head) = lines.next() else {
        return Vec::new();
    };
    // The next line only draws the border.
    lines
        .skip(1)
        .map(|cells| head.iter().cloned().zip(cells).collect())
        .collect()
}

/// What stands in backticks in `cell`.
#[must_use]
pub fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Differences between the metrics that `section` of `markdown` documents (columns `metric`,
/// `type`, `labels`) and those of `exposed`, an OpenMetrics text in which every series is there.
#[must_use]
pub fn metric_differences(markdown: &str, section: &str, exposed: &str) -> Vec<String> {
    let documented = documented_metrics(&table(markdown, section));
    let exposed = exposed_metrics(exposed);
    let names: BTreeSet<&String> = documented.keys().chain(exposed.keys()).collect();
    names
        .into_iter()
        .filter_map(|name| match (documented.get(name), exposed.get(name)) {
            (Some(_), None) => Some(format!("{name} is documented and not exposed")),
            (None, Some(_)) => Some(format!("{name} is exposed and not documented")),
            (Some(doc), Some(code)) if doc != code => Some(format!(
                "{name} is documented as {doc:?} and exposed as {code:?}"
            )),
            _ => None,
        })
        .collect()
}

/// The text of `registry`, as Prometheus gets it.
///
/// # Panics
/// Where a metric can't be encoded.
#[must_use]
pub fn exposed(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)
        .expect("writing to a string does not fail");
    text
}

fn cells(line: &str) -> Vec<String> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner
        .split('|')
        .map(|cell| cell.trim().to_owned())
        .collect()
}

/// Labels stand as "`reason`: `a`, `b`; `source`: `c`".
fn documented_metrics(rows: &[Row]) -> Metrics {
    let cell = |row: &Row, column: &str| row.get(column).cloned().unwrap_or_default();
    let mut metrics = Metrics::new();
    for row in rows {
        let labels = cell(row, "labels")
            .split(';')
            .filter_map(|label| {
                let mut words = quoted(label).into_iter().map(str::to_owned);
                Some((words.next()?, words.collect()))
            })
            .collect();
        let metric = Metric {
            kind: cell(row, "type"),
            labels,
        };
        for name in quoted(&cell(row, "metric")) {
            metrics.insert(name.to_owned(), metric.clone());
        }
    }
    metrics
}

fn exposed_metrics(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or((typed, ""));
            // Counters are asked for by the name of their only sample.
            let suffix = if kind == "counter" { "_total" } else { "" };
            current = format!("{name}{suffix}");
            let metric = metrics.entry(current.clone()).or_default();
            kind.clone_into(&mut metric.kind);
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let metric = metrics.entry(current.clone()).or_default();
            let labels = labels.split('}').next().unwrap_or_default();
            for (label, value) in labels.split(',').filter_map(|pair| pair.split_once('=')) {
                if label != "le" {
                    let values = metric.labels.entry(label.to_owned()).or_default();
                    values.insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = "\
# Metrics

## other

| metric | type | labels |
|---|---|---|
| `b_total` | counter | |

## shop

Words.

| metric | type | labels | meaning |
|---|---|---|---|
| `a_total` | counter | `why`: `x`, `y`; `who`: `z` | text |
| `h_seconds` | histogram | | text |

More words.
";
    const TEXT: &str = "\
# HELP a Some {help}.
# TYPE a counter
a_total{why=\"x\",who=\"z\"} 0
a_total{why=\"y\",who=\"z\"} 1
# TYPE h_seconds histogram
h_seconds_sum 0
h_seconds_bucket{le=\"1.0\"} 0
# EOF
";

    #[test]
    fn a_table_is_read_by_section_and_column() {
        let rows = table(DOC, "shop");
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1]["metric"], "`h_seconds`");
        assert_eq!(rows[0]["meaning"], "text");
        assert!(table(DOC, "nowhere").is_empty());
    }

    #[test]
    fn a_document_that_says_what_the_text_says_has_no_differences() {
        assert_eq!(metric_differences(DOC, "shop", TEXT), [""; 0]);
    }

    #[test]
    fn names_types_and_values_differ_both_ways() {
        let difference = |doc: &str, text: &str| metric_differences(doc, "shop", text).join("\n");
        let less = TEXT.replace("a_total{why=\"y\",who=\"z\"} 1\n", "");
        assert!(difference(DOC, &less).contains("a_total is documented as"));
        let gauge = TEXT.replace("histogram", "gauge");
        assert!(difference(DOC, &gauge).contains("h_seconds is documented as"));
        let more = format!("{TEXT}# TYPE new gauge\nnew 1\n");
        assert_eq!(difference(DOC, &more), "new is exposed and not documented");
        let none = TEXT.replace("h_seconds", "h");
        assert!(difference(DOC, &none).contains("h_seconds is documented and not exposed"));
    }
}
