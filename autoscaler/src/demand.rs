//! What is known about one workload's load: reports of its pods and of the activators that hold
//! for it, as windows.
//!
//! Demand is what pods have in flight plus what activators hold; a request is in one of the two, so
//! nothing counts twice. All times are since the process's start. A report of a known reporter
//! allocates nothing, and nor does a measurement.

mod called;
mod measured;
mod seen;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use lull_contract::{
    Metric, Settings,
    report::{CallerCount, HeldWorkload, Load, QueueProxyReport, Ways, Woken},
};

use self::called::Told;
pub use self::measured::{Measured, Totals};
use crate::kpa::Window;

/// For how long where an app listens is not taken for all that it will listen on.
const STARTING: Duration = Duration::from_secs(5);

/// Load of one workload.
#[derive(Debug)]
pub struct Demand {
    stable: Window,
    panic: Window,
    metric: Metric,
    lengths: (Duration, Duration),
    /// Since when pods are heard: what was before is in no window.
    begun: Duration,
    /// By name of the pod.
    pods: HashMap<Box<str>, Heard>,
    /// Who has called them lately, by name of the pod; for people.
    called: HashMap<Box<str>, Told>,
    /// By name of the activator's pod.
    activators: HashMap<Box<str>, Holding>,
    arrivals: u64,
    /// When it was heard last of a request that arrived.
    called_at: Option<Duration>,
    /// When a connection was seen last that went round a queue-proxy.
    bypassed_at: Option<Duration>,
    /// App ports that are listened on at loopback alone, by name of the pod; of others there is none.
    loopback_only: HashMap<Box<str>, Vec<u16>>,
    /// A wake that nobody has taken note of, and when it was told.
    woken: Option<(Woken, Duration)>,
}

/// The last report of a process.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    boot: u64,
    now_us: u64,
    load: Load,
    at: Duration,
}

/// What an activator told last about the workload.
#[derive(Debug, Default)]
struct Holding {
    heard: Heard,
    /// [`Hearing::complete`] of that report.
    complete: u64,
    forwarding: u64,
    ports: Vec<u16>,
    /// Since when it has held somebody, on our clock.
    held_since: Option<Duration>,
    /// When it told of it first, on our clock.
    held_told: Option<Duration>,
    /// Number of the last wake of which it has told; 0 = of none lately.
    wake: u64,
    /// Who was held most often there.
    callers: Vec<CallerCount>,
    /// How callers have come there.
    ways: Ways,
}

/// What is known of an activator as a whole: it tells only what has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hearing {
    /// Its process.
    pub boot: u64,
    /// Complete reports so far, from this process.
    pub complete: u64,
    /// Time of its last report, on its clock.
    pub now_us: u64,
    /// And on ours.
    pub at: Duration,
}

/// Load between two reports of a process.
#[derive(Debug, Clone, Copy)]
struct Span {
    length: Duration,
    arrived: u64,
    in_flight_seconds: f64,
}

/// A pod that may report.
#[derive(Debug, Clone, Copy)]
pub struct Reporter<'a> {
    /// Its name.
    pub name: &'a str,
    /// It is ready: where it is silent, its load is unknown.
    pub ready: bool,
}

// === impl Demand ===

