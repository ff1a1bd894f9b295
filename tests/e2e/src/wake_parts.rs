//! Where the time of wakes went: what their callers saw, beside what the autoscalers logged of the
//! same wakes. Both go by one clock where the cluster is on this machine, as the built-in one is.

use std::{collections::HashMap, fmt::Write as _, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt as _;
use lull_contract::names::workload_id;
use serde_json::Value;

use crate::{Cluster, Workload, spread::Spread};

/// So many of the slowest are shown one by one.
const SLOWEST: usize = 10;
/// A patch may be answered so much after the watch has shown what it did.
const LATE_MS: f64 = 1_000.0;

/// What a wake consists of, one after the other. The last may be less than nothing: a watch may be
/// sooner than the answer.
const PARTS: [&str; 5] = [
    "first byte until autoscaler told",
    "until it asks for a turn",
    "its wait for the turn",
    "patch sent until answered",
    "until replicas seen",
];

/// A wake, or a patch alone, as whoever began it saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// As the autoscaler names the workload.
    workload: String,
    begun: Timestamp,
    /// Until replicas were seen, milliseconds.
    took_ms: f64,
}

/// What an autoscaler has logged of a wake that it wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    workload: String,
    /// When the API server had answered.
    answered: Timestamp,
    /// From when it was told of the first one held until the patch was sent, milliseconds.
    told_ms: f64,
    /// Of that the wait for a turn.
    turn_ms: f64,
    /// From then until it was answered.
    answer_ms: f64,
}

// === impl Seen ===

impl Seen {
    /// What began at `begun` and `took` so long.
    #[must_use]
    pub fn new(workload: &Workload, begun: Timestamp, took: Duration) -> Self {
        let id = workload_id(workload.kind.name(), &workload.name);
        Self {
            workload: format!("{}/{id}", workload.namespace),
            begun,
            took_ms: sample_app::ms(took),
        }
    }

    /// Whether `line` is about this wake. Of several the first one is.
    fn is_told_by(&self, line: &Line) -> bool {
        let after = ms(self.begun, line.answered);
        line.workload == self.workload && (0.0..self.took_ms + LATE_MS).contains(&after)
    }

    /// How long each of [`PARTS`] took, by `line`.
    fn parts(&self, line: &Line) -> [f64; PARTS.len()] {
        let answered = ms(self.begun, line.answered);
        let told = answered - line.answer_ms - line.told_ms;
        [
            told,
            line.told_ms - line.turn_ms,
            line.turn_ms,
            line.answer_ms,
            self.took_ms - answered,
        ]
    }
}

// === impl Line ===

impl Line {
    /// A line of an autoscaler's log, where it is one about a wake for somebody who was held.
    fn read(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let fields = &line["fields"];
        if fields["message"] != "scaled" || fields["from"] != 0 {
            return None;
        }
        Some(Self {
            workload: fields["workload"].as_str()?.to_owned(),
            answered: line["timestamp"].as_str()?.parse().ok()?,
            told_ms: fields["told_ms"].as_f64()?,
            turn_ms: fields["turn_ms"].as_f64()?,
            answer_ms: fields["answer_ms"].as_f64()?,
        })
    }
}

fn ms(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1e3
}

/// What the autoscalers have logged of wakes, as far as their logs go back: kubelet gives out the
/// newest file of each. They must log JSON, as the chart has it.
///
/// # Errors
/// Where there is no log.
pub async fn logged(cluster: &Cluster) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for pod in cluster.component_pods("autoscaler").await? {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log");
        let log = cluster.text("GET", &path, Vec::new()).await?;
        lines.extend(log.lines().filter_map(Line::read));
    }
    lines.sort_by_key(|line| line.answered);
    Ok(lines)
}

/// How many of `all` were under way at `at`, without one that began then.
fn under_way(all: &[Seen], at: Timestamp) -> usize {
    let is_under_way = |seen: &&Seen| {
        let since = ms(seen.begun, at);
        since > 0.0 && since < seen.took_ms
    };
    all.iter().filter(is_under_way).count()
}

