//! What has happened to one workload lately, for people: its last wakes, changes of its count and
//! its load. Pure, and bounded.
//!
//! ```text
//! task --scaled, woken, observe--> Journal --wakes--> status of the ScaledWorkload
//!                                     |                  | resume, by the next leader
//!                                     +--> status page <-+
//! ```

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use lull_contract::{
    report::Woken,
    view::{
        Caller, CountChange, MAX_CHANGES, MAX_MOMENTS, MAX_WAKE_CALLERS, MAX_WAKES, Moment,
        PhaseView, WakeView,
    },
};

use crate::metrics::Numbers;

/// Between two moments of the line, seconds.
const MOMENT_EVERY: u32 = 5;
/// How much of the line is shown, seconds.
const SHOWN: u32 = 900;

/// The memory of one workload. Nothing takes memory before it has happened.
#[derive(Debug, Default)]
pub struct Journal {
    /// The newest first; at most [`MAX_WAKES`].
    wakes: Vec<WakeView>,
    /// The newest first; at most [`MAX_CHANGES`].
    changes: VecDeque<CountChange>,
    /// The newest first; at most [`MAX_MOMENTS`].
    line: VecDeque<Sample>,
    /// As it was seen last, where this replica decides.
    seen: Option<Numbers>,
}

/// One moment of the line, as small as it may be: there are many of each workload.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// On the process's clock, seconds.
    at: u32,
    in_flight: u32,
    ready: u32,
    desired: u32,
}

/// `time` as it is told: RFC 3339 with milliseconds, so that the order of texts is that of times.
#[must_use]
pub fn text_of(time: Timestamp) -> String {
    format!("{time:.3}")
}

// === impl Journal ===

impl Journal {
    /// Takes over what a leader before has written down. What this replica has begun and nobody has
    /// written yet stays.
    pub fn resume(&mut self, written: &[WakeView]) {
        let newest = written.first().map(|wake| wake.at.as_str());
        let begun = std::mem::take(&mut self.wakes).into_iter().next();
        let begun = begun.filter(|wake| newest.is_none_or(|newest| wake.at.as_str() > newest));
        let begun = begun.filter(|wake| wake.total_ms.is_none());
        self.wakes = begun.into_iter().chain(written.iter().cloned()).collect();
        self.wakes.truncate(MAX_WAKES);
    }

    /// Takes note of what was seen `now`, on the process's clock.
    pub fn observe(&mut self, now: Duration, numbers: Numbers) {
        self.seen = Some(numbers);
        let sample = Sample {
            at: seconds(now),
            in_flight: u32::try_from(numbers.in_flight).unwrap_or(u32::MAX),
            ready: numbers.ready,
            desired: numbers.desired,
        };
        let newest = self.line.front().map(|newest| newest.at);
        if newest.is_none_or(|newest| sample.at.saturating_sub(newest) >= MOMENT_EVERY) {
            self.draw(sample);
        }
    }

    /// A time in which nothing changes has a beginning and an end: thousands that sleep take nothing.
    fn draw(&mut self, sample: Sample) {
        let mut last = self.line.iter().take(2);
        let is_longer = last.len() == 2 && last.all(|other| other.looks_like(&sample));
        match self.line.front_mut().filter(|_| is_longer) {
            Some(end) => *end = sample,
            None => self.line.push_front(sample),
        }
        self.line.truncate(MAX_MOMENTS);
    }

    /// Another replica decides from now on.
    pub fn hide(&mut self) {
        self.seen = None;
    }

    /// A count was written; for a wake with the time when somebody began to be held, where that is
    /// known.
    pub fn scaled(&mut self, change: CountChange, held_since: Option<String>) {
        if change.from == 0 && change.to > 0 {
            self.begin(WakeView {
                at: held_since.unwrap_or_else(|| change.at.clone()),
                scaled_to: change.to,
                ..WakeView::default()
            });
        }
        self.changes.push_front(change);
        self.changes.truncate(MAX_CHANGES);
    }

    /// Whether the newest wake is this one, and has been told of: a process that begins hears once more
    /// of what has just been, and may find it written down.
    #[must_use]
    pub fn has_told(&self, woken: &Woken) -> bool {
        let newest = self.wakes.first();
        newest.is_some_and(|wake| wake.total_ms.is_some() && wake.phases == phases(woken))
    }

    /// An activator has told at `now` that a wake has ended, and who began it there. Where
    /// `is_first`, nobody had told of that wake before; it has so many `pods`.
    pub fn woken(
        &mut self,
        (woken, caller): (&Woken, Option<Caller>),
        is_first: bool,
        (now, pods): (Timestamp, u32),
    ) {
        if is_first {
            let total = woken.phases_us.last().map_or(0, |(_, us)| *us);
            if self
                .wakes
                .first()
                .is_none_or(|wake| wake.total_ms.is_some())
            {
                // Another replica has scaled it.
                let begun = now.checked_sub(Duration::from_micros(total)).unwrap_or(now);
                self.begin(WakeView {
                    at: text_of(begun),
                    scaled_to: pods,
                    ..WakeView::default()
                });
            }
            if let Some(wake) = self.wakes.first_mut() {
                wake.total_ms = Some(total / 1_000);
                wake.phases = phases(woken);
            }
        }
        let (Some(wake), Some(caller)) = (self.wakes.first_mut(), caller) else {
            return;
        };
        if wake.by.len() < MAX_WAKE_CALLERS && !wake.by.contains(&caller) {
            wake.by.push(caller);
        }
    }

    fn begin(&mut self, wake: WakeView) {
        self.wakes.truncate(MAX_WAKES - 1);
        self.wakes.insert(0, wake);
    }

    /// As it was seen last; `None` where this replica does not decide.
    #[must_use]
    pub fn seen(&self) -> Option<Numbers> {
        self.seen
    }

    /// The last wakes, the newest first.
    #[must_use]
    pub fn wakes(&self) -> &[WakeView] {
        &self.wakes
    }

    /// The last changes of the count that this replica has written, the newest first.
    #[must_use]
    pub fn changes(&self) -> Vec<CountChange> {
        self.changes.iter().cloned().collect()
    }

    /// Load and pods in the last quarter of an hour until `now`, the oldest first.
    #[must_use]
    pub fn line(&self, now: Duration) -> Vec<Moment> {
        let ago = |sample: &Sample| seconds(now).saturating_sub(sample.at);
        let shown = self.line.iter().filter(|sample| ago(sample) < SHOWN);
        // And one more, with which the time that is shown began.
        let shown = self.line.iter().take(shown.count() + 1).rev();
        let moments = shown.map(|sample| Moment {
            ago: ago(sample).min(SHOWN),
            in_flight: sample.in_flight.into(),
            ready: sample.ready,
            desired: sample.desired,
        });
        moments.collect()
    }
}

// === impl Sample ===

impl Sample {
    fn looks_like(&self, other: &Self) -> bool {
        let seen = |sample: &Self| (sample.in_flight, sample.ready, sample.desired);
        seen(self) == seen(other)
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn phases(woken: &Woken) -> Vec<PhaseView> {
    let phases = woken.phases_us.iter().map(|(name, us)| PhaseView {
        name: name.clone(),
        ms: us / 1_000,
    });
    phases.collect()
}

#[cfg(test)]
mod tests;
