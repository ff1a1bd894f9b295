//! What has come of a run, counted.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use http::StatusCode;
use lull_contract::headers::REASON_HEADER;

use super::client::{Answered, Effort};
use crate::{
    ms,
    wire::{ACTIVATOR_HEADER, ACTIVATOR_MARK, Failure, Latency, POD_HEADER, RunResult},
};

/// Different failures that are told apart.
const MAX_ERRORS: usize = 32;
/// Pods that are told apart.
const MAX_PODS: usize = 1000;
/// Seconds of failures that are told apart.
const MAX_SECONDS: usize = 1000;
/// Longest text of a failure, characters.
const MAX_ERROR_TEXT: usize = 200;

/// Counters of one run.
#[derive(Debug)]
pub(super) struct Totals {
    result: RunResult,
    /// Microseconds; grows by itself. None if it could not be made.
    latency: Option<Histogram<u64>>,
}

// === impl Totals ===

impl Totals {
    pub(super) fn new(started_at_unix_ms: u64) -> Self {
        // Three digits are a valid precision, so there always is one.
        let latency = Histogram::new(3).ok();
        Self {
            result: RunResult {
                started_at_unix_ms,
                ..RunResult::default()
            },
            latency,
        }
    }

    pub(super) fn begun(&mut self) {
        self.result.sent += 1;
    }

    /// Counts a connection that no single request has opened.
    pub(super) fn opened(&mut self) {
        self.result.connections_opened += 1;
    }

    /// Counts the outcome of one request that ended `at` after the run's start and took `took`.
    pub(super) fn ended(
        &mut self,
        outcome: &Result<Answered, String>,
        effort: &Effort,
        at: Duration,
        took: Duration,
    ) {
        self.result.connections_opened += effort.opened;
        self.result.reused_connection_retries += effort.reused_retries;
        let answered = match outcome {
            Ok(answered) => answered,
            Err(text) => return self.failed(effort.failure(), text, at),
        };
        *self
            .result
            .by_status
            .entry(answered.head.status.as_u16())
            .or_default() += 1;
        if let Some(pod) = answered.header(POD_HEADER) {
            add(&mut self.result.by_pod, pod, MAX_PODS);
        }
        let mut timings = answered.head.headers.get_all(ACTIVATOR_HEADER).iter();
        if timings.any(|v| v.to_str().is_ok_and(|v| v.contains(ACTIVATOR_MARK))) {
            self.result.via_activator += 1;
            self.result.last_via_activator_ms = Some(ms(at));
        }
        if !answered.is_ok() {
            let reason = answered.header(REASON_HEADER).unwrap_or("no reason given");
            let text = answered
                .grpc_failure()
                .unwrap_or_else(|| format!("status {}: {reason}", answered.head.status));
            let failure = match answered.head.status {
                StatusCode::BAD_GATEWAY => Failure::BadGateway,
                _ => Failure::Answered,
            };
            return self.failed(failure, &text, at);
        }
        self.result.ok += 1;
        self.result.first_ok_ms.get_or_insert_with(|| ms(at));
        if let Some(latency) = &mut self.latency {
            // Fails only without memory to grow.
            let _ = latency.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
    }

    fn failed(&mut self, failure: Failure, text: &str, at: Duration) {
        self.result.failed += 1;
        self.result.first_failed_ms.get_or_insert_with(|| ms(at));
        self.result.last_failed_ms = Some(ms(at));
        self.failed_in(crate::unix_us() / 1_000_000, failure);
        let text: String = text.chars().take(MAX_ERROR_TEXT).collect();
        add(&mut self.result.errors, &text, MAX_ERRORS);
    }

    fn failed_in(&mut self, second: u64, failure: Failure) {
        let seconds = &mut self.result.failed_by_second;
        let is_full = seconds.len() >= MAX_SECONDS && !seconds.contains_key(&second);
        let failures = seconds.entry(if is_full { 0 } else { second }).or_default();
        *failures.entry(failure).or_default() += 1;
    }

    /// The counts as they are `elapsed` after the run's start.
    pub(super) fn result(&self, done: bool, elapsed: Duration) -> RunResult {
        let latency = self
            .latency
            .as_ref()
            .map_or_else(Latency::default, |latency| {
                let at = |quantile| micros_as_ms(latency.value_at_quantile(quantile));
                Latency {
                    p50: at(0.5),
                    p90: at(0.9),
                    p99: at(0.99),
                    max: micros_as_ms(latency.max()),
                }
            });
        RunResult {
            done,
            elapsed_ms: ms(elapsed),
            latency_ms: latency,
            ..self.result.clone()
        }
    }
}

fn micros_as_ms(micros: u64) -> f64 {
    ms(Duration::from_micros(micros))
}

/// Counts `key`, or `other` where the map is full.
fn add(counts: &mut BTreeMap<String, u64>, key: &str, max: usize) {
    let full = counts.len() >= max && !counts.contains_key(key);
    *counts
        .entry(if full { "other" } else { key }.to_owned())
        .or_default() += 1;
}
