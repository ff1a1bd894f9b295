//! What was done and what became of the requests: which failures a kill excuses, and which nothing does.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use sample_app::wire::{Failure, RunResult, RunSpec};

/// What was in flight in a process fails when the kernel closes its connections: for so many seconds
/// after a kill, on a machine that is busy.
const IN_FLIGHT_SECONDS: u64 = 2;
/// Seconds in which callers are refused by a process that has been killed: until kubelet has seen its end
/// (1 s), and kube-proxy has been told (1 s more) or the process is there again, on a machine that is busy.
const REFUSED_SECONDS: u64 = 3;
/// The same at most where the process was seen to be ready again only later than that, on a machine that is slow.
const REFUSED_SECONDS_AT_MOST: u64 = 6;

/// Something that was done to workloads or to what they depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// From Serve to Proxy mode or back, pods present.
    Switch,
    /// A switch that was wanted back before it had come to its end.
    TurnBack,
    /// To zero pods and, by a burst of requests, back.
    SleepAndWake,
    /// A burst while the workload was on its way to zero pods.
    CallInTime,
    /// A plain workload was given to Lull.
    Enrol,
    /// And taken back.
    Leave,
    /// A workload's template was changed.
    RollOut,
    /// A workload's pod was evicted.
    EvictPod,
    /// Every process of a workload's pod was killed.
    KillPod,
    /// A workload's user scaled it.
    ScaleByHand,
    /// An activator's process was killed.
    KillActivator,
    /// An activator's pod was deleted.
    EndActivator,
    /// All activators were replaced.
    RollOutActivators,
    /// An autoscaler's process was killed.
    KillAutoscaler,
    /// All autoscalers were replaced.
    RollOutAutoscalers,
    /// A webhook's process was killed.
    KillWebhook,
    /// All webhooks were replaced.
    RollOutWebhooks,
    /// The API server stood still.
    PauseApiServer,
    /// The controllers of Kubernetes stood still.
    PauseControllers,
}

/// A process that was killed without a warning.
#[derive(Debug, Clone)]
pub(super) struct Kill {
    /// What was done.
    pub(super) act: Act,
    /// The only workload whose requests it had; `None`: any, of those that went by activators.
    pub(super) workload: Option<String>,
    /// Callers connect to it themselves, and nobody else tries again for them.
    pub(super) refuses: bool,
    /// From before it was killed until it was, seconds since 1970.
    pub(super) seconds: (u64, u64),
    /// When it was seen to be ready again.
    pub(super) again: Option<u64>,
}

/// A load that has ended.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    /// Who was called.
    pub(super) workload: String,
    /// Most requests that it had in flight at any time.
    pub(super) in_flight: u64,
    /// Requests that it begins in a second at most; none: as fast as it can.
    rate: Option<u64>,
    /// All that it has.
    requests: u64,
    /// What came of it.
    pub(super) result: RunResult,
}

/// What of one load's requests a kill has cost.
#[derive(Debug, Default, Clone, Copy)]
struct Cost {
    /// They were in flight in it.
    in_flight: u64,
    /// It refused them.
    refused: u64,
}

/// Everything that was done, and all requests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    acts: BTreeMap<Act, u64>,
    kills: Vec<Kill>,
    loads: Vec<Loaded>,
}

/// Sums over one workload's loads.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sums {
    sent: u64,
    ok: u64,
    failed: u64,
    excused: u64,
    via_activator: u64,
    connections: u64,
}

// === impl Act ===

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Switch => "switched Proxy <-> Serve",
            Self::TurnBack => "switch turned back half way",
            Self::SleepAndWake => "slept and woken",
            Self::CallInTime => "called while falling asleep",
            Self::Enrol => "enrolled",
            Self::Leave => "left",
            Self::RollOut => "workload rolled out",
            Self::EvictPod => "pod evicted",
            Self::KillPod => "pod killed (-9)",
            Self::ScaleByHand => "scaled by its user",
            Self::KillActivator => "activator killed (-9)",
            Self::EndActivator => "activator ended",
            Self::RollOutActivators => "activators rolled out",
            Self::KillAutoscaler => "autoscaler killed (-9)",
            Self::RollOutAutoscalers => "autoscalers rolled out",
            Self::KillWebhook => "webhook killed (-9)",
            Self::RollOutWebhooks => "webhooks rolled out",
            Self::PauseApiServer => "API server paused",
            Self::PauseControllers => "controllers paused",
        })
    }
}

