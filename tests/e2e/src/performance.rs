//! The page on performance: what `make mesh-load` writes between two marks of it. Pure.

use std::{fmt::Write as _, time::Duration};

use anyhow::Context as _;
use lull_contract::view::WakeView;

use crate::{
    course::{self, Moment, Span},
    hey::{self, Summary},
};

/// The page, below the book's folder.
pub const PAGE: &str = "performance.md";
/// Line before what is written.
const BEGIN: &str = "<!-- mesh-load -->\n";
/// Line after it.
const END: &str = "<!-- /mesh-load -->\n";
/// Most lines of the table of pods over time.
const MAX_CHANGES: usize = 30;

/// A load through the gateway to a workload that slept, and what came of it.
#[derive(Debug, Clone)]
pub struct LoadRun {
    /// The day, as `2026-11-26`.
    pub day: String,
    /// The machine's cores.
    pub cores: usize,
    /// What hey was called with, without the address.
    pub command: String,
    /// Requests that it was to send.
    pub requests: u64,
    /// Over so many connections.
    pub connections: u64,
    /// Annotations of the workload.
    pub annotations: Vec<(String, String)>,
    /// What hey said.
    pub summary: Summary,
    /// From its start to its end.
    pub load: Span,
    /// The workload, from before the load until activators were out of the path again.
    pub moments: Vec<Moment>,
    /// End of the last of them, microseconds since 1970.
    pub until_us: u64,
    /// The wake, as Lull has written it down.
    pub wake: Option<WakeView>,
}

/// `page` with `section` between its marks, in the place of what was there.
///
/// # Errors
/// Where it has no marks.
pub fn with_section(page: &str, section: &str) -> anyhow::Result<String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) =
        parts.with_context(|| format!("the page has no lines {BEGIN:?} and {END:?}"))?;
    Ok(format!("{before}{BEGIN}{section}{END}{after}"))
}

// === impl LoadRun ===

impl LoadRun {
    /// Requests that hey sends by what it was called with.
    #[must_use]
    pub fn sent(&self) -> u64 {
        hey::sent(self.requests, self.connections)
    }

    /// Whether every request was answered with 200.
    #[must_use]
    pub fn all_ok(&self) -> bool {
        self.summary.ok() == self.sent() && self.summary.failures().is_empty()
    }

    /// What the page says of it.
    #[must_use]
    pub fn section(&self) -> String {
        let annotations: Vec<String> = self
            .annotations
            .iter()
            .map(|(key, value)| format!("`{key}: \"{value}\"`"))
            .collect();
        format!(
            "Run on {}, on one machine with {} cores that had all of it: hey, the gateway, the pods, Kubernetes, Istio \
             and Lull.\nCalled with `{}`. Annotations: {}; all else by default.\n\n{}\n{}\n{}",
            self.day,
            self.cores,
            self.command,
            annotations.join(", "),
            self.figures(),
            latencies(&self.summary),
            self.pods()
        )
    }

    fn figures(&self) -> String {
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let whole = Span {
            until_us: self.until_us,
            ..self.load
        };
        let load = Duration::from_micros(self.load.until_us.saturating_sub(self.load.from_us));
        let served = course::served_after(&self.moments, self.load.from_us);
        let (ok, sent) = (self.summary.ok(), self.sent());
        let rows = [
            (
                "requests, the same number for each connection",
                grouped(sent),
            ),
            ("answered 200", grouped(ok)),
            ("anything else", self.failures()),
            ("time", seconds(load)),
            ("requests a second", format!("{:.0}", self.summary.rate)),
            (
                "first answer after the first request was held",
                self.first_answer(),
            ),
            (
                "pods alone behind the Service, from the start on",
                served.map_or_else(|| "not seen".to_owned(), seconds),
            ),
            (
                "activators in the path, all times together",
                seconds(course::in_path(&self.moments, whole)),
            ),
            ("pods, at most", self.most_pods().to_string()),
        ];
        let mut text = "| what | figure |\n|---|---|\n".to_owned();
        for (what, figure) in rows {
            // Writing to a String can't fail.
            let _ = writeln!(text, "| {what} | {figure} |");
        }
        text
    }

    fn failures(&self) -> String {
        let failures = self.summary.failures();
        let mut told: Vec<String> = failures
            .iter()
            // A bar would end the cell.
            .map(|(what, count)| format!("{}: {}", what.replace('|', "/"), grouped(*count)))
            .collect();
        let counted = self.summary.ok() + failures.values().sum::<u64>();
        let missing = self.sent().saturating_sub(counted);
        if missing > 0 {
            told.push(format!("not sent in time: {}", grouped(missing)));
        }
        if told.is_empty() {
            return "none".to_owned();
        }
        told.join("; ")
    }

    fn first_answer(&self) -> String {
        let wake = self.wake.as_ref();
        let Some((wake, total)) = wake.and_then(|wake| Some((wake, wake.total_ms?))) else {
            return "not told".to_owned();
        };
        let phases = wake.phases.iter();
        let phases: Vec<String> = phases
            .map(|phase| format!("{} {}", phase.name, grouped(phase.ms)))
            .collect();
        format!("{} ms ({})", grouped(total), phases.join(", "))
    }

    fn most_pods(&self) -> u32 {
        let ready = self.moments.iter().map(|moment| moment.ready);
        ready.max().unwrap_or_default()
    }