impl Demand {
    /// Nothing known yet.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let lengths = (settings.window.0, settings.panic_window());
        Self {
            stable: Window::new(lengths.0),
            panic: Window::new(lengths.1),
            metric: settings.metric,
            lengths,
            begun: Duration::ZERO,
            pods: HashMap::new(),
            called: HashMap::new(),
            activators: HashMap::new(),
            arrivals: 0,
            called_at: None,
            bypassed_at: None,
            loopback_only: HashMap::new(),
            woken: None,
        }
    }

    /// From `now` on pods are heard. The windows begin empty: as long as only activators told of
    /// their share, that was not the load.
    pub fn begin(&mut self, now: Duration) {
        self.stable = Window::new(self.lengths.0);
        self.panic = Window::new(self.lengths.1);
        self.pods.clear();
        self.called.clear();
        self.loopback_only.clear();
        self.begun = now;
    }

    /// Takes changed settings over; a changed window starts empty, so that nothing is decided on it
    /// until it is known.
    fn configure(&mut self, settings: &Settings) -> bool {
        let changed = self.lengths != (settings.window.0, settings.panic_window())
            || self.metric != settings.metric;
        if changed {
            let (pods, called, activators) = (
                std::mem::take(&mut self.pods),
                std::mem::take(&mut self.called),
                std::mem::take(&mut self.activators),
            );
            *self = Self {
                begun: self.begun,
                pods,
                called,
                activators,
                arrivals: self.arrivals,
                called_at: self.called_at,
                bypassed_at: self.bypassed_at,
                loopback_only: std::mem::take(&mut self.loopback_only),
                woken: self.woken.take(),
                ..Self::new(settings)
            };
        }
        changed
    }

    /// Takes the report of a pod that arrived at `at`.
    pub fn pod_reported(&mut self, pod: &str, report: &QueueProxyReport, at: Duration) {
        let heard = Heard {
            boot: report.boot,
            now_us: report.now_us,
            load: report.load,
            at,
        };
        let Some(span) = self.since_last(self.pods.get(pod), &heard) else {
            return;
        };
        let amount = match self.metric {
            Metric::Concurrency => span.in_flight_seconds,
            Metric::Rps => as_f64(span.arrived),
        };
        self.record(&span, at, amount);
        if report.bypass > 0 {
            self.bypassed_at = Some(at);
        }
        self.note_called(pod, report, at);
        let is_early = Duration::from_micros(report.now_us) < STARTING;
        if report.loopback_only.is_empty() || is_early {
            self.loopback_only.remove(pod);
        } else {
            let ports = report.loopback_only.clone();
            self.loopback_only.insert(pod.into(), ports);
        }
        match self.pods.get_mut(pod) {
            Some(known) => *known = heard,
            None => drop(self.pods.insert(pod.into(), heard)),
        }
    }

    /// Takes what the activator pod `activator` said about this workload in the report `now`; the
    /// report before it was `last`. Whether it listens on other ports than before.
    pub fn activator_reported(
        &mut self,
        activator: &str,
        (last, now): (Option<Hearing>, Hearing),
        held: &HeldWorkload,
    ) -> bool {
        let Hearing { boot, at, .. } = now;
        let heard = Heard {
            boot,
            now_us: now.now_us,
            load: held.held,
            at,
        };
        let mut before = self.activators.get(activator).map(|known| known.heard);
        if let (Some(before), Some(last)) = (&mut before, last)
            && before.boot == last.boot
            && before.now_us < last.now_us
        {
            // Had it changed before the last report, that would have said so.
            self.record_span((before.at, last.at), 0.0);
            before.now_us = last.now_us;
        }
        let Some(span) = self.since_last(before.as_ref(), &heard) else {
            return false;
        };
        let amount = match self.metric {
            Metric::Concurrency => span.in_flight_seconds,
            // It will arrive at a pod and count there.
            Metric::Rps => 0.0,
        };
        self.record(&span, at, amount);
        let known = match self.activators.get_mut(activator) {
            Some(known) => known,
            None => self.activators.entry(activator.into()).or_default(),
        };
        let wake = held.woken.as_ref().map_or(0, |woken| woken.number);
        let told_wake = if known.heard.boot == boot {
            known.wake
        } else {
            0
        };
        if told_wake < wake {
            self.woken = held.woken.clone().map(|woken| (woken, at));
        }
        let held_since = at.saturating_sub(Duration::from_micros(held.held_for_us));
        let listens_otherwise = known.ports != held.ports;
        known.heard = heard;
        known.complete = now.complete;
        known.forwarding = held.forwarding;
        known.ports.clone_from(&held.ports);
        known.callers.clone_from(&held.callers);
        known.ways = held.ways;
        let holds = held.held.in_flight > 0;
        known.held_since = holds.then_some(held_since);
        known.held_told = holds.then_some(known.held_told.unwrap_or(at));
        known.wake = wake;
        listens_otherwise
    }

    /// What happened since the report before; nothing where this one is not newer.
    fn since_last(&self, before: Option<&Heard>, heard: &Heard) -> Option<Span> {
        let (from_us, load) = match before.filter(|before| before.boot == heard.boot) {
            Some(before) if before.now_us >= heard.now_us => return None,
            Some(before) => (before.now_us, before.load),
            // A process younger than the window is known from its start; an older one from now on.
            None if heard.now_us < micros(self.lengths.0) => (0, Load::default()),
            None => (heard.now_us, heard.load),
        };
        let in_flight_us = heard.load.in_flight_us.saturating_sub(load.in_flight_us);
        Some(Span {
            length: Duration::from_micros(heard.now_us - from_us),
            arrived: heard.load.requests.saturating_sub(load.requests),
            in_flight_seconds: Duration::from_micros(in_flight_us).as_secs_f64(),
        })
    }

    fn record(&mut self, span: &Span, at: Duration, amount: f64) {
        self.arrivals += span.arrived;
        if span.arrived > 0 {
            self.called_at = Some(at);
        }
        self.record_span((at.saturating_sub(span.length), at), amount);
    }

    /// Puts `amount`, which is spread evenly over the time, into both windows, but for what lies
    /// before they began.
    fn record_span(&mut self, (from, to): (Duration, Duration), amount: f64) {
        if to < self.begun {
            return;
        }
        let (start, length) = (from.max(self.begun), to.saturating_sub(from));
        let share = if length.is_zero() {
            1.0
        } else {
            (to - start).as_secs_f64() / length.as_secs_f64()
        };
        self.stable.record_span(start, to, amount * share);
        self.panic.record_span(start, to, amount * share);
    }

    /// Forgets what others have reported than the pods and activators that there are: somebody who
    /// was held by an activator that is gone waits no more.
    pub fn keep_only<'a>(
        &mut self,
        pods: &(impl Iterator<Item = Reporter<'a>> + Clone),
        activators: &(impl Iterator<Item = Reporter<'a>> + Clone),
    ) {
        forget_others(&mut self.pods, pods);
        forget_others(&mut self.called, pods);
        forget_others(&mut self.loopback_only, pods);
        forget_others(&mut self.activators, activators);
    }

    /// Requests that have arrived anywhere since this process knows the workload; only grows.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// When a report came last that told of a request; `None` where none has since this process
    /// knows the workload.
    #[must_use]
    pub fn called_at(&self) -> Option<Duration> {
        self.called_at
    }

    /// App ports that a pod's app listens on at loopback alone, in order.
    #[must_use]
    pub fn loopback_only(&self) -> Vec<u16> {
        let ports = self.loopback_only.values().flatten().copied();
        BTreeSet::from_iter(ports).into_iter().collect()
    }

    /// Held at activators.
    #[must_use]
    pub fn held(&self) -> u64 {
        let known = self.activators.values();
        known.map(|known| known.heard.load.in_flight).sum()
    }

    /// Let through by activators and not ended.
    #[must_use]
    pub fn forwarding(&self) -> u64 {
        self.activators.values().map(|known| known.forwarding).sum()
    }

    /// How callers have come to the activators, since each of these started.
    #[must_use]
    pub fn ways(&self) -> Ways {
        let known = self.activators.values();
        known.fold(Ways::default(), |all, known| all.and(known.ways))
    }

    /// Since when somebody has been held at an activator, but for the way of its report to here.
    #[must_use]
    pub fn held_since(&self) -> Option<Duration> {
        let known = self.activators.values();
        known.filter_map(|known| known.held_since).min()
    }

    /// When an activator told first of somebody whom it still holds.
    #[must_use]
    pub fn held_told(&self) -> Option<Duration> {
        let known = self.activators.values();
        known.filter_map(|known| known.held_told).min()
    }

    /// The wake that ended since this was asked last, and when it was told.
    pub fn take_woken(&mut self) -> Option<(Woken, Duration)> {
        self.woken.take()
    }

    /// Forgets the wake that would be taken, unless it `is_kept`, by itself and by when it was told.
    pub fn keep_woken(&mut self, is_kept: impl FnOnce(&Woken, Duration) -> bool) {
        let woken = self.woken.take();
        self.woken = woken.filter(|(woken, told)| is_kept(woken, *told));
    }

    /// Whether `activator`, of which `hearing` was heard, has said that it listens on every one of
    /// `ports`.
    #[must_use]
    pub fn listens(
        &self,
        (activator, hearing): (&str, Hearing),
        mut ports: impl Iterator<Item = u16>,
    ) -> bool {
        let known = self.activators.get(activator);
        self.is_told(activator, hearing)
            && known.is_some_and(|known| ports.all(|port| known.ports.contains(&port)))
    }

    /// Whether what is known of an activator holds: what it has not told anew is as it was, as far
    /// back as its last complete report.
    fn is_told(&self, activator: &str, hearing: Hearing) -> bool {
        // A complete report reaches one workload after the other before it counts as heard.
        self.activators.get(activator).is_some_and(|known| {
            known.heard.boot == hearing.boot && known.complete >= hearing.complete
        })
    }
}

/// Removes what is known of reporters that are not among `there`.
fn forget_others<'a, T>(
    known: &mut HashMap<Box<str>, T>,
    there: &(impl Iterator<Item = Reporter<'a>> + Clone),
) {
    let still = there.clone().filter(|pod| known.contains_key(pod.name));
    if still.count() < known.len() {
        known.retain(|name, _| there.clone().any(|pod| pod.name == &**name));
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn as_f64(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