// === impl Kill ===

impl Kill {
    /// Whether that may have become of one of `load`'s requests by it, in that `second`.
    ///
    /// Callers connect to activators themselves, so there they are cut off or refused; a pod in Proxy mode
    /// has activators before it, which say that it broke, and try another one for whoever hasn't reached it.
    fn excuses(
        &self,
        (load, by_activators): (&Loaded, bool),
        (second, failure): (u64, Failure),
    ) -> bool {
        let later = match (self.act, failure) {
            (Act::KillActivator | Act::KillPod, Failure::Cut)
            | (Act::KillPod, Failure::BadGateway) => IN_FLIGHT_SECONDS,
            (Act::KillActivator | Act::KillPod, Failure::Unconnected) if self.refuses => {
                self.refused_seconds()
            }
            _ => return false,
        };
        let had_some = match &self.workload {
            Some(only) => *only == load.workload,
            None => by_activators,
        };
        let (from, to) = self.seconds;
        had_some && (from..=to + later).contains(&second)
    }

    /// For so long after it callers are refused.
    fn refused_seconds(&self) -> u64 {
        let (_, killed) = self.seconds;
        let until_again = self.again.map(|again| again.saturating_sub(killed));
        let seconds = until_again.unwrap_or(REFUSED_SECONDS);
        seconds.clamp(REFUSED_SECONDS, REFUSED_SECONDS_AT_MOST)
    }
}

// === impl Loaded ===

impl Loaded {
    /// What came of `spec`, of `workload`.
    pub(super) fn new(workload: &str, spec: &RunSpec, result: RunResult) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "hundreds"
        )]
        let rate = spec.rate.map(|rate| rate.ceil() as u64);
        Self {
            workload: workload.to_owned(),
            in_flight: u64::from(spec.connections) * u64::from(spec.streams),
            rate,
            requests: spec.requests.unwrap_or(u64::MAX),
            result,
        }
    }

    /// Most requests that it can have begun in so many seconds.
    fn begun_within(&self, seconds: u64) -> u64 {
        let all = self.requests;
        self.rate.map_or(all, |rate| all.min(rate * seconds))
    }

    /// Every sort of failure that there was, with its second and how often.
    fn failures(&self) -> impl Iterator<Item = ((u64, Failure), u64)> {
        let seconds = self.result.failed_by_second.iter();
        seconds.flat_map(|(second, failures)| {
            let failures = failures.iter();
            failures.map(move |(failure, count)| ((*second, *failure), *count))
        })
    }
}

// === impl Tally ===

impl Tally {
    /// Counts something that was done.
    pub(super) fn did(&mut self, act: Act) {
        *self.acts.entry(act).or_default() += 1;
    }

    /// How often it was done.
    #[must_use]
    pub(super) fn done(&self, act: Act) -> u64 {
        self.acts.get(&act).copied().unwrap_or_default()
    }

    /// Takes note of a kill.
    pub(super) fn killed(&mut self, kill: Kill) {
        self.kills.push(kill);
    }

    /// Takes note of when what was killed last is ready again.
    pub(super) fn again(&mut self, second: u64) {
        if let Some(last) = self.kills.last_mut() {
            last.again = Some(second);
        }
    }

    /// Takes note of a load that has ended.
    pub(super) fn loaded(&mut self, load: Loaded) {
        self.loads.push(load);
    }

    /// What should not have been: requests that nobody answered for, and kills that cost a load more than
    /// they had of it.
    #[must_use]
    pub(super) fn faults(&self) -> Vec<String> {
        self.loads
            .iter()
            .flat_map(|load| self.faults_of(load))
            .collect()
    }