    /// Pods over time.
    fn pods(&self) -> String {
        let whole = Span {
            until_us: self.until_us,
            ..self.load
        };
        let changes = course::changes(&self.moments, whole);
        let mut text =
            "Pods over time:\n\n| s | state | ready | wanted | in flight | of those held |\n\
                        |---|---|---|---|---|---|\n"
                .to_owned();
        for (after, moment) in changes.iter().take(MAX_CHANGES) {
            let _ = writeln!(
                text,
                "| {:.1} | {} | {} | {} | {} | {} |",
                after.as_secs_f64(),
                moment.state,
                moment.ready,
                moment.desired,
                moment.in_flight,
                moment.held
            );
        }
        if let Some(left @ 1..) = changes.len().checked_sub(MAX_CHANGES) {
            let _ = writeln!(text, "\nAnd {left} more changes.");
        }
        text
    }
}

fn latencies(summary: &Summary) -> String {
    let ms = |seconds: f64| format!("{:.1}", seconds * 1_000.0);
    let percentiles = summary.percentiles.iter();
    let mut cells: Vec<(String, String)> = percentiles
        .map(|(percent, seconds)| (format!("{percent} %"), ms(*seconds)))
        .collect();
    cells.insert(0, ("mean".to_owned(), ms(summary.average)));
    cells.push(("slowest".to_owned(), ms(summary.slowest)));
    let (heads, values): (Vec<String>, Vec<String>) = cells.into_iter().unzip();
    format!(
        "Latency, ms, that so many of the answers did not exceed:\n\n| {} |\n|{}\n| {} |\n",
        heads.join(" | "),
        "---|".repeat(heads.len()),
        values.join(" | ")
    )
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lull_contract::{scaled_workload::State, view::PhaseView};

    use super::*;
    use crate::book;

    fn moment(seconds: u64, state: State, ready: u32) -> Moment {
        Moment {
            at_us: seconds * 1_000_000,
            state,
            mode: state.mode(),
            ready,
            desired: 5,
            in_flight: 300,
            held: 0,
        }
    }

    fn run() -> LoadRun {
        LoadRun {
            day: "2026-11-26".to_owned(),
            cores: 2,
            command: "hey -n 1000000 -c 300".to_owned(),
            requests: 1_000_000,
            connections: 300,
            annotations: vec![("lull.dev/max-scale".to_owned(), "5".to_owned())],
            summary: Summary {
                total: 500.0,
                slowest: 3.9,
                average: 0.15,
                rate: 1_999.8,
                percentiles: vec![(50, 0.1442), (99, 0.3527)],
                statuses: BTreeMap::from([(200, 999_900)]),
                errors: BTreeMap::new(),
            },
            load: Span {
                from_us: 10_000_000,
                until_us: 510_000_000,
            },
            moments: vec![
                moment(1, State::Asleep, 0),
                moment(14, State::Settling, 1),
                moment(16, State::Awake, 5),
            ],
            until_us: 511_000_000,
            wake: Some(WakeView {
                total_ms: Some(3_210),
                phases: vec![PhaseView {
                    name: "answering".to_owned(),
                    ms: 3_190,
                }],
                ..WakeView::default()
            }),
        }
    }

    #[test]
    fn a_run_is_told_by_its_figures() {
        let run = run();
        assert!(run.all_ok());
        let section = run.section();
        for line in [
            "| answered 200 | 999,900 |",
            "| anything else | none |",
            "| time | 500.0 s |",
            "| requests a second | 2000 |",
            "| first answer after the first request was held | 3,210 ms (answering 3,190) |",
            "| pods alone behind the Service, from the start on | 6.0 s |",
            "| activators in the path, all times together | 6.0 s |",
            "| pods, at most | 5 |",
            "| mean | 50 % | 99 % | slowest |",
            "| 150.0 | 144.2 | 352.7 | 3900.0 |",
            "| 0.0 | Asleep | 0 | 5 | 300 | 0 |",
            "| 6.0 | Awake | 5 | 5 | 300 | 0 |",
        ] {
            assert!(
                section.lines().any(|other| other == line),
                "no {line:?} in {section}"
            );
        }
    }

    #[test]
    fn what_failed_and_what_was_never_sent_is_told() {
        let mut run = run();
        run.summary.statuses = BTreeMap::from([(200, 900_000), (503, 12)]);
        run.summary.errors = BTreeMap::from([("broken | pipe".to_owned(), 88)]);
        run.wake = None;
        run.moments.truncate(1);
        assert!(!run.all_ok());
        let section = run.section();
        for line in [
            "| anything else | 503: 12; broken / pipe: 88; not sent in time: 99,800 |",
            "| first answer after the first request was held | not told |",
            "| pods alone behind the Service, from the start on | not seen |",
        ] {
            assert!(
                section.lines().any(|other| other == line),
                "no {line:?} in {section}"
            );
        }
    }

    #[test]
    fn the_page_takes_a_run_in_the_place_of_the_last_one() {
        let page = std::fs::read_to_string(book::folder().join(PAGE)).unwrap();
        let once = with_section(&page, "figures of one run\n").unwrap();
        let twice = with_section(&once, "figures of another\n").unwrap();
        assert!(twice.contains("figures of another\n") && !twice.contains("figures of one run\n"));
        let back = with_section(&twice, "figures of one run\n").unwrap();
        assert_eq!(back, once);
        assert!(with_section("no marks", "text").is_err());
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        let rows = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, text) in rows {
            assert_eq!(grouped(number), text);
        }
    }
}
