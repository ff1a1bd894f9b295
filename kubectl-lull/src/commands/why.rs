//! `why`: awake or asleep since when, what keeps it so, and who woke it.

use jiff::Timestamp;
use lull_contract::{
    report::Ways,
    scaled_workload::ScaledWorkload,
    view::{CallerShare, KeptAwake, PodShare, WakeView, WorkloadDetail, WorkloadView},
};
use serde::Serialize;

use super::{
    Asked,
    list::{paint_of, saved},
};
use crate::{
    cli::Which,
    output::{Outcome, Output},
    pages,
    style::{Paint, Style},
    table::{Cell, Table},
    words::{UNKNOWN, ago, count, hours, millis},
    workload::Workload,
};

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    /// As the autoscaler has it, or as much of that as the status says.
    #[serde(flatten)]
    pub(super) detail: WorkloadDetail,
    /// What could not be had.
    pub(super) missing: Vec<String>,
}

/// Says why.
///
/// # Errors
/// Where Lull doesn't run the workload, or the API server can't say.
pub(super) async fn run(asked: Asked<'_>, which: &Which) -> anyhow::Result<Output> {
    let page = page(asked, which).await?;
    let text = text(&page, Timestamp::now(), asked.style);
    Output::new(&page, text, Outcome::Done)
}

/// What the autoscaler has of the workload; else what its status says, with what is missing named.
///
/// # Errors
/// Where Lull doesn't run the workload, or the API server can't say.
pub(super) async fn page(asked: Asked<'_>, which: &Which) -> anyhow::Result<Page> {
    let cluster = asked.cluster;
    let workload = Workload::find(cluster, &which.workload).await?;
    let scaled = workload.run_by_lull(cluster).await?;
    let target = &workload.target;
    let (detail, missing) = match pages::detail(cluster, &target.namespace, &target.id()).await {
        Ok(Some(detail)) if detail.workload.is_live => (detail, None),
        Ok(Some(detail)) => {
            let missing =
                "the replica that leads it did not answer: numbers are those of its status";
            (detail, Some(missing.to_owned()))
        }
        Ok(None) => {
            let missing = "no autoscaler knows it yet: only its status is shown";
            (detail_of(&scaled), Some(missing.to_owned()))
        }
        Err(error) => {
            let missing = format!("{error}: only its status is shown, without callers and history");
            (detail_of(&scaled), Some(missing))
        }
    };
    Ok(Page {
        detail,
        missing: Vec::from_iter(missing),
    })
}

/// What its status says, with the last wakes and who has kept it awake; who was held, pods and history
/// only the autoscaler knows.
fn detail_of(scaled: &ScaledWorkload) -> WorkloadDetail {
    let status = scaled.status.as_ref();
    WorkloadDetail {
        workload: scaled.view(),
        wakes: status.map_or_else(Vec::new, |status| status.wakes.clone()),
        kept_awake: status.map_or_else(KeptAwake::default, |status| status.kept_awake.clone()),
        ..WorkloadDetail::default()
    }
}

fn text(page: &Page, now: Timestamp, style: Style) -> String {
    let detail = &page.detail;
    let mut text = head(&detail.workload, now, style);
    text.push_str(&kept_awake(&detail.workload, &detail.kept_awake, now));
    text.extend(came(detail.ways));
    for condition in &detail.workload.conditions {
        let reason = style.paint(Paint::Warn, &condition.reason);
        text.push_str(&format!("  {reason}: {}\n", condition.message));
    }
    let title = |title: &str| format!("\n{}\n", style.paint(Paint::Strong, title));
    if !detail.pods.is_empty() {
        text.push_str(&title("Pods"));
        text.push_str(&pods(&detail.pods).text(style));
    }
    if !detail.callers.is_empty() {
        text.push_str(&title("Callers that activators have held for"));
        text.push_str(&callers(&detail.callers).text(style));
    }
    if !detail.wakes.is_empty() {
        text.push_str(&title("Last wakes"));
        text.push_str(&wakes(&detail.wakes, now).text(style));
    }
    for missing in &page.missing {
        text.push_str(&format!("\n{}\n", style.paint(Paint::Warn, missing)));
    }
    text
}