    fn faults_of(&self, load: &Loaded) -> Vec<String> {
        let Loaded {
            workload, result, ..
        } = load;
        let (mut faults, mut of_kills) = (Vec::new(), vec![Cost::default(); self.kills.len()]);
        if !result.done || result.ok + result.failed != result.sent {
            let RunResult {
                sent, ok, failed, ..
            } = result;
            faults.push(format!(
                "{workload}: {sent} sent, {ok} answered, {failed} failed"
            ));
        }
        let mut unexcused = 0_u64;
        for (failed, count) in load.failures() {
            match self.excuse(load, failed) {
                Some(kill) if failed.1 == Failure::Unconnected => of_kills[kill].refused += count,
                Some(kill) => of_kills[kill].in_flight += count,
                None => unexcused += count,
            }
        }
        if unexcused > 0 {
            faults.push(format!(
                "{workload}: {unexcused} requests failed and no kill excuses them; in seconds {:?}: \
                 {:?}, by status {:?}; kills: {}",
                result.failed_by_second,
                result.errors,
                result.by_status,
                self.kills_for_people()
            ));
        }
        for (kill, cost) in self.kills.iter().zip(of_kills) {
            faults.extend(too_much(kill, cost, load));
        }
        faults
    }

    /// The kill that a failure belongs to: the last of those that can have caused it, since what an
    /// earlier one had has mostly failed by then.
    fn excuse(&self, load: &Loaded, failed: (u64, Failure)) -> Option<usize> {
        let by_activators = self.has_been_at_activators(&load.workload);
        let mut kills = self.kills.iter();
        kills.rposition(|kill| kill.excuses((load, by_activators), failed))
    }

    /// A workload of which no activator has ever answered a request has had none at them.
    fn has_been_at_activators(&self, workload: &str) -> bool {
        let mut loads = self.loads.iter();
        loads.any(|load| load.workload == workload && load.result.via_activator > 0)
    }

    fn kills_for_people(&self) -> String {
        let kills = self.kills.iter().map(|kill| {
            let Kill {
                act,
                seconds: (from, to),
                ..
            } = kill;
            format!("{act} {from}-{to}")
        });
        kills.collect::<Vec<_>>().join(", ")
    }

    fn sums(&self) -> BTreeMap<&str, Sums> {
        let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
        for load in &self.loads {
            let excused = load.failures();
            let excused = excused.filter(|(failed, _)| self.excuse(load, *failed).is_some());
            let excused: u64 = excused.map(|(_, count)| count).sum();
            let Loaded {
                workload, result, ..
            } = load;
            let sum = sums.entry(workload).or_default();
            *sum = Sums {
                sent: sum.sent + result.sent,
                ok: sum.ok + result.ok,
                failed: sum.failed + result.failed,
                excused: sum.excused + excused,
                via_activator: sum.via_activator + result.via_activator,
                connections: sum.connections + result.connections_opened,
            };
        }
        sums
    }

    /// What was done and what became of the requests, for people.
    #[must_use]
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        for (act, count) in &self.acts {
            let _ = writeln!(text, "{act:<34}{count:>8}");
        }
        let _ = writeln!(
            text,
            "\n{:<20}{:>9}{:>10}{:>8}{:>10}{:>15}{:>13}",
            "requests of", "sent", "answered", "failed", "by kills", "via activator", "connections"
        );
        for (name, sum) in self.sums() {
            let Sums {
                sent,
                ok,
                failed,
                excused,
                via_activator,
                connections,
            } = sum;
            let _ = writeln!(
                text,
                "{name:<20}{sent:>9}{ok:>10}{failed:>8}{excused:>10}{via_activator:>15}{connections:>13}"
            );
        }
        text
    }
}