/// Where the time of `wakes` went, by `lines`, which are in order; `patches` were under way beside
/// them.
#[must_use]
pub fn report(wakes: &[Seen], patches: &[Seen], lines: &[Line]) -> String {
    let mut by_workload: HashMap<&str, Vec<&Line>> = HashMap::new();
    for line in lines {
        by_workload.entry(&line.workload).or_default().push(line);
    }
    let parts = wakes.iter().filter_map(|wake| {
        let mut its = by_workload.get(wake.workload.as_str())?.iter();
        let line = its.find(|line| wake.is_told_by(line))?;
        Some((wake, wake.parts(line)))
    });
    let mut found: Vec<(&Seen, [f64; PARTS.len()])> = parts.collect();
    let head = format!("{} of {} wakes, ms", found.len(), wakes.len());
    let mut text = format!("\n{head:<34}{:>10}{:>10}{:>10}\n", "p50", "p99", "max");
    for (index, name) in PARTS.iter().enumerate() {
        let Spread { p50, p99, max } = Spread::of(found.iter().map(|(_, parts)| parts[index]));
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name:<34}{p50:>10.1}{p99:>10.1}{max:>10.1}");
    }
    found.sort_by(|(a, _), (b, _)| b.took_ms.total_cmp(&a.took_ms));
    text.push_str("the slowest, by the same parts");
    for (wake, parts) in found.iter().take(SLOWEST) {
        let parts = parts.map(|part| format!("{part:.1}")).join(" + ");
        // Writing to a String can't fail.
        let _ = write!(
            text,
            "\n{} {}: {:.1} = {parts}; {} wakes and {} patches were under way",
            wake.begun,
            wake.workload,
            wake.took_ms,
            under_way(wakes, wake.begun),
            under_way(patches, wake.begun),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
    }

    fn seen(workload: &str, begun: i64, took_ms: f64) -> Seen {
        Seen {
            workload: workload.to_owned(),
            begun: at(begun),
            took_ms,
        }
    }

    fn line(workload: &str, answered: i64) -> Line {
        Line {
            workload: workload.to_owned(),
            answered: at(answered),
            told_ms: 31.0,
            turn_ms: 30.0,
            answer_ms: 15.0,
        }
    }

    #[test]
    fn a_line_is_read_where_it_is_about_a_wake() {
        let fields = r#""message":"scaled","workload":"ns/a.rollout","from":0,"to":1,"#;
        let times = r#""held_ms":33.0,"told_ms":31.0,"turn_ms":30.0,"answer_ms":15.0"#;
        let text = |fields: &str| {
            let time = at(50);
            format!(r#"{{"timestamp":"{time}","level":"INFO","fields":{{{fields}}},"target":"x"}}"#)
        };
        let wake = text(&format!("{fields}{times}"));
        assert_eq!(Line::read(&wake), Some(line("ns/a.rollout", 50)));
        let others = [
            wake.replace(r#""from":0"#, r#""from":1"#),
            wake.replace("scaled", "state"),
            text(r#""message":"scaled","from":0,"to":1,"turn_ms":0.1"#),
            "scaled from=0".to_owned(),
        ];
        for other in others {
            assert_eq!(Line::read(&other), None, "{other}");
        }
    }

    #[test]
    fn the_parts_of_a_wake_are_together_what_its_caller_saw() {
        let wake = seen("ns/a", 1_000, 60.0);
        let parts = wake.parts(&line("ns/a", 1_050));
        assert_eq!(parts, [4.0, 1.0, 30.0, 15.0, 10.0]);
        assert_eq!(parts.iter().sum::<f64>(), 60.0);
    }

    #[test]
    fn a_wake_is_told_by_the_first_line_of_its_workload_after_it_began() {
        let wakes = [seen("ns/a", 100, 60.0), seen("ns/b", 110, 5.0)];
        let patches = [seen("ns/p", 90, 20.0), seen("ns/p", 10, 20.0)];
        let lines = [line("ns/a", 50), line("ns/a", 150), line("ns/a", 155)];
        let text = report(&wakes, &patches, &lines);
        assert!(text.contains("1 of 2 wakes"), "{text}");
        let slowest = "ns/a: 60.0 = 4.0 + 1.0 + 30.0 + 15.0 + 10.0; 0 wakes and 1 patches";
        assert!(text.contains(slowest), "{text}");
        assert_eq!(under_way(&wakes, at(112)), 2);
    }
}
