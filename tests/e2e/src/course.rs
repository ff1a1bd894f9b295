//! The course of a workload under load, as its ScaledWorkload tells it: one watch, and what follows from
//! its events.

use std::{sync::Arc, time::Duration};

use kube::{Api, runtime::watcher};
use lull_contract::scaled_workload::{Mode, ScaledWorkload, ScaledWorkloadStatus, State};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::{
    Workload,
    timeline::{begins, follow},
};

/// A workload from some moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// When it was seen, microseconds since 1970 on this machine's clock.
    pub at_us: u64,
    /// Step of its life.
    pub state: State,
    /// Where its Services point.
    pub mode: Mode,
    /// Pods that take traffic.
    pub ready: u32,
    /// Pods that the last decision wants.
    pub desired: u32,
    /// Requests in flight at pods plus held at activators.
    pub in_flight: u64,
    /// Of those, held at activators.
    pub held: u64,
}

/// A span of time, microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from_us: u64,
    /// Its end.
    pub until_us: u64,
}

/// Watches one workload.
#[derive(Debug)]
pub struct Course {
    seen: Arc<Mutex<Vec<Moment>>>,
    /// Stops watching when dropped.
    _tasks: JoinSet<()>,
}

/// Within `span`, how long activators stood in the path, alone or beside pods. `moments` are in the order
/// of time, and each lasts until the next one.
#[must_use]
pub fn in_path(moments: &[Moment], span: Span) -> Duration {
    let ends = moments.iter().skip(1).map(|next| next.at_us);
    let ends = ends.chain(std::iter::once(span.until_us));
    let lasted = moments.iter().zip(ends).map(|(moment, end)| {
        let is_in = moment.mode == Mode::Proxy;
        let (from, until) = (moment.at_us.max(span.from_us), end.min(span.until_us));
        if is_in { until.saturating_sub(from) } else { 0 }
    });
    Duration::from_micros(lasted.sum())
}

/// How long after `from_us` the pods alone were behind the Services for the first time.
#[must_use]
pub fn served_after(moments: &[Moment], from_us: u64) -> Option<Duration> {
    let mut later = moments.iter().filter(|moment| moment.at_us >= from_us);
    let served = later.find(|moment| moment.mode == Mode::Serve)?;
    Some(Duration::from_micros(served.at_us - from_us))
}

/// What `span` begins with, and each later moment in it at which the state or a count of pods was another
/// one than before, with the time from the beginning.
#[must_use]
pub fn changes(moments: &[Moment], span: Span) -> Vec<(Duration, Moment)> {
    let (before, within): (Vec<Moment>, Vec<Moment>) = moments
        .iter()
        .copied()
        .filter(|moment| moment.at_us <= span.until_us)
        .partition(|moment| moment.at_us < span.from_us);
    let mut changes: Vec<(Duration, Moment)> = Vec::new();
    for moment in before.last().into_iter().chain(&within) {
        let counted = |moment: &Moment| (moment.state, moment.ready, moment.desired);
        let last = changes.last().map(|(_, last)| counted(last));
        if last != Some(counted(moment)) {
            let after = moment.at_us.saturating_sub(span.from_us);
            changes.push((Duration::from_micros(after), *moment));
        }
    }
    changes
}

// === impl Moment ===

impl Moment {
    fn new(at_us: u64, status: &ScaledWorkloadStatus) -> Self {
        Self {
            at_us,
            state: status.state,
            mode: status.mode,
            ready: status.ready,
            desired: status.desired,
            in_flight: status.in_flight,
            held: status.held,
        }
    }
}

// === impl Course ===

impl Course {
    /// Starts watching; the first moment is that of the beginning.
    ///
    /// # Errors
    /// Where the watch doesn't begin.
    pub async fn start(workload: &Workload) -> anyhow::Result<Self> {
        let (client, name) = (workload.cluster.client.clone(), workload.name.clone());
        let api: Api<ScaledWorkload> = Api::namespaced(client, &workload.namespace);
        let seen: Arc<Mutex<Vec<Moment>>> = Arc::default();
        let noted = Arc::clone(&seen);
        let mut tasks = JoinSet::new();
        let all = watcher::Config::default();
        let begun = follow(&mut tasks, api, all, move |scaled: &ScaledWorkload, now| {
            if let Some(status) = &scaled.status
                && scaled.spec.target.name == name
            {
                noted.lock().push(Moment::new(now, status));
            }
        });
        begins(begun).await?;
        Ok(Self {
            seen,
            _tasks: tasks,
        })
    }

    /// Everything so far, the oldest first.
    #[must_use]
    pub fn moments(&self) -> Vec<Moment> {
        self.seen.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span {
        from_us: 10_000_000,
        until_us: 40_000_000,
    };

    fn moment(seconds: u64, state: State, (ready, desired): (u32, u32)) -> Moment {
        Moment {
            at_us: seconds * 1_000_000,
            state,
            mode: state.mode(),
            ready,
            desired,
            in_flight: 0,
            held: 0,
        }
    }

    /// A load from second 10 on that ends at 40.
    fn course() -> [Moment; 7] {
        [
            moment(1, State::FallingAsleep, (1, 0)),
            moment(5, State::Asleep, (0, 0)),
            moment(13, State::Settling, (1, 3)),
            moment(15, State::Awake, (3, 3)),
            // Only the requests in flight were others.
            moment(17, State::Awake, (3, 3)),
            moment(30, State::Bursting, (3, 5)),
            moment(35, State::Awake, (5, 5)),
        ]
    }

    #[test]
    fn all_times_with_activators_in_the_path_are_added_up_and_those_outside_of_the_load_are_not() {
        let seconds = |moments: &[Moment]| in_path(moments, SPAN).as_secs();
        assert_eq!(seconds(&course()), 5 + 5);
        assert_eq!(seconds(&course()[..2]), 30, "it never woke");
        assert_eq!(seconds(&[]), 0);
    }

    #[test]
    fn pods_serve_alone_from_the_first_time_after_the_beginning() {
        let course = course();
        let after = served_after(&course, SPAN.from_us);
        assert_eq!(after, Some(Duration::from_secs(5)));
        assert_eq!(served_after(&course[..3], SPAN.from_us), None);
    }

    #[test]
    fn only_what_has_changed_is_told_and_first_what_was_there() {
        let changes = changes(&course(), SPAN);
        let told: Vec<(u64, State, u32)> = changes
            .iter()
            .map(|(after, moment)| (after.as_secs(), moment.state, moment.ready))
            .collect();
        let expected = [
            (0, State::Asleep, 0),
            (3, State::Settling, 1),
            (5, State::Awake, 3),
            (20, State::Bursting, 3),
            (25, State::Awake, 5),
        ];
        assert_eq!(told, expected);
    }
}
