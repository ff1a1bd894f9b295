//! The chart's dashboard: what its panels ask Prometheus, and pictures of what that answers.

mod picture;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::prometheus::Prometheus;

const DASHBOARD: &str = include_str!("../../../charts/lull/dashboards/lull.json");

/// A row of panels, as the dashboard folds them.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its title.
    pub title: String,
    /// Its panels.
    pub panels: Vec<Panel>,
}

/// A panel.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Its title.
    pub title: String,
    /// `stat`, `timeseries` or `table`.
    pub kind: String,
    /// Of its numbers, such as `s`; empty where it names none.
    pub unit: String,
    /// Where it stands, in the dashboard's grid of 24 columns.
    pub place: Place,
    /// What it asks.
    pub queries: Vec<Query>,
}

/// A place in the dashboard's grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
pub struct Place {
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
    /// Width.
    pub w: u32,
    /// Height.
    pub h: u32,
}

/// A query of a panel, with nothing left for Grafana to fill in.
#[derive(Debug, Clone)]
pub struct Query {
    /// The panel's title.
    pub panel: String,
    /// What it asks Prometheus.
    pub promql: String,
    /// How a series of it is called, with labels in double braces.
    pub legend: String,
}

/// A series over a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970, and the value then, which is a number.
    pub points: Vec<(f64, f64)>,
}

/// Every row, for all workloads; rates are over `window`, such as `5m`.
///
/// # Errors
/// Where a panel has no query, or one with a variable that isn't known here.
pub fn rows(window: &str) -> anyhow::Result<Vec<Row>> {
    let dashboard: Value = serde_json::from_str(DASHBOARD)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let mut rows: Vec<Row> = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().context("a panel without a title")?;
        if panel["type"] == "row" {
            rows.push(Row {
                title: title.to_owned(),
                panels: Vec::new(),
            });
            continue;
        }
        let row = rows.last_mut().context("a panel above the first row")?;
        let read = read_panel(panel, title, window);
        row.panels.push(read.with_context(|| title.to_owned())?);
    }
    Ok(rows)
}

/// Every query, as [`rows`] has them.
///
/// # Errors
/// Those of [`rows`].
pub fn queries(window: &str) -> anyhow::Result<Vec<Query>> {
    let panels = rows(window)?.into_iter().flat_map(|row| row.panels);
    Ok(panels.flat_map(|panel| panel.queries).collect())
}

/// Draws every row of the last `span` into a file in `folder`: `dashboard-<first word of its title>.svg`.
///
/// # Errors
/// Where Prometheus doesn't understand a query, or a file can't be written.
pub async fn draw(
    prometheus: &Prometheus,
    window: &str,
    span: Duration,
    folder: &Path,
) -> anyhow::Result<()> {
    for row in rows(window)? {
        let mut answers = Vec::new();
        for panel in &row.panels {
            let mut lines = Vec::new();
            for query in &panel.queries {
                let series = prometheus.range(&query.promql, span).await?;
                lines.extend(series.into_iter().map(|one| (query.name(&one), one)));
            }
            answers.push(lines);
        }
        let word = row.title.split(' ').next().unwrap_or_default();
        let file = folder.join(format!("dashboard-{}.svg", word.to_lowercase()));
        let picture = picture::row(&row, &answers);
        fs::write(&file, picture).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

fn read_panel(panel: &Value, title: &str, window: &str) -> anyhow::Result<Panel> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let targets = panel["targets"].as_array();
    let targets = targets.map(Vec::as_slice).unwrap_or_default();
    ensure!(!targets.is_empty(), "it has no query");
    let mut queries = Vec::new();
    for target in targets {
        let expr = target["expr"].as_str().context("a query without text")?;
        queries.push(Query {
            panel: title.to_owned(),
            promql: filled_in(expr, window)?,
            legend: text(&target["legendFormat"]),
        });
    }
    Ok(Panel {
        title: title.to_owned(),
        kind: text(&panel["type"]),
        unit: text(&panel["fieldConfig"]["defaults"]["unit"]),
        place: serde_json::from_value(panel["gridPos"].clone())?,
        queries,
    })
}

fn filled_in(expr: &str, window: &str) -> anyhow::Result<String> {
    let promql = expr
        .replace("$__rate_interval", window)
        .replace("$namespace", ".*")
        .replace("$workload", ".*");
    ensure!(!promql.contains('$'), "an unknown variable in {expr}");
    Ok(promql)
}

// === impl Query ===

impl Query {
    /// How `series` is called: by the legend, or by its labels where there is none.
    fn name(&self, series: &Series) -> String {
        if self.legend.is_empty() {
            let values: Vec<&str> = series.labels.values().map(String::as_str).collect();
            return values.join(" ");
        }
        let mut name = self.legend.clone();
        for (label, value) in &series.labels {
            name = name.replace(&format!("{{{{{label}}}}}"), value);
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_panel_has_a_title_of_its_own_and_queries_that_can_be_asked() {
        let queries = queries("5m").unwrap();
        assert!(queries.iter().any(|query| query.promql.contains("[5m]")));
        let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<i64> = panels.iter().filter_map(|p| p["id"].as_i64()).collect();
        assert_eq!(ids.len(), panels.len(), "an id stands twice");
        let rows = panels.iter().filter(|panel| panel["type"] == "row").count();
        let titles: BTreeSet<&str> = queries.iter().map(|q| q.panel.as_str()).collect();
        assert_eq!(titles.len(), panels.len() - rows, "a title stands twice");
    }

    #[test]
    fn pictures_of_rows_are_told_apart_by_their_first_words() {
        let rows = rows("5m").unwrap();
        let words = rows.iter().map(|row| row.title.split(' ').next());
        assert_eq!(words.collect::<BTreeSet<_>>().len(), rows.len());
        assert!(rows.iter().all(|row| !row.panels.is_empty()));
    }

    #[test]
    fn a_variable_that_nobody_fills_in_is_refused() {
        assert_eq!(filled_in("a[$__rate_interval]", "1m").unwrap(), "a[1m]");
        assert!(filled_in("a{b=\"$c\"}", "1m").is_err());
    }

    #[test]
    fn a_series_is_called_as_the_legend_has_it() {
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let series = Series {
            labels: BTreeMap::from([label("verb", "get"), label("resource", "pods")]),
            points: Vec::new(),
        };
        let query = |legend: &str| Query {
            panel: String::new(),
            promql: String::new(),
            legend: legend.to_owned(),
        };
        let name = query("{{verb}} of {{resource}}").name(&series);
        assert_eq!(name, "get of pods");
        assert_eq!(query("").name(&series), "pods get");
    }
}
