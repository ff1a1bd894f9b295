//! What is traced: a request with the time that it was held, and a wake with its phases below the
//! request that began it.
//!
//! ```text
//! caller's span -> request -> held
//!                       |---> wake -> created, scheduled, ... (of the first one held)
//!                       `---> the queue-proxy's request -> the app
//! ```

use std::time::{Duration, SystemTime};

use http::StatusCode;
use lull_traces::{Exporter, Span, TraceParent, Traces};

use crate::{
    config::Config,
    workload::{Phase, Wake},
};

const HELD: &str = "held";
const WAKE: &str = "wake";

/// Both ends, as `config` has it.
pub(crate) fn traces(config: &Config) -> (Traces, Option<Exporter>) {
    let endpoint = config.otlp_endpoint.as_ref().map(|it| it.as_str());
    let pod = ("k8s.pod.name", config.pod_name.clone());
    lull_traces::traces(endpoint, "lull-activator", [pod])
}

/// The request `span` for a workload has ended, after it was held for `held`; `status` = what its
/// caller got.
pub(crate) fn ended(
    traces: &Traces,
    mut span: Span,
    workload: (&str, &str),
    (status, held): (Option<StatusCode>, Duration),
) {
    if held > Duration::ZERO {
        let part = Span::below(span.context(), HELD);
        traces.end(part.between(span.start(), span.start() + held));
    }
    name(&mut span, workload);
    if let Some(status) = status {
        span.answered(status);
    }
    traces.end(span);
}

/// The wake of `workload` has ended just now: a span for the whole, and one below it from each phase
/// to the next.
pub(crate) fn woken(traces: &Traces, workload: (&str, &str), wake: &Wake) {
    if !traces.is_on() {
        return;
    }
    let phases: Vec<(Phase, Duration)> = wake.phases().collect();
    let total = phases.last().map_or(Duration::ZERO, |(_, took)| *took);
    let now = SystemTime::now();
    let begun = now.checked_sub(total).unwrap_or(now);
    let span = |parent: Option<TraceParent>, title, (from, to)| {
        let made = match parent {
            Some(parent) => Span::below(parent, title),
            None => Span::root(title),
        };
        let mut made = made.between(from, to);
        name(&mut made, workload);
        made
    };
    let whole = span(wake.caused_by, WAKE, (begun, now));
    let parent = whole.context();
    traces.end(whole);
    let mut from = begun;
    for (phase, took) in phases {
        // Seen by two watches, so a later phase may have been seen first.
        let to = (begun + took).max(from);
        traces.end(span(Some(parent), phase.name(), (from, to)));
        from = to;
    }
}

fn name(span: &mut Span, (namespace, workload): (&str, &str)) {
    span.set("k8s.namespace.name", namespace.to_owned());
    span.set("lull.workload", workload.to_owned());
}
