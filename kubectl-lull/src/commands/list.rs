//! `list`: every workload that Lull runs.

use anyhow::Context;
use jiff::Timestamp;
use lull_contract::{
    scaled_workload::ScaledWorkload,
    view::{WorkloadList, WorkloadView},
};
use serde::Serialize;

use super::Asked;
use crate::{
    cli::ListArgs,
    name::shown as shown_name,
    output::{Outcome, Output},
    pages,
    style::{Paint, Style},
    table::{Cell, Table},
    words::{ago, count, hours, since},
    workload::{NOT_INSTALLED, Scaled, unreadable},
};

/// Longest reason that is shown whole.
const MAX_REASON: usize = 72;

/// The answer.
#[derive(Debug, Serialize)]
struct Page {
    workloads: Vec<WorkloadView>,
    /// What holds for all of them.
    notices: Vec<String>,
    /// What could not be had, and what is shown in its place.
    missing: Vec<String>,
}

/// Shows the workloads.
///
/// # Errors
/// Where neither the autoscaler nor the API server tells of them.
pub(super) async fn run(asked: Asked<'_>, args: ListArgs) -> anyhow::Result<Output> {
    let cluster = asked.cluster;
    let (list, missing) = match pages::list(cluster).await {
        Ok(list) => (list, Vec::new()),
        Err(error) => {
            let instead = format!("{error}; what the ScaledWorkloads say is shown");
            let of = (!args.all_namespaces).then_some(cluster.namespace.as_str());
            let scaled = Scaled::list(cluster, of).await?.context(NOT_INSTALLED)?;
            let unread = unreadable(&scaled.unread);
            let unread = unread.map(|text| format!("{text} (kubectl lull doctor)"));
            let missing: Vec<String> = [instead].into_iter().chain(unread).collect();
            (shown_from(&scaled), missing)
        }
    };
    let notices = Vec::from_iter(silence(&list.silent_activators));
    let mut workloads = list.workloads;
    if !args.all_namespaces {
        workloads.retain(|workload| workload.namespace == cluster.namespace);
    }
    workloads.sort_by_key(WorkloadView::key);
    let page = Page {
        workloads,
        notices,
        missing,
    };
    let shown = Shown {
        has_namespaces: args.all_namespaces,
        namespace: &cluster.namespace,
        now: Timestamp::now(),
    };
    let text = text(&page, &shown, asked.style);
    Output::new(&page, text, Outcome::Done)
}

/// What is said of activators that are ready and not heard.
fn silence(activators: &[String]) -> Option<String> {
    (!activators.is_empty()).then(|| {
        format!(
            "no workload falls asleep: ready and not heard: {} (kubectl lull doctor)",
            activators.join(", ")
        )
    })
}

/// What the ScaledWorkloads say of themselves.
fn shown_from(scaled: &Scaled) -> WorkloadList {
    WorkloadList {
        workloads: scaled.read.iter().map(ScaledWorkload::view).collect(),
        ..WorkloadList::default()
    }
}

/// How a state is painted.
pub(super) fn paint_of(state: &str) -> Paint {
    match state {
        "Awake" => Paint::Good,
        "Asleep" | "Planned" => Paint::Dim,
        _ => Paint::Warn,
    }
}

/// What its text depends on.
struct Shown<'a> {
    has_namespaces: bool,
    namespace: &'a str,
    now: Timestamp,
}

fn text(page: &Page, shown: &Shown<'_>, style: Style) -> String {
    let mut text = String::new();
    if page.workloads.is_empty() {
        text.push_str("Lull runs no workload");
        if !shown.has_namespaces {
            text.push_str(&format!(" in namespace {}", shown.namespace));
        }
        text.push_str(".\n");
    } else {
        text.push_str(&table(page, shown).text(style));
        text.push_str(&format!("\n{}\n", summary(page, shown.now)));
    }
    for line in page.notices.iter().chain(&page.missing) {
        text.push_str(&style.paint(Paint::Warn, line));
        text.push('\n');
    }
    text
}

fn table(page: &Page, shown: &Shown<'_>) -> Table {
    let columns = [
        "NAMESPACE",
        "WORKLOAD",
        "STATE",
        "FOR",
        "PODS",
        "IN FLIGHT",
        "HELD",
        "SAVED",
        "REASON",
    ];
    let first = usize::from(!shown.has_namespaces);
    let mut table = Table::new(columns.into_iter().skip(first));
    for workload in &page.workloads {
        table.row(row(workload, shown.now).into_iter().skip(first));
    }
    table
}

