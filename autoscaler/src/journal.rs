//! What has happened to one workload lately, for people: its last wakes, changes of its count and
//! its load. Pure, and bounded.
//!
//! ```text
//! task --scaled, woken, observe--> Journal --wakes--> status of the ScaledWorkload
//!                                     |                  | resume, by the next leader
//!                                     +--> status page <-+
//! ```

use std::{collections::VecDeque, time::Duration};

use jiff::{SignedDuration, Timestamp};
use lull_contract::{
    report::Woken,
    view::{
        ANSWERING_PHASE, Caller, CountChange, MAX_CHANGES, MAX_MOMENTS, MAX_WAKE_CALLERS,
        MAX_WAKES, Moment, PhaseView, WakeView,
    },
};

use crate::metrics::Numbers;

/// Between two moments of the line, seconds.
const MOMENT_EVERY: u32 = 5;
/// How much of the line is shown, seconds.
const SHOWN: u32 = 900;
/// Activators tell of a wake for 10 s (their `WOKEN_TOLD`), and are heard once a second.
const TOLD_FOR: SignedDuration = SignedDuration::from_secs(11);
/// A wake that is told of so much later than it can have ended has begun before who was held last came:
/// somebody else gave up, which in a mesh takes 10 s at least. Milliseconds.
const TOLD_AT_ONCE: u64 = 5_000;

/// The memory of one workload. Nothing takes memory before it has happened.
#[derive(Debug, Default)]
pub struct Journal {
    /// The newest first; at most [`MAX_WAKES`].
    wakes: Vec<WakeView>,
    /// The newest of them was there when this replica began to lead: it may be told of once more.
    is_inherited: bool,
    /// This process has begun the newest of them for somebody, and no pod has been ready since.
    is_awaited: bool,
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
    /// Takes over what a leader before has written down. What this replica knows of and nobody has
    /// written yet stays: wakes that it has begun, and the ends of those that it was told of.
    pub fn resume(&mut self, written: &[WakeView]) {
        let own = std::mem::replace(&mut self.wakes, written.to_vec());
        // From the oldest on.
        for wake in own.into_iter().rev() {
            match self.wakes.first_mut() {
                Some(newest) if is_same(newest, &wake) => {
                    if newest.total_ms.is_none() && wake.total_ms.is_some() {
                        *newest = wake;
                    }
                }
                Some(newest) if newest.at > wake.at => {}
                _ => self.wakes.insert(0, wake),
            }
        }
        self.wakes.truncate(MAX_WAKES);
        self.is_inherited = true;
        self.is_awaited = false;
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
            self.is_awaited = held_since.is_some();
            self.begin(WakeView {
                at: held_since.unwrap_or_else(|| change.at.clone()),
                scaled_to: change.to,
                ..WakeView::default()
            });
        }
        self.changes.push_front(change);
        self.changes.truncate(MAX_CHANGES);
    }

    /// Pods are ready at `now` after a wake, whoever still waits for them.
    pub fn ready(&mut self, now: Timestamp) {
        let is_awaited = std::mem::take(&mut self.is_awaited);
        if let Some(wake) = self.wakes.first_mut().filter(|_| is_awaited) {
            wake.waited_ms = wake.waited_ms.or_else(|| ms_since(wake, now));
        }
    }

    /// An activator has told at `now` that a wake has ended, and who began it there. Where
    /// `is_first`, nobody had told this process of that wake before; it has so many `pods`. Whether it
    /// is news: not where a leader before has been told of it and written it down.
    pub fn woken(
        &mut self,
        (woken, caller): (&Woken, Option<Caller>),
        is_first: bool,
        (now, pods): (Timestamp, u32),
    ) -> bool {
        let is_news = is_first && !self.is_written(woken, now);
        if is_news {
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
                wake.waited_ms = waited_ms(wake, now);
            }
        }
        if let (Some(wake), Some(caller)) = (self.wakes.first_mut(), caller)
            && wake.by.len() < MAX_WAKE_CALLERS
            && !wake.by.contains(&caller)
        {
            wake.by.push(caller);
        }
        is_news
    }

    /// It was found out who the `caller` with its address is; of an earlier wake it may have been another.
    pub fn name(&mut self, caller: &Caller) {
        let newest = self.wakes.first_mut().into_iter();
        let callers = newest.flat_map(|wake| &mut wake.by);
        for known in callers.filter(|known| known.pod.is_none()) {
            if known.address == caller.address {
                known.pod.clone_from(&caller.pod);
                known.workload.clone_from(&caller.workload);
            }
        }
    }

    /// Whether a wake that has been told of at `now` is one that was there when this replica began to
    /// lead.
    fn is_written(&self, woken: &Woken, now: Timestamp) -> bool {
        let newest = self.wakes.first().filter(|_| self.is_inherited);
        newest.is_some_and(|newest| shows(newest, woken, now))
    }

    fn begin(&mut self, wake: WakeView) {
        self.is_inherited = false;
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

/// Whether a wake that was told of at `told` is the `newest` one that is known, as one that has ended.
/// An activator tells it in the same words; another one, which held for it as well, in others, but
/// within the same few seconds, in which nothing falls asleep and wakes anew.
#[must_use]
pub fn shows(newest: &WakeView, woken: &Woken, told: Timestamp) -> bool {
    let is_same = newest.total_ms.is_some() && newest.phases == phases(woken);
    is_same || ended_at(newest).is_some_and(|end| told.duration_since(end) <= TOLD_FOR)
}

/// Whether two records are of one wake: each replica dates it by what it was told itself.
fn is_same(a: &WakeView, b: &WakeView) -> bool {
    let begun = |wake: &WakeView| wake.at.parse::<Timestamp>().ok();
    let apart = begun(a)
        .zip(begun(b))
        .map(|(a, b)| a.duration_since(b).abs());
    a.at == b.at || apart.is_some_and(|apart| apart <= TOLD_FOR)
}

/// When its first answer was seen; `None` where there has been none.
fn ended_at(wake: &WakeView) -> Option<Timestamp> {
    let begun: Timestamp = wake.at.parse().ok()?;
    let took = wake.total_ms?.max(wake.waited_ms.unwrap_or_default());
    begun.checked_add(Duration::from_millis(took)).ok()
}

/// How long a pod was waited for in `wake`, of whose end has been told at `told`: what the app then took
/// for its answer is no part of it.
///
/// An activator counts from when the one came whom it holds. Callers in a mesh try to connect for 10 s,
/// and then anew, so of a wake that takes longer only the last try is told.
fn waited_ms(wake: &WakeView, told: Timestamp) -> Option<u64> {
    let total = wake.total_ms?;
    let since_begin = ms_since(wake, told).unwrap_or(total);
    if since_begin.saturating_sub(total) > TOLD_AT_ONCE {
        return wake.waited_ms.or(Some(since_begin));
    }
    let mut phases = wake.phases.iter();
    let answering = phases.find(|phase| phase.name == ANSWERING_PHASE);
    Some(answering.map_or(total, |phase| phase.ms))
}

/// From the beginning of `wake` until `now`, milliseconds.
fn ms_since(wake: &WakeView, now: Timestamp) -> Option<u64> {
    let begun: Timestamp = wake.at.parse().ok()?;
    u64::try_from(now.duration_since(begun).as_millis()).ok()
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
