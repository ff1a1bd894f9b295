//! What is known about one workload's load: reports of its pods and of the activators that hold
//! for it, as windows.
//!
//! Demand is what pods have in flight plus what activators hold; a request is in one of the two, so
//! nothing counts twice. All times are since the process's start. A report of a known reporter
//! allocates nothing, and nor does a measurement.

use std::{collections::HashMap, time::Duration};

use lull_contract::{
    Metric, Settings,
    report::{HeldWorkload, Load, QueueProxyReport, Woken},
};

use crate::kpa::Window;

/// A report older than this says nothing about now: three pulls were missed.
const MAX_REPORT_AGE: Duration = Duration::from_millis(3_500);

/// Load of one workload.
#[derive(Debug)]
pub struct Demand {
    stable: Window,
    panic: Window,
    metric: Metric,
    lengths: (Duration, Duration),
    /// By name of the pod.
    pods: HashMap<Box<str>, Heard>,
    /// By name of the activator's pod.
    activators: HashMap<Box<str>, Holding>,
    arrivals: u64,
    /// When it was heard last of a request that arrived.
    called_at: Option<Duration>,
    /// When a connection was seen last that went round a queue-proxy.
    bypassed_at: Option<Duration>,
    /// A wake that nobody has taken note of.
    woken: Option<Woken>,
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
    /// Number of the last wake of which it has told; 0 = of none lately.
    wake: u64,
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

/// What the reports say at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measured {
    /// Sums of the last reports.
    pub totals: Totals,
    /// Average load over the stable window, whole workload.
    pub stable: f64,
    /// Average load over the panic window, whole workload.
    pub panic: f64,
    /// Every ready pod and activator has been heard lately.
    pub heard: bool,
    /// Ready pods that have not been heard lately.
    pub silent: u32,
    /// Every ready activator and at least half of the ready pods have been heard lately: the silent
    /// ones may be sick, rather than this process cut off.
    pub mostly_heard: bool,
    /// Age of the oldest of their last reports; `None` where one has not been had at all.
    pub oldest: Option<Duration>,
    /// The windows were emptied, because other ones are asked for.
    pub restarted: bool,
}

/// Sums over all reporters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// In flight at pods plus held at activators.
    pub in_flight: u64,
    /// Held at activators.
    pub held: u64,
    /// Let through by activators and not ended.
    pub forwarding: u64,
    /// Connections went round a queue-proxy within the stable window.
    pub bypassed: bool,
    /// Requests that have arrived anywhere since this process knows the workload; only grows.
    pub arrivals: u64,
}

/// How lately reporters of one kind were heard.
#[derive(Debug, Clone, Copy)]
struct Ages {
    /// Reporters.
    count: u32,
    /// Those of [`MAX_REPORT_AGE`] and more, or never heard.
    late: u32,
    /// Age of the oldest last report; `None` where one has not been had at all.
    oldest: Option<Duration>,
}

// === impl Ages ===