/// What it is, since when, and why.
fn head(workload: &WorkloadView, now: Timestamp, style: Style) -> String {
    let state = style.paint(paint_of(&workload.state), &workload.state);
    let (kind, name) = (&workload.target_kind, &workload.target_name);
    let mut text = format!(
        "{kind} {name} in namespace {}: {state} for {}\n",
        workload.namespace,
        ago(workload.since.as_deref(), now)
    );
    let reason = if workload.reason.is_empty() {
        UNKNOWN
    } else {
        &workload.reason
    };
    text.push_str(&format!("  why: {reason}\n"));
    text.push_str(&format!(
        "  pods: {} ready, {} wanted; in flight: {}, of which held {}\n",
        workload.ready, workload.desired, workload.in_flight, workload.held
    ));
    match saved(workload, now) {
        0 => {}
        saved => text.push_str(&format!("  saved: {} pod-hours\n", hours(saved))),
    }
    text
}

/// Whose requests its pods have had, and when that was where it is not now.
fn kept_awake(workload: &WorkloadView, kept: &KeptAwake, now: Timestamp) -> String {
    if kept.is_empty() {
        return String::new();
    }
    let ago = ago(Some(&kept.at), now);
    let verb = if workload.state == "Asleep" {
        "was kept"
    } else {
        "kept"
    };
    format!("  {verb} awake by: {kept}; last called {ago} ago\n")
}

/// How callers have come to the activators; none where nobody has.
fn came(ways: Ways) -> Option<String> {
    let ways = [
        (ways.http1, "of HTTP/1 (held by request)"),
        (ways.h2c, "of h2c (by request)"),
        (ways.tls, "of TLS (by connection)"),
        (ways.tcp, "of TCP (by connection)"),
    ];
    let came = ways.into_iter().filter(|(count, _)| *count > 0);
    let came: Vec<String> = came
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    (!came.is_empty()).then(|| format!("  connections at activators: {}\n", came.join(", ")))
}

fn pods(pods: &[PodShare]) -> Table {
    let mut table = Table::new(["POD", "IN FLIGHT", "REQUESTS"]);
    for pod in pods {
        table.row([
            pod.pod.as_str().into(),
            pod.in_flight.to_string().into(),
            pod.requests.to_string().into(),
        ]);
    }
    table
}

fn callers(callers: &[CallerShare]) -> Table {
    let mut table = Table::new(["SHARE", "HOLDS", "CALLER"]);
    for share in callers {
        table.row([
            format!("{} %", share.percent).into(),
            share.holds.to_string().into(),
            share.caller.text().into(),
        ]);
    }
    table
}

fn wakes(wakes: &[WakeView], now: Timestamp) -> Table {
    let mut table = Table::new(["AGO", "PODS", "ANSWERED AFTER", "PHASES", "BY"]);
    for wake in wakes {
        table.row([
            ago(Some(&wake.at), now).into(),
            wake.scaled_to.to_string().into(),
            wake.total_ms
                .map_or_else(|| UNKNOWN.to_owned(), millis)
                .into(),
            phases(wake),
            woken_by(wake).into(),
        ]);
    }
    table
}

/// Each phase with the time at which it ended.
fn phases(wake: &WakeView) -> Cell {
    let phases = wake.phases.iter();
    let phases: Vec<String> = phases
        .map(|phase| format!("{} {}", phase.name, millis(phase.ms)))
        .collect();
    if phases.is_empty() {
        return UNKNOWN.into();
    }
    Cell::from(phases.join(", "))
}

/// The first one who called, and how many others.
pub(super) fn woken_by(wake: &WakeView) -> String {
    match wake.by.as_slice() {
        [] => UNKNOWN.to_owned(),
        [one] => one.text(),
        [first, others @ ..] => {
            let others = count(others.len() as u64, "other");
            format!("{} and {others}", first.text())
        }
    }
}

