//! `history`: when the count changed and why, the newest first.

use std::cmp::Reverse;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use lull_contract::view::{WakeView, WorkloadDetail};
use serde::Serialize;

use super::{
    Asked,
    why::{self, woken_by},
};
use crate::{
    cli::Which,
    cluster::{Cluster, call},
    output::{Outcome, Output},
    style::{Paint, Style},
    table::Table,
    words::{ago, millis},
};

/// Reason of the Event that tells of a wake with its answer.
const WOKEN: &str = "Woken";
/// Reasons of the Events by which the autoscaler tells of counts.
const TOLD: [&str; 5] = ["Waking", WOKEN, "FellAsleep", "Scaled", "ScaledByOther"];

/// The answer.
#[derive(Debug, Serialize)]
struct Page {
    namespace: String,
    workload: String,
    entries: Vec<Entry>,
    missing: Vec<String>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Entry {
    /// When, RFC 3339.
    at: String,
    /// In a word or two.
    what: String,
    /// Why, or by whom.
    why: String,
}

/// Shows the history.
///
/// # Errors
/// Where Lull doesn't run the workload, or the API server can't say.
pub(super) async fn run(asked: Asked<'_>, which: &Which) -> anyhow::Result<Output> {
    let why::Page {
        detail,
        mut missing,
    } = why::page(asked, which).await?;
    let mut entries = entries(&detail);
    if detail.history.is_empty() {
        match events(asked.cluster, &detail).await {
            Ok(told) => entries.extend(without_known(told, &detail.wakes)),
            Err(error) => missing.push(format!("Events: {error:#}")),
        }
    }
    newest_first(&mut entries);
    let page = Page {
        namespace: detail.workload.namespace.clone(),
        workload: format!(
            "{} {}",
            detail.workload.target_kind, detail.workload.target_name
        ),
        entries,
        missing,
    };
    let text = text(&page, Timestamp::now(), asked.style);
    Output::new(&page, text, Outcome::Done)
}

/// Changes of the count, and the wakes that have answered.
fn entries(detail: &WorkloadDetail) -> Vec<Entry> {
    let changes = detail.history.iter().map(|change| Entry {
        at: change.at.clone(),
        what: format!("{} -> {}", change.from, change.to),
        why: change.reason.clone(),
    });
    let wakes = detail.wakes.iter().map(|wake| Entry {
        at: wake.at.clone(),
        what: "woken".to_owned(),
        why: match wake.total_ms {
            Some(ms) => format!("by {}, answered after {}", woken_by(wake), millis(ms)),
            None => format!("by {}", woken_by(wake)),
        },
    });
    changes.chain(wakes).collect()
}

/// The Events `told` but for those of `wakes`, which are in the status, too: each would be there twice.
fn without_known(mut told: Vec<Entry>, wakes: &[WakeView]) -> Vec<Entry> {
    let begun = wakes.iter().filter_map(|wake| time(&wake.at));
    if let Some(oldest) = begun.min() {
        told.retain(|entry| entry.what != WOKEN || time(&entry.at).is_some_and(|at| at < oldest));
    }
    told
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Times are compared as such: as texts, `:00Z` would come after `:00.5Z`.
fn newest_first(entries: &mut [Entry]) {
    entries.sort_by_key(|entry| Reverse(time(&entry.at)));
}

/// What the API server keeps of Lull's Events about the workload, an hour as a rule.
async fn events(cluster: &Cluster, detail: &WorkloadDetail) -> anyhow::Result<Vec<Entry>> {
    let workload = &detail.workload;
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), &workload.namespace);
    let events = call("list Events", api.list(&ListParams::default())).await?;
    let about = |event: &Event| {
        let regarding = event.regarding.as_ref();
        regarding.is_some_and(|object| {
            object.kind.as_ref() == Some(&workload.target_kind)
                && object.name.as_ref() == Some(&workload.target_name)
        })
    };
    let items = events.items.iter().filter(|event| about(event));
    Ok(items.filter_map(entry_of).collect())
}

