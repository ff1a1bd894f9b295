//! Compares what queries ask for with the metrics that are documented.

use std::collections::BTreeSet;

use super::{Metric, Metrics, documented_metrics, table};

/// Sections with a table of metrics.
const COMPONENTS: [&str; 4] = ["queue-proxy", "activator", "autoscaler", "webhook"];
/// Beginning of every metric's name.
const OURS: &str = "lull_";
/// Labels that come with the scrape or with the type, whatever the metric.
const OF_EVERY_METRIC: [&str; 2] = ["instance", "le"];

/// What a query picks series by.
#[derive(Debug)]
struct Matcher<'a> {
    label: &'a str,
    is_regex: bool,
    value: &'a str,
}

/// Series that a query asks for.
#[derive(Debug)]
struct Selector<'a> {
    name: &'a str,
    matchers: Vec<Matcher<'a>>,
}

/// What the PromQL in `text` asks for and `markdown` doesn't document: metrics of ours, labels that
/// they haven't got, and values that a label never has. Other words may stand between the queries.
///
/// Of regular expressions only alternatives are understood: `a|b`.
#[must_use]
pub fn query_faults(markdown: &str, text: &str) -> Vec<String> {
    let rows = COMPONENTS.map(|component| table(markdown, component));
    let metrics = documented_metrics(&rows.concat());
    let labels: BTreeSet<&str> = metrics
        .values()
        .flat_map(|metric| metric.labels.keys().map(String::as_str))
        .chain(OF_EVERY_METRIC)
        .collect();
    let unknown = grouped(text).filter(|label| !labels.contains(label));
    selectors(text)
        .flat_map(|selector| selector.faults(&metrics))
        .chain(unknown.map(|label| format!("no metric has the label {label}")))
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn selectors(text: &str) -> impl Iterator<Item = Selector<'_>> {
    let starts = text.match_indices(OURS).map(|(start, _)| start);
    starts
        .filter(|start| !text[..*start].ends_with(is_word))
        .map(|start| Selector::read(&text[start..]))
}

/// Labels that queries group by.
fn grouped(text: &str) -> impl Iterator<Item = &str> {
    let groups = text.split(" by (").skip(1);
    groups
        .filter_map(|rest| rest.split_once(')'))
        .flat_map(|(labels, _)| labels.split(',').map(str::trim))
}

/// The metric that has the sample `name`: a histogram has none of its own name.
fn of_sample<'a>(metrics: &'a Metrics, name: &str) -> Option<&'a Metric> {
    let part = |suffix| metrics.get(name.strip_suffix(suffix)?);
    let mut parts = ["_bucket", "_sum", "_count"].into_iter().filter_map(part);
    let whole = metrics.get(name);
    parts
        .find(|metric| metric.kind == "histogram")
        .or_else(|| whole.filter(|metric| metric.kind != "histogram"))
}

// === impl Selector ===

impl<'a> Selector<'a> {
    /// What `text` begins with.
    fn read(text: &'a str) -> Self {
        let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let mut matchers = Vec::new();
        let mut next = rest.strip_prefix('{').and_then(Matcher::read);
        while let Some((matcher, rest)) = next {
            matchers.push(matcher);
            next = Matcher::read(rest.trim_start_matches([',', ' ']));
        }
        Self { name, matchers }
    }

    fn faults(&self, metrics: &Metrics) -> Vec<String> {
        let Some(metric) = of_sample(metrics, self.name) else {
            return vec![format!("no metric has samples {}", self.name)];
        };
        let faults = self.matchers.iter().filter_map(|m| m.fault(metric));
        faults
            .map(|fault| format!("{}: {fault}", self.name))
            .collect()
    }
}

// === impl Matcher ===

impl<'a> Matcher<'a> {
    /// The one that `text` begins with, and what comes behind it.
    fn read(text: &'a str) -> Option<(Self, &'a str)> {
        let end = text.find(|c: char| !is_word(c)).filter(|end| *end > 0)?;
        let (label, rest) = text.split_at(end);
        let (operator, rest) = rest.split_once('"')?;
        let (value, rest) = rest.split_once('"')?;
        let is_regex = operator.contains('~');
        let matcher = Self {
            label,
            is_regex,
            value,
        };
        Some((matcher, rest))
    }

    fn fault(&self, metric: &Metric) -> Option<String> {
        let Some(values) = metric.labels.get(self.label) else {
            let fault = format!("it has no label {}", self.label);
            return (!OF_EVERY_METRIC.contains(&self.label)).then_some(fault);
        };
        // A label that is documented without values has any.
        let is_known = |value: &str| values.is_empty() || values.contains(value);
        let unknown = if self.is_regex {
            self.value.split('|').find(|value| !is_known(value))
        } else {
            Some(self.value).filter(|value| !is_known(value))
        };
        unknown.map(|value| format!("{} is never {value}", self.label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOC: &str = "\
## activator

| metric | type | labels |
|---|---|---|
| `lull_a_total` | counter | `why`: `x`, `y`; `who` |
| `lull_h_seconds` | histogram | |
";

    fn faults(query: &str) -> String {
        query_faults(DOC, query).join(", ")
    }

    #[test]
    fn what_is_documented_has_no_faults() {
        for query in [
            "rate(lull_a_total[5m])",
            "sum by (why, instance) (rate(lull_a_total{why=~\"x|y\", who!=\"z\"}[5m]))",
            "lull_a_total{who=~\"$who\",instance=\"a\"} / other_total{job=\"b\"}",
            "histogram_quantile(0.9, sum by (le) (rate(lull_h_seconds_bucket{le=\"1\"}[1m])))",
            "lull_h_seconds_sum / lull_h_seconds_count",
        ] {
            assert_eq!(faults(query), "", "{query}");
        }
    }

    #[test]
    fn what_is_not_documented_is_named() {
        for (query, expected) in [
            ("lull_b > lull_a_total", "no metric has samples lull_b"),
            ("lull_h_seconds", "no metric has samples lull_h_seconds"),
            (
                "lull_a_total_count",
                "no metric has samples lull_a_total_count",
            ),
            (
                "lull_a_total{pod=\"a\"}",
                "lull_a_total: it has no label pod",
            ),
            ("lull_a_total{why=\"z\"}", "lull_a_total: why is never z"),
            (
                "lull_a_total{who=\"b\",why=~\"x|z\"}",
                "lull_a_total: why is never z",
            ),
            (
                "sum by (whence) (lull_a_total)",
                "no metric has the label whence",
            ),
        ] {
            assert_eq!(faults(query), expected, "{query}");
        }
    }

    #[test]
    fn alerts_dashboards_and_documents_ask_for_what_is_documented() {
        let documented = include_str!("../../../../docs/metrics.md");
        let dashboard = include_str!("../../../../charts/lull/dashboards/lull.json");
        let dashboard = dashboard.replace("\\\"", "\"");
        let alerts = include_str!("../../../../charts/lull/rules/lull.yaml");
        let runbook = include_str!("../../../../docs/runbook.md");
        for text in [dashboard.as_str(), alerts, runbook] {
            assert!(selectors(text).next().is_some());
            assert_eq!(query_faults(documented, text), [""; 0]);
        }
    }
}
