//! Compares documentation with what the code does. For tests only (feature `doc-tests`).
//!
//! The documents are Markdown with one `## section` for each component and one table in each
//! section. What a machine compares stands in backticks; the rest is for people.

mod queries;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::Value;

use crate::env::{EnvSource, Faults};

pub use queries::query_faults;

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
/// `type`, `labels`) and those of `exposed`, an OpenMetrics text in which every series is there. A
/// label that is documented without values has any.
#[must_use]
pub fn metric_differences(markdown: &str, section: &str, exposed: &str) -> Vec<String> {
    let documented = documented_metrics(&table(markdown, section));
    let mut exposed = exposed_metrics(exposed);
    for (name, metric) in &mut exposed {
        if let Some(documented) = documented.get(name) {
            metric.leave_out_values(documented);
        }
    }
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

/// The same for the metrics that `register` adds to a registry, each with all of its series; what it
/// returns is kept until they have been looked at.
///
/// # Panics
/// Where a metric can't be encoded.
pub fn registry_differences<T>(
    markdown: &str,
    section: &str,
    register: impl FnOnce(&mut Registry) -> T,
) -> Vec<String> {
    let mut registry = Registry::default();
    let _kept = register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .expect("writing to a string does not fail");
    metric_differences(markdown, section, &text)
}

/// Differences between the variables that `section` of `markdown` documents (columns `variable`,
/// `default`) and those that `read` asks for.
///
/// `required` is all that must be set, with values. A default stands in backticks, or is one of the
/// words `required` and `none`; any other text describes one that follows from other variables and
/// is only checked to belong to a variable. The configuration's JSON names its fields as the
/// variables without `prefix`.
///
/// # Panics
/// Where `required` is not enough for `read`, or the configuration is no JSON.
pub fn config_differences<T: Serialize>(
    markdown: &str,
    (section, prefix): (&str, &str),
    required: &BTreeMap<String, String>,
    read: impl Fn(&dyn EnvSource) -> Result<T, Faults>,
) -> Vec<String> {
    let env = Recorder {
        vars: required,
        asked: RefCell::default(),
    };
    let config = read(&env).expect("`required` is all that must be set");
    let config = serde_json::to_value(config).expect("a configuration is JSON");
    let mut undocumented = env.asked.into_inner();
    let mut differences = Vec::new();
    for row in table(markdown, section) {
        let (Some(variable), Some(default)) = (row.get("variable"), row.get("default")) else {
            return vec![format!("a table without variable or default: {row:?}")];
        };
        let variable = variable.trim_matches('`');
        if !undocumented.remove(variable) {
            differences.push(format!("{variable} is documented and never read"));
            continue;
        }
        let in_code = &config[field(variable, prefix)];
        let same = match default.as_str() {
            "required" => required.contains_key(variable),
            "none" => in_code.is_null(),
            text => default_of(text).is_none_or(|in_doc| in_doc == *in_code),
        };
        if !same {
            differences.push(format!(
                "{variable} is documented as {default}, not {in_code}"
            ));
        }
    }
    let undocumented = undocumented.iter();
    differences.extend(undocumented.map(|variable| format!("{variable} is not documented")));
    differences
}

impl Metric {
    /// Forgets the values of labels that are `documented` without any.
    fn leave_out_values(&mut self, documented: &Self) {
        for (label, values) in &mut self.labels {
            if documented.labels.get(label).is_some_and(BTreeSet::is_empty) {
                values.clear();
            }
        }
    }
}

/// An environment that notes what it is asked for.
struct Recorder<'a> {
    vars: &'a BTreeMap<String, String>,
    asked: RefCell<BTreeSet<String>>,
}

impl EnvSource for Recorder<'_> {
    fn get(&self, key: &str) -> Option<String> {
        self.asked.borrow_mut().insert(key.to_owned());
        EnvSource::get(self.vars, key)
    }
}

/// `QP_POD_IP` without `QP_` as `podIp`.
fn field(variable: &str, prefix: &str) -> String {
    let name = variable.strip_prefix(prefix).unwrap_or(variable);
    let mut words = name.split('_').map(str::to_ascii_lowercase);
    let mut field = words.next().unwrap_or_default();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        field.push_str(&first.to_ascii_uppercase());
        field.push_str(rest);
    }
    field
}

/// The value that `cell` is, where it is nothing but one in backticks: JSON, else text.
fn default_of(cell: &str) -> Option<Value> {
    let text = cell.strip_prefix('`')?.strip_suffix('`')?;
    Some(serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)))
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

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        pod_ip: String,
        depth: u32,
        limit: Option<u32>,
    }

    fn read(source: &dyn EnvSource) -> Result<Config, Faults> {
        let mut reader = crate::env::Reader::new(source);
        let config = Config {
            pod_ip: reader.require("X_POD_IP", String::new(), "must be set"),
            depth: reader.read_or("X_DEPTH", 7, "must be a number"),
            limit: reader.read_with("X_LIMIT", "must be a number", |text| text.parse().ok()),
        };
        reader.finish(config)
    }

    #[test]
    fn variables_and_defaults_differ_both_ways() {
        let required = BTreeMap::from([("X_POD_IP".to_owned(), "::1".to_owned())]);
        let differences = |rows: &str| {
            let doc = format!("## x\n| variable | default |\n|---|---|\n{rows}");
            config_differences(&doc, ("x", "X_"), &required, read).join("\n")
        };
        let rows = "| `X_POD_IP` | required |\n| `X_DEPTH` | `7` |\n| `X_LIMIT` | none |\n";
        assert_eq!(differences(rows), "");
        assert_eq!(
            differences(&rows.replace("`7`", "`8`")),
            "X_DEPTH is documented as `8`, not 7"
        );
        assert_eq!(
            differences(&rows.replace("none", "`5s`")),
            "X_LIMIT is documented as `5s`, not null"
        );
        assert_eq!(
            differences(&rows.replace("X_LIMIT", "X_LIMITS")),
            "X_LIMITS is documented and never read\nX_LIMIT is not documented"
        );
        assert!(differences(&rows.replace("`7`", "required")).contains("X_DEPTH is documented"));
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

    #[test]
    fn a_label_that_is_documented_without_values_has_any() {
        let doc = DOC.replace("`who`: `z`", "`who`");
        assert_eq!(metric_differences(&doc, "shop", TEXT), [""; 0]);
        let without = TEXT.replace(",who=\"z\"", "");
        let differences = metric_differences(&doc, "shop", &without);
        assert!(differences[0].contains("a_total is documented as"));
    }
}