fn entry_of(event: &Event) -> Option<Entry> {
    let reason = event.reason.as_deref()?;
    TOLD.contains(&reason).then_some(())?;
    let last = event
        .series
        .as_ref()
        .map(|series| &series.last_observed_time);
    let at = last.or(event.event_time.as_ref())?;
    Some(Entry {
        at: at.0.to_string(),
        what: reason.to_owned(),
        why: event.note.clone().unwrap_or_default(),
    })
}

fn text(page: &Page, now: Timestamp, style: Style) -> String {
    let mut text = String::new();
    if page.entries.is_empty() {
        text.push_str("Nothing is known of its past.\n");
    } else {
        let mut table = Table::new(["AGO", "WHAT", "WHY"]);
        for Entry { at, what, why } in &page.entries {
            table.row([
                ago(Some(at), now).into(),
                what.as_str().into(),
                why.as_str().into(),
            ]);
        }
        text.push_str(&table.text(style));
    }
    for missing in &page.missing {
        text.push_str(&format!("\n{}\n", style.paint(Paint::Warn, missing)));
    }
    text
}

#[cfg(test)]
mod tests {
    use lull_contract::view::CountChange;
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_and_wakes_are_one_history() {
        let detail = WorkloadDetail {
            history: vec![CountChange {
                at: "2026-01-01T00:10:00Z".to_owned(),
                from: 1,
                to: 0,
                reason: "idle".to_owned(),
            }],
            wakes: vec![WakeView {
                at: "2026-01-01T00:00:00Z".to_owned(),
                total_ms: Some(612),
                ..WakeView::default()
            }],
            ..WorkloadDetail::default()
        };
        let page = Page {
            namespace: "web".to_owned(),
            workload: "Deployment shop".to_owned(),
            entries: entries(&detail),
            missing: Vec::new(),
        };
        let now = "2026-01-01T00:11:00Z".parse().unwrap();
        let text = text(&page, now, Style::PLAIN);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "60s   1 -> 0   idle");
        assert_eq!(lines[2], "11m   woken    by -, answered after 612 ms");
    }

    #[test]
    fn the_newest_is_first_to_the_part_of_a_second() {
        let at = |at: &str| Entry {
            at: at.to_owned(),
            what: String::new(),
            why: String::new(),
        };
        let newest = [
            "2026-01-01T00:00:01Z",
            "2026-01-01T00:00:00.5Z",
            "2026-01-01T00:00:00Z",
            "no time",
        ];
        let mut entries = [3, 2, 0, 1].map(|index: usize| at(newest[index]));
        newest_first(&mut entries);
        assert_eq!(entries, newest.map(at));
    }

    #[test]
    fn events_stand_in_where_the_autoscaler_is_silent() {
        let event = |reason: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": { "name": "e" }, "eventTime": "2026-01-01T00:00:00.000000Z",
                "reason": reason, "note": "No traffic",
            }))
            .unwrap()
        };
        let entry = entry_of(&event("FellAsleep")).unwrap();
        assert_eq!(
            (entry.what.as_str(), entry.why.as_str()),
            ("FellAsleep", "No traffic")
        );
        assert_eq!(entry.at, "2026-01-01T00:00:00Z");
        assert_eq!(entry_of(&event("Headless")), None);
    }
    #[test]
    fn a_wake_that_the_status_has_is_not_told_by_its_event_again() {
        let entry = |at: &str, what: &str| Entry {
            at: at.to_owned(),
            what: what.to_owned(),
            why: String::new(),
        };
        let told = vec![
            entry("2026-01-01T00:00:01Z", WOKEN),
            entry("2026-01-01T00:05:00Z", "FellAsleep"),
            entry("2026-01-01T00:10:01Z", WOKEN),
        ];
        let wakes = [WakeView {
            at: "2026-01-01T00:10:00.250Z".to_owned(),
            ..WakeView::default()
        }];
        assert_eq!(without_known(told.clone(), &wakes), told[..2]);
        assert_eq!(without_known(told.clone(), &[]), told);
    }
}
