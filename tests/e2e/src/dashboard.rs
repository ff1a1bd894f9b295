//! The chart's dashboard, as far as its queries go.

use anyhow::{Context as _, ensure};
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../../charts/lull/dashboards/lull.json");

/// A query of a panel, with nothing left for Grafana to fill in.
#[derive(Debug, Clone)]
pub struct Query {
    /// The panel's title.
    pub panel: String,
    /// What it asks Prometheus.
    pub promql: String,
}

/// Every query, for all workloads; rates are over `window`, such as `5m`.
///
/// # Errors
/// Where a panel has none, or one with a variable that isn't known here.
pub fn queries(window: &str) -> anyhow::Result<Vec<Query>> {
    let dashboard: Value = serde_json::from_str(DASHBOARD)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let drawn = panels.iter().filter(|panel| panel["type"] != "row");
    let mut queries = Vec::new();
    for panel in drawn {
        let title = panel["title"].as_str().context("a panel without a title")?;
        let targets = panel["targets"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        ensure!(!targets.is_empty(), "{title} has no query");
        for target in targets {
            let expr = target["expr"].as_str().context("a query without text")?;
            queries.push(Query {
                panel: title.to_owned(),
                promql: filled_in(expr, window)?,
            });
        }
    }
    Ok(queries)
}

fn filled_in(expr: &str, window: &str) -> anyhow::Result<String> {
    let promql = expr
        .replace("$__rate_interval", window)
        .replace("$namespace", ".*")
        .replace("$workload", ".*");
    ensure!(!promql.contains('$'), "an unknown variable in {expr}");
    Ok(promql)
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
    fn a_variable_that_nobody_fills_in_is_refused() {
        assert_eq!(filled_in("a[$__rate_interval]", "1m").unwrap(), "a[1m]");
        assert!(filled_in("a{b=\"$c\"}", "1m").is_err());
    }
}