impl Ages {
    fn of(reported_at: impl Iterator<Item = Option<Duration>>, now: Duration) -> Self {
        let none = Self {
            count: 0,
            late: 0,
            oldest: Some(Duration::ZERO),
        };
        reported_at.fold(none, |ages, at| {
            let age = at.map(|at| now.saturating_sub(at));
            let is_late = age.is_none_or(|age| age > MAX_REPORT_AGE);
            Self {
                count: ages.count + 1,
                late: ages.late + u32::from(is_late),
                oldest: ages.oldest.zip(age).map(|(a, b)| a.max(b)),
            }
        })
    }
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
            pods: HashMap::new(),
            activators: HashMap::new(),
            arrivals: 0,
            called_at: None,
            bypassed_at: None,
            woken: None,
        }
    }

    /// Takes changed settings over; a changed window starts empty, so that nothing is decided on it
    /// until it is known.
    fn configure(&mut self, settings: &Settings) -> bool {
        let changed = self.lengths != (settings.window.0, settings.panic_window())
            || self.metric != settings.metric;
        if changed {
            let (pods, activators) = (
                std::mem::take(&mut self.pods),
                std::mem::take(&mut self.activators),
            );
            *self = Self {
                pods,
                activators,
                arrivals: self.arrivals,
                called_at: self.called_at,
                bypassed_at: self.bypassed_at,
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
        match self.pods.get_mut(pod) {
            Some(known) => *known = heard,
            None => drop(self.pods.insert(pod.into(), heard)),
        }
    }

    /// Takes what the activator pod `activator` said about this workload in the report `now`; the
    /// report before it was `last`.
    pub fn activator_reported(
        &mut self,
        activator: &str,
        (last, now): (Option<Hearing>, Hearing),
        held: &HeldWorkload,
    ) {
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
            self.stable.record_span(before.at, last.at, 0.0);
            self.panic.record_span(before.at, last.at, 0.0);
            before.now_us = last.now_us;
        }
        let Some(span) = self.since_last(before.as_ref(), &heard) else {
            return;
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
            self.woken.clone_from(&held.woken);
        }
        let held_since = at.saturating_sub(Duration::from_micros(held.held_for_us));
        known.heard = heard;
        known.complete = now.complete;
        known.forwarding = held.forwarding;
        known.ports.clone_from(&held.ports);
        known.held_since = (held.held.in_flight > 0).then_some(held_since);
        known.wake = wake;
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
        let from = at.saturating_sub(span.length);
        self.stable.record_span(from, at, amount);
        self.panic.record_span(from, at, amount);
    }

    /// What is known at `now`, with `settings`, of the pods and activators that there are, the
    /// latter each with what was heard of it as a whole; reports of others are forgotten.
    pub fn measure<'a>(
        &mut self,
        settings: &Settings,
        pods: impl Iterator<Item = Reporter<'a>> + Clone,
        activators: impl Iterator<Item = (Reporter<'a>, Option<Hearing>)> + Clone,
        now: Duration,
    ) -> Measured {
        let restarted = self.configure(settings);
        let named = activators.clone().map(|(activator, _)| activator);
        self.keep_only(&pods, &named);
        let pods = Ages::of(self.pods_reported_at(pods), now);
        let activators = Ages::of(self.activators_reported_at(activators), now);
        // The newest second is left out: its reports are still on their way.
        let ended = now.saturating_sub(Duration::from_secs(1));
        Measured {
            totals: self.totals(now),
            stable: self.stable.average(ended),
            panic: self.panic.average(ended),
            heard: pods.late + activators.late == 0,
            silent: pods.late,
            mostly_heard: pods.late * 2 <= pods.count && activators.late == 0,
            oldest: pods.oldest.zip(activators.oldest).map(|(a, b)| a.max(b)),
            restarted,
        }
    }

    /// Forgets what others have reported than the pods and activators that there are: somebody who
    /// was held by an activator that is gone waits no more.
    pub fn keep_only<'a>(
        &mut self,
        pods: &(impl Iterator<Item = Reporter<'a>> + Clone),
        activators: &(impl Iterator<Item = Reporter<'a>> + Clone),
    ) {
        forget_others(&mut self.pods, pods);
        forget_others(&mut self.activators, activators);
    }

    /// When each ready pod was heard last; `None` for one that has said nothing.
    fn pods_reported_at<'a>(
        &self,
        pods: impl Iterator<Item = Reporter<'a>>,
    ) -> impl Iterator<Item = Option<Duration>> {
        pods.filter(|pod| pod.ready)
            .map(|pod| self.pods.get(pod.name).map(|heard| heard.at))
    }

    /// When each ready activator was heard last; `None` for one that has said nothing.
    fn activators_reported_at<'a>(
        &self,
        activators: impl Iterator<Item = (Reporter<'a>, Option<Hearing>)>,
    ) -> impl Iterator<Item = Option<Duration>> {
        activators
            .filter(|(activator, _)| activator.ready)
            .map(|(activator, hearing)| {
                let hearing = hearing.filter(|hearing| self.is_told(activator.name, *hearing));
                hearing.map(|hearing| hearing.at)
            })
    }

    fn totals(&self, now: Duration) -> Totals {
        let held = self.held();
        let at_pods: u64 = self.pods.values().map(|heard| heard.load.in_flight).sum();
        Totals {
            in_flight: at_pods + held,
            held,
            forwarding: self.activators.values().map(|known| known.forwarding).sum(),
            bypassed: self
                .bypassed_at
                .is_some_and(|at| now <= at + self.lengths.0),
            arrivals: self.arrivals,
        }
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

    /// Held at activators.
    #[must_use]
    pub fn held(&self) -> u64 {
        let known = self.activators.values();
        known.map(|known| known.heard.load.in_flight).sum()
    }

    /// Since when somebody has been held at an activator, but for the way of its report to here.
    #[must_use]
    pub fn held_since(&self) -> Option<Duration> {
        let known = self.activators.values();
        known.filter_map(|known| known.held_since).min()
    }

    /// The wake that ended since this was asked last.
    pub fn take_woken(&mut self) -> Option<Woken> {
        self.woken.take()
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
mod tests {
    use super::*;
    use lull_contract::{HumanDuration, report::VERSION};

    fn report(boot: u64, now_us: u64, load: (u64, u64, u64)) -> QueueProxyReport {
        QueueProxyReport {
            v: VERSION,
            pod: "p".into(),
            boot,
            now_us,
            load: Load {
                in_flight: load.0,
                in_flight_us: load.1,
                requests: load.2,
            },
            queued: 0,
            limit: 0,
            app_ready: true,
            draining: false,
            bypass: 0,
        }
    }

    fn settings() -> Settings {
        Settings {
            window: HumanDuration::from_secs(10),
            ..Settings::default()
        }
    }

    fn demand() -> Demand {
        Demand::new(&settings())
    }

    const SEC: u64 = 1_000_000;

    fn measure(demand: &mut Demand, second: u64) -> Measured {
        let p = Reporter {
            name: "p",
            ready: true,
        };
        let at = Duration::from_secs(second);
        demand.measure(&settings(), [p].into_iter(), [].into_iter(), at)
    }

    #[test]
    fn a_call_is_as_old_as_the_report_that_told_of_it() {
        let (mut demand, at) = (demand(), Duration::from_secs);
        demand.pod_reported("p", &report(1, 900 * SEC, (0, 0, 7)), at(100));
        assert_eq!(demand.called_at(), None, "nobody knows when the seven came");
        demand.pod_reported("p", &report(1, 901 * SEC, (0, 0, 8)), at(101));
        demand.pod_reported("p", &report(1, 902 * SEC, (0, 0, 8)), at(102));
        assert_eq!(demand.called_at(), Some(at(101)));
    }

    #[test]
    fn a_missed_pull_loses_nothing() {
        let at = Duration::from_secs;
        let (mut each, mut late) = (demand(), demand());
        for second in 1..=8 {
            each.pod_reported(
                "p",
                &report(1, second * SEC, (2, 2 * second * SEC, 4 * second)),
                at(100 + second),
            );
        }
        late.pod_reported("p", &report(1, SEC, (2, 2 * SEC, 4)), at(101));
        late.pod_reported("p", &report(1, 8 * SEC, (2, 16 * SEC, 32)), at(108));
        let (each, late) = (measure(&mut each, 108), measure(&mut late, 108));
        assert_eq!((each.stable, each.panic), (2.0, 2.0));
        assert_eq!(each, late);
        assert_eq!(late.totals.arrivals, 32);
    }

    /// Section 6.4: what a second's report says of the second.
    #[test]
    fn an_average_is_what_happened() {
        let rows = [
            (
                "two requests of 500 ms, one after the other",
                (0, SEC, 2),
                1.0,
            ),
            ("one request that spans the second", (1, SEC, 0), 1.0),
            ("two that overlap for all of it", (2, 2 * SEC, 2), 2.0),
        ];
        for (row, load, average) in rows {
            let mut demand = demand();
            demand.pod_reported("p", &report(1, SEC, load), Duration::from_secs(1));
            let measured = measure(&mut demand, 1);
            assert!(
                (measured.panic - average).abs() < 1e-9,
                "{row}: {measured:?}"
            );
        }
    }

    #[test]
    fn an_old_process_is_known_from_now_on_and_a_restart_is_no_drop() {
        let at = Duration::from_secs;
        let mut demand = demand();
        demand.pod_reported("p", &report(1, 1000 * SEC, (0, 5000 * SEC, 9000)), at(10));
        assert_eq!(demand.totals(at(13)).arrivals, 0);
        demand.pod_reported("p", &report(2, SEC, (0, SEC, 3)), at(12));
        assert_eq!(demand.totals(at(13)).arrivals, 3);
        // A report that comes twice, or late, counts once.
        demand.pod_reported("p", &report(2, SEC, (0, SEC, 3)), at(13));
        assert_eq!(demand.totals(at(13)).arrivals, 3);
    }

    #[test]
    fn one_silent_pod_of_many_is_told_from_a_cut_off_autoscaler() {
        let rows = [
            (2, 2, 0, true),
            (1, 2, 1, true),
            (1, 3, 2, false),
            (0, 1, 1, false),
        ];
        for (heard, ready, silent, mostly) in rows {
            let mut demand = demand();
            let names = ["a", "b", "c"];
            for name in &names[..heard] {
                demand.pod_reported(name, &report(1, SEC, (0, 0, 0)), Duration::from_secs(9));
            }
            let pods = names[..ready]
                .iter()
                .map(|name| Reporter { name, ready: true });
            let now = Duration::from_secs(10);
            let measured = demand.measure(&settings(), pods, [].into_iter(), now);
            let told = (measured.silent, measured.mostly_heard);
            assert_eq!(told, (silent, mostly), "{heard} of {ready}");
            assert_eq!(measured.heard, silent == 0);
        }
    }

    #[test]
    fn silence_is_unknown_and_gone_reporters_are_forgotten() {
        let at = Duration::from_secs;
        let mut demand = demand();
        let unknown = measure(&mut demand, 0);
        assert_eq!((unknown.heard, unknown.oldest), (false, None));
        demand.pod_reported("p", &report(1, SEC, (7, 0, 0)), at(1));
        demand.pod_reported("gone", &report(2, SEC, (3, 0, 0)), at(1));
        assert!(measure(&mut demand, 4).heard);
        let late = measure(&mut demand, 5);
        assert_eq!((late.heard, late.oldest), (false, Some(at(4))));
        assert_eq!(late.totals.in_flight, 7);
    }

    #[test]
    fn other_windows_start_empty_and_say_so() {
        let mut demand = demand();
        demand.pod_reported(
            "p",
            &report(1, 8 * SEC, (2, 16 * SEC, 4)),
            Duration::from_secs(8),
        );
        assert!(!measure(&mut demand, 8).restarted);
        let now = Duration::from_secs(8);
        let other = demand.measure(&Settings::default(), [].into_iter(), [].into_iter(), now);
        assert_eq!((other.restarted, other.stable), (true, 0.0));
    }

    #[test]
    fn connections_round_the_queue_proxy_are_remembered_for_a_window() {
        let mut demand = demand();
        let seen = QueueProxyReport {
            bypass: 1,
            ..report(1, SEC, (0, 0, 0))
        };
        demand.pod_reported("p", &seen, Duration::from_secs(1));
        demand.pod_reported("p", &report(1, 2 * SEC, (0, 0, 0)), Duration::from_secs(2));
        assert!(measure(&mut demand, 11).totals.bypassed);
        assert!(!measure(&mut demand, 12).totals.bypassed);
    }

    #[test]
    fn what_an_activator_held_that_is_gone_is_not_held_any_more() {
        let mut demand = demand();
        demand.activator_reported("a", (None, hearing(1, 1)), &held(3, 0));
        let there = |name| Reporter { name, ready: true };
        demand.keep_only(&[].into_iter(), &[there("a"), there("b")].into_iter());
        assert_eq!(demand.held(), 3);
        demand.keep_only(&[].into_iter(), &[there("b")].into_iter());
        assert_eq!((demand.held(), demand.held_since()), (0, None));
    }

    fn hearing(complete: u64, secs: u64) -> Hearing {
        Hearing {
            boot: 1,
            complete,
            now_us: secs * SEC,
            at: Duration::from_secs(secs),
        }
    }

    fn held(in_flight: u64, in_flight_us: u64) -> HeldWorkload {
        HeldWorkload {
            namespace: "d".into(),
            name: "shop".into(),
            uid: "u".into(),
            ports: vec![10_001],
            held: Load {
                in_flight,
                in_flight_us,
                requests: in_flight,
            },
            forwarding: 2,
            held_for_us: 400_000,
            woken: None,
        }
    }

    #[test]
    fn what_an_activator_leaves_out_is_as_it_was_until_its_last_report() {
        let mut demand = demand();
        let measure = |demand: &mut Demand, hearing, secs| {
            let a = Reporter {
                name: "a",
                ready: true,
            };
            let activators = [(a, Some(hearing))].into_iter();
            let now = Duration::from_secs(secs);
            demand.measure(&settings(), [].into_iter(), activators, now)
        };
        demand.activator_reported("a", (None, hearing(1, 1)), &held(0, 0));
        // Nothing about this workload until second 99.
        assert!(measure(&mut demand, hearing(1, 99), 100).heard);
        let silent = measure(&mut demand, hearing(1, 99), 103);
        assert!(!silent.heard, "the activator says nothing");
        let left_out = measure(&mut demand, hearing(2, 99), 100);
        assert!(!left_out.heard, "it knows the workload no more");
        // Of second 99 to 100 it says that one was held throughout.
        let reports = (Some(hearing(1, 99)), hearing(1, 100));
        demand.activator_reported("a", reports, &held(1, SEC));
        let now = measure(&mut demand, hearing(1, 100), 100);
        assert!((now.panic - 1.0).abs() < 1e-9, "{now:?}");
        assert!(
            (now.stable - 0.1).abs() < 1e-9,
            "nine idle seconds: {now:?}"
        );
    }

    #[test]
    fn held_counts_as_demand_and_tells_its_ports() {
        let mut demand = demand();
        let now = hearing(1, 1);
        demand.activator_reported("a", (None, now), &held(5, 0));
        let totals = demand.totals(now.at);
        assert_eq!(
            (totals.held, totals.in_flight, totals.forwarding),
            (5, 5, 2)
        );
        assert_eq!(demand.held_since(), Some(Duration::from_millis(600)));
        assert!(demand.listens(("a", now), [10_001].into_iter()));
        assert!(!demand.listens(("a", now), [10_002].into_iter()));
        assert!(!demand.listens(("b", now), [10_001].into_iter()));
        let later = Hearing { complete: 2, ..now };
        assert!(
            !demand.listens(("a", later), [10_001].into_iter()),
            "left out"
        );
        demand.activator_reported("a", (Some(now), hearing(2, 2)), &held(5, 0));
        assert!(
            demand.listens(("a", now), [10_001].into_iter()),
            "told before the whole report counts as heard"
        );
        let restarted = Hearing { boot: 2, ..now };
        assert!(!demand.listens(("a", restarted), [10_001].into_iter()));
    }
}
