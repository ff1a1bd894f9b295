//! How long each phase of a wake took; pure but for the clock.

use std::{fmt::Write as _, time::Duration};

use lull_contract::view::ANSWERING_PHASE;
use lull_traces::TraceParent;
use tokio::time::Instant;

use crate::pod::Pod;

/// A step on the way from the first one held to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Kubernetes showed a pod.
    Created,
    /// It has a node.
    Scheduled,
    /// The queue-proxy's container runs.
    Running,
    /// The queue-proxy takes connections.
    Listening,
    /// The queue-proxy says that the app takes traffic.
    Answering,
    /// The pod's first byte was here.
    FirstByte,
}

/// One wake: when it began and how long after that each phase was seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wake {
    /// The span of the request that began it; `None` where that has none.
    pub(crate) caused_by: Option<TraceParent>,
    begun: Instant,
    seen: [Option<Duration>; Phase::ALL.len()],
}

// === impl Phase ===

impl Phase {
    pub(crate) const ALL: [Self; 6] = [
        Self::Created,
        Self::Scheduled,
        Self::Running,
        Self::Listening,
        Self::Answering,
        Self::FirstByte,
    ];

    /// As metrics and the Server-Timing header name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Listening => "listening",
            Self::Answering => ANSWERING_PHASE,
            Self::FirstByte => "first-byte",
        }
    }
}

// === impl Wake ===

impl Wake {
    /// Somebody is held, and there is no pod.
    pub(super) fn begin(caused_by: Option<TraceParent>) -> Self {
        Self {
            caused_by,
            begun: Instant::now(),
            seen: [None; Phase::ALL.len()],
        }
    }

    /// Takes note of a pod as it is now.
    pub(super) fn saw_pod(&mut self, pod: &Pod) {
        self.reached(Phase::Created);
        if pod.node.is_some() {
            self.reached(Phase::Scheduled);
        }
        if pod.running {
            self.reached(Phase::Running);
        }
    }

    /// Takes note of a phase; only the first time counts. False where it was seen before.
    pub(super) fn reached(&mut self, phase: Phase) -> bool {
        let place = &mut self.seen[phase as usize];
        let first = place.is_none();
        place.get_or_insert_with(|| self.begun.elapsed());
        first
    }

    /// Whether a pod could take what is held.
    pub(super) fn is_answering(&self) -> bool {
        self.seen[Phase::Answering as usize].is_some()
    }

    /// Whether it was answered.
    pub(super) fn has_ended(&self) -> bool {
        self.seen[Phase::FirstByte as usize].is_some()
    }

    /// The phases that were seen, with the time from the beginning.
    pub(crate) fn phases(&self) -> impl Iterator<Item = (Phase, Duration)> {
        let seen = self.seen;
        Phase::ALL
            .into_iter()
            .filter_map(move |phase| Some((phase, seen[phase as usize]?)))
    }

    /// For the Server-Timing header, with a leading comma; empty where nothing was seen.
    pub(crate) fn server_timing(&self) -> String {
        let mut text = String::new();
        for (phase, took) in self.phases() {
            // Writing to a String can't fail.
            let _ = write!(text, ", lull-{};dur={:.1}", phase.name(), millis(took));
        }
        text
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_phase_is_the_time_from_the_beginning_to_its_first_sight() {
        let mut wake = Wake::begin(None);
        for phase in [Phase::Created, Phase::Answering, Phase::Created] {
            tokio::time::advance(Duration::from_millis(10)).await;
            wake.reached(phase);
        }
        assert_eq!(
            wake.server_timing(),
            ", lull-created;dur=10.0, lull-answering;dur=20.0"
        );
        assert!(wake.reached(Phase::FirstByte) && !wake.reached(Phase::FirstByte));
    }
}
