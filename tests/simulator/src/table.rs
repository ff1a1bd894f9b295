//! Runs as lines of a Markdown table.

use crate::{Outcome, Scenario};

/// What the page says before its table.
pub const INTRODUCTION: &str = "\
# Simulations

The autoscaler's own decisions (windows, verdict, state machine) against modelled traffic, pods and endpoints, in virtual time;
`make simulate` writes this page and its pictures, `make simulate ARGS=\"--only spike --seed 7\"` prints a run. A pod takes 0.6 to 3 s to start,
a request 0.5 s of work in the mean; callers hear of changed endpoints a second late. Settings are the defaults but for what the
traffic's column says. Cost: pod-seconds, those that start or end included. Pain: request-seconds held at the activator; nothing is
ever refused, and a test lets pulls fail and the autoscaler restart and counts lost requests (none).

";

/// Names of the columns.
pub const HEAD: &str = "\
| scenario | traffic | requests | lost | pod-seconds | most pods | /scale writes | slept | request-seconds held | longest hold, s |
|---|---|---|---|---|---|---|---|---|---|
";

/// The line of one run.
#[must_use]
pub fn row(scenario: &Scenario, outcome: &Outcome) -> String {
    let most = outcome.points.iter().map(|point| point.ready).max();
    format!(
        "| [{name}](simulations/{name}.svg) | {} | {} | {} | {:.0} | {} | {} | {} | {:.0} | {:.1} |",
        scenario.what,
        outcome.requests,
        outcome.lost,
        outcome.pod_seconds,
        most.unwrap_or(0),
        outcome.writes,
        outcome.sleeps,
        outcome.held_seconds,
        outcome.longest_hold,
        name = scenario.name,
    )
}