#[cfg(test)]
mod tests {
    use lull_contract::view::{AwakeShare, Caller, PhaseView};

    use super::*;

    fn page(missing: &[&str]) -> Page {
        let caller = |address: &str| Caller {
            address: address.to_owned(),
            asked: "GET shop/cart".to_owned(),
            ..Caller::default()
        };
        let phase = PhaseView {
            name: "running".to_owned(),
            ms: 596,
        };
        let wake = WakeView {
            at: "2026-01-01T00:00:00Z".to_owned(),
            by: vec![caller("10.0.0.7"), caller("10.0.0.8")],
            scaled_to: 1,
            total_ms: Some(612),
            waited_ms: Some(612),
            phases: vec![phase],
        };
        Page {
            detail: WorkloadDetail {
                workload: WorkloadView {
                    namespace: "web".to_owned(),
                    target_kind: "Deployment".to_owned(),
                    target_name: "shop".to_owned(),
                    state: "Awake".to_owned(),
                    since: Some("2026-01-01T00:00:01Z".to_owned()),
                    reason: "2 in flight".to_owned(),
                    ready: 1,
                    desired: 1,
                    ..WorkloadView::default()
                },
                wakes: vec![wake],
                ways: Ways {
                    http1: 12,
                    tls: 3,
                    ..Ways::default()
                },
                callers: vec![CallerShare {
                    caller: caller("10.0.0.7"),
                    holds: 3,
                    percent: 75,
                }],
                kept_awake: KeptAwake {
                    at: "2026-01-01T00:04:59Z".to_owned(),
                    by: vec![AwakeShare {
                        caller: Caller {
                            workload: Some("prod/checkout".to_owned()),
                            asked: "GET /api/*".to_owned(),
                            ..caller("10.0.0.7")
                        },
                        percent: 82,
                    }],
                    others_percent: 18,
                },
                ..WorkloadDetail::default()
            },
            missing: missing.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn what_keeps_it_awake_and_who_woke_it_is_told() {
        let now = "2026-01-01T00:05:01Z".parse().unwrap();
        let text = text(&page(&[]), now, Style::PLAIN);
        for part in [
            "Deployment shop in namespace web: Awake for 5m\n  why: 2 in flight\n",
            "  kept awake by: prod/checkout 82 % (GET /api/*), others 18 %; last called 2s ago\n",
            "  connections at activators: 12 of HTTP/1 (held by request), 3 of TLS (by connection)\n",
            "75 %    3       10.0.0.7: GET shop/cart",
            "612 ms           running 596 ms   10.0.0.7: GET shop/cart and 1 other",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains("saved"), "{text}");
    }

    #[test]
    fn of_a_sleeper_it_is_told_who_kept_it_awake_before() {
        let now = "2026-01-01T03:05:01Z".parse().unwrap();
        let mut page = page(&[]);
        page.detail.workload.state = "Asleep".to_owned();
        let asleep = text(&page, now, Style::PLAIN);
        let who = "  was kept awake by: prod/checkout 82 % (GET /api/*), others 18 %; last called 3h ago\n";
        assert!(asleep.contains(who), "{asleep}");
        page.detail.kept_awake = KeptAwake::default();
        let unknown = text(&page, now, Style::PLAIN);
        assert!(!unknown.contains("awake by"), "{unknown}");
    }

    #[test]
    fn what_is_missing_is_said_last() {
        let now = "2026-01-01T00:05:01Z".parse().unwrap();
        let text = text(&page(&["the autoscaler is not reached"]), now, Style::PLAIN);
        assert!(
            text.ends_with("\n\nthe autoscaler is not reached\n"),
            "{text}"
        );
    }

    #[test]
    fn the_json_is_the_autoscaler_s_with_what_is_missing() {
        let json = serde_json::to_value(page(&["x"])).unwrap();
        assert_eq!(json["workload"]["state"], "Awake");
        assert_eq!(json["wakes"][0]["totalMs"], 612);
        assert_eq!(json["keptAwake"]["by"][0]["percent"], 82);
        assert_eq!(json["missing"][0], "x");
    }
}