/// Where a kill has cost more of a load than it can have had.
fn too_much(kill: &Kill, cost: Cost, load: &Loaded) -> Vec<String> {
    let (act, workload) = (kill.act, &load.workload);
    let mut faults = Vec::new();
    for (what, count, most) in [
        ("were in flight in it", cost.in_flight, load.in_flight),
        (
            "were refused by it",
            cost.refused,
            load.begun_within(kill.refused_seconds()),
        ),
    ] {
        if count > most {
            faults.push(format!(
                "{act}: {count} requests of {workload} failed, at most {most} {what}"
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of three connections and two requests a second.
    fn load(workload: &str, failures: &[(u64, Failure, u64)]) -> Loaded {
        let failed: u64 = failures.iter().map(|(.., count)| count).sum();
        let mut result = RunResult {
            done: true,
            sent: 100,
            ok: 100 - failed,
            failed,
            via_activator: 1,
            ..RunResult::default()
        };
        for (second, failure, count) in failures {
            let all = result.failed_by_second.entry(*second).or_default();
            *all.entry(*failure).or_default() += count;
        }
        let spec = RunSpec {
            connections: 3,
            rate: Some(2.0),
            ..RunSpec::default()
        };
        Loaded::new(workload, &spec, result)
    }

    fn kill(workload: Option<&str>, second: u64) -> Kill {
        let act = match workload {
            Some(_) => Act::KillPod,
            None => Act::KillActivator,
        };
        Kill {
            act,
            workload: workload.map(str::to_owned),
            refuses: workload.is_none(),
            seconds: (second, second),
            again: None,
        }
    }

    fn faults(kills: &[Kill], loads: impl IntoIterator<Item = Loaded>) -> Vec<String> {
        let mut tally = Tally::default();
        kills.iter().cloned().for_each(|kill| tally.killed(kill));
        loads.into_iter().for_each(|load| tally.loaded(load));
        tally.faults()
    }

    #[test]
    fn a_kill_excuses_what_it_had_of_each_load_and_nothing_else() {
        use Failure::{Cut, Unconnected};
        let activator = |second| kill(None, second);
        let rows = [
            (vec![], vec![], 0),
            (vec![], vec![(50, Cut, 1)], 1),
            (vec![activator(50)], vec![(50, Cut, 2), (52, Cut, 1)], 0),
            (vec![activator(50)], vec![(50, Cut, 4)], 1),
            (vec![activator(50)], vec![(53, Cut, 1)], 1),
            (vec![activator(50)], vec![(49, Cut, 1)], 1),
            (vec![activator(50)], vec![(53, Unconnected, 6)], 0),
            (vec![activator(50)], vec![(53, Unconnected, 7)], 1),
            (vec![activator(50)], vec![(54, Unconnected, 1)], 1),
            (
                vec![activator(50), activator(54)],
                vec![(51, Cut, 3), (54, Cut, 3)],
                0,
            ),
            (
                vec![activator(50), activator(54)],
                vec![(51, Cut, 3), (54, Cut, 4)],
                1,
            ),
        ];
        for (kills, failures, expected) in rows {
            let faults = faults(&kills, [load("shop", &failures)]);
            assert_eq!(faults.len(), expected, "{failures:?}: {faults:?}");
        }
        let four = || load("shop", &[(50, Cut, 2)]);
        assert!(faults(&[activator(50)], [four(), four()]).is_empty());
    }

    #[test]
    fn a_kill_excuses_only_what_can_become_of_its_requests() {
        use Failure::{Answered, BadGateway, Cut, Late, Unconnected};
        let rows = [
            (Act::KillActivator, vec![Cut, Unconnected]),
            (Act::KillPod, vec![BadGateway, Cut]),
            (Act::KillAutoscaler, vec![]),
            (Act::KillWebhook, vec![]),
        ];
        for (act, excused) in rows {
            for failure in [Unconnected, Cut, BadGateway, Answered, Late] {
                let kill = Kill {
                    act,
                    refuses: act == Act::KillActivator,
                    ..kill(None, 50)
                };
                let faults = faults(&[kill], [load("shop", &[(50, failure, 1)])]);
                let is_excused = excused.contains(&failure);
                assert_eq!(faults.is_empty(), is_excused, "{act} {failure:?}");
            }
        }
    }

    #[test]
    fn a_pod_that_callers_connect_to_themselves_refuses_them() {
        let refused = || load("shop", &[(51, Failure::Unconnected, 1)]);
        let behind_activators = kill(Some("shop"), 50);
        let itself = Kill {
            refuses: true,
            ..behind_activators.clone()
        };
        assert!(faults(&[itself], [refused()]).is_empty());
        assert_eq!(faults(&[behind_activators], [refused()]).len(), 1);
    }

    #[test]
    fn who_had_nothing_in_the_process_is_not_excused() {
        let cut = |workload| load(workload, &[(50, Failure::Cut, 1)]);
        assert!(faults(&[kill(Some("shop"), 50)], [cut("shop")]).is_empty());
        assert_eq!(faults(&[kill(Some("other"), 50)], [cut("shop")]).len(), 1);
        // In Serve mode all the time.
        let served = || {
            let mut served = cut("shop");
            served.result.via_activator = 0;
            served
        };
        assert_eq!(faults(&[kill(None, 50)], [served()]).len(), 1);
        // Another load of its has been at activators, so this one may have been on its way there.
        assert!(faults(&[kill(None, 50)], [served(), load("shop", &[])]).is_empty());
    }

    #[test]
    fn callers_are_refused_until_the_process_is_seen_again_and_not_for_ever() {
        // Three seconds are excused in any case, and six at most.
        for (again, refused_for) in [(None, 3), (Some(51), 3), (Some(55), 5), (Some(80), 6)] {
            let slow = || Kill {
                again,
                ..kill(None, 50)
            };
            let in_second = |second| load("shop", &[(second, Failure::Unconnected, 1)]);
            let (last, later) = (50 + refused_for, 51 + refused_for);
            assert!(faults(&[slow()], [in_second(last)]).is_empty(), "{again:?}");
            assert_eq!(faults(&[slow()], [in_second(later)]).len(), 1, "{again:?}");
            // Of two requests a second.
            let all = load("shop", &[(51, Failure::Unconnected, 2 * refused_for)]);
            let more = load("shop", &[(51, Failure::Unconnected, 2 * refused_for + 1)]);
            assert!(faults(&[slow()], [all]).is_empty(), "{again:?}");
            assert_eq!(faults(&[slow()], [more]).len(), 1, "{again:?}");
        }
    }

    #[test]
    fn a_kill_that_takes_long_excuses_what_fails_until_it_is_done() {
        let slow = Kill {
            seconds: (50, 52),
            ..kill(None, 50)
        };
        let at = |second| load("shop", &[(second, Failure::Cut, 1)]);
        assert!(faults(std::slice::from_ref(&slow), [at(50), at(54)]).is_empty());
        assert_eq!(faults(&[slow], [at(49), at(55)]).len(), 2);
    }

    #[test]
    fn a_request_without_an_outcome_is_a_fault() {
        let mut tally = Tally::default();
        let mut lost = load("shop", &[]);
        lost.result.ok -= 1;
        tally.loaded(lost);
        assert_eq!(tally.faults().len(), 1);
    }

    #[test]
    fn the_table_has_every_act_and_the_sums_of_each_workload() {
        let mut tally = Tally::default();
        for _ in 0..3 {
            tally.did(Act::Switch);
        }
        tally.killed(kill(None, 50));
        tally.loaded(load("shop", &[(50, Failure::Cut, 2)]));
        tally.loaded(load("shop", &[]));
        let text = tally.table();
        assert_eq!((tally.done(Act::Switch), tally.done(Act::Leave)), (3, 0));
        let first: Vec<&str> = text.lines().take(1).collect();
        assert_eq!(
            first,
            [format!("{:<34}{:>8}", "switched Proxy <-> Serve", 3)]
        );
        let shop = text.lines().last().unwrap();
        let columns: Vec<&str> = shop.split_whitespace().collect();
        assert_eq!(columns[..5], ["shop", "200", "198", "2", "2"]);
    }
}