fn row(workload: &WorkloadView, now: Timestamp) -> Vec<Cell> {
    let saved = hours(saved(workload, now));
    vec![
        workload.namespace.as_str().into(),
        shown_name(workload).into(),
        Cell::painted(paint_of(&workload.state), workload.state.as_str()),
        ago(workload.since.as_deref(), now).into(),
        format!("{}/{}", workload.ready, workload.desired).into(),
        workload.in_flight.to_string().into(),
        workload.held.to_string().into(),
        format!("{saved} pod-h").into(),
        shortened(&workload.reason).into(),
    ]
}

/// Pod-seconds that a workload has saved until `now`.
pub(super) fn saved(workload: &WorkloadView, now: Timestamp) -> u64 {
    let since = since(workload.since.as_deref(), now).unwrap_or_default();
    workload.saved_after(since.as_secs())
}

fn shortened(reason: &str) -> String {
    if reason.chars().count() <= MAX_REASON {
        return reason.to_owned();
    }
    let head: String = reason.chars().take(MAX_REASON - 3).collect();
    format!("{head}...")
}

fn summary(page: &Page, now: Timestamp) -> String {
    let workloads = &page.workloads;
    let asleep = workloads.iter().filter(|one| one.state == "Asleep").count();
    let all = count(workloads.len() as u64, "workload");
    let saved: u64 = workloads.iter().map(|one| saved(one, now)).sum();
    format!("{all}, {asleep} asleep, {} pod-hours saved", hours(saved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> WorkloadView {
        WorkloadView {
            namespace: "web".to_owned(),
            name: "shop".to_owned(),
            target_kind: "Deployment".to_owned(),
            target_name: "shop".to_owned(),
            state: "Asleep".to_owned(),
            since: Some("2026-01-01T00:00:00Z".to_owned()),
            saving_pods: 2,
            reason: "idle".to_owned(),
            ..WorkloadView::default()
        }
    }

    fn shown(has_namespaces: bool) -> Shown<'static> {
        Shown {
            has_namespaces,
            namespace: "web",
            now: "2026-01-01T01:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_row_says_what_sleeps_and_since_when() {
        let page = Page {
            workloads: vec![shop()],
            notices: Vec::new(),
            missing: Vec::new(),
        };
        let text = text(&page, &shown(true), Style::PLAIN);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("NAMESPACE   WORKLOAD"), "{text}");
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        let expected = [
            "web",
            "deployment/shop",
            "Asleep",
            "60m",
            "0/0",
            "0",
            "0",
            "2.0",
            "pod-h",
            "idle",
        ];
        assert_eq!(words, expected);
        assert_eq!(lines[3], "1 workload, 1 asleep, 2.0 pod-hours saved");
    }

    #[test]
    fn what_is_missing_without_the_autoscaler_is_said() {
        let page = Page {
            workloads: vec![shop()],
            notices: Vec::new(),
            missing: vec!["the autoscaler is not reached".to_owned()],
        };
        let text = text(&page, &shown(false), Style::PLAIN);
        assert!(text.ends_with("is not reached\n"), "{text}");
        let none = Page {
            workloads: Vec::new(),
            notices: Vec::new(),
            missing: Vec::new(),
        };
        let text = super::text(&none, &shown(false), Style::PLAIN);
        assert_eq!(text, "Lull runs no workload in namespace web.\n");
    }

    #[test]
    fn a_kind_of_somebody_else_s_is_shown_with_its_group() {
        let rollout = WorkloadView {
            target_kind: "Rollout".to_owned(),
            target_api_version: "argoproj.io/v1alpha1".to_owned(),
            ..shop()
        };
        let page = Page {
            workloads: vec![rollout],
            notices: Vec::new(),
            missing: Vec::new(),
        };
        let text = text(&page, &shown(false), Style::PLAIN);
        let name = text.lines().nth(1).and_then(|line| line.split(' ').next());
        assert_eq!(name, Some("rollout.argoproj.io/shop"), "{text}");
    }

    #[test]
    fn what_keeps_all_of_them_awake_is_said_below_the_table() {
        assert_eq!(silence(&[]), None);
        let page = Page {
            workloads: vec![shop()],
            notices: Vec::from_iter(silence(&["lull-activator-1".to_owned()])),
            missing: Vec::new(),
        };
        let text = text(&page, &shown(false), Style::PLAIN);
        let last = text.lines().last();
        let expected =
            "no workload falls asleep: ready and not heard: lull-activator-1 (kubectl lull doctor)";
        assert_eq!(last, Some(expected));
    }
}
