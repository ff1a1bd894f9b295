//! What was done and what became of the requests: which failures a kill excuses, and which nothing does.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use sample_app::wire::RunResult;

/// From a kill on, failures may be its own for so many seconds: what was in flight fails at once, and who
/// connects to the dead process is refused until kubelet has seen its end (1 s), kube-proxy has
/// been told (1 s more) or the process is there again.
const EXCUSED_SECONDS: u64 = 5;

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
    /// The only workload whose requests it had; `None`: any.
    pub(super) workload: Option<String>,
    /// When, seconds since 1970.
    pub(super) second: u64,
    /// Most requests that it can have had, or refused before anybody knew of its end.
    pub(super) most: u64,
}

/// A load that has ended.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    /// Who was called.
    pub(super) workload: String,
    /// What came of it.
    pub(super) result: RunResult,
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
    fn excuses(&self, workload: &str, second: u64) -> bool {
        // The clocks of caller and killer may be a second apart by rounding.
        let seconds = self.second.saturating_sub(1)..=self.second + EXCUSED_SECONDS;
        self.workload.as_deref().is_none_or(|only| only == workload) && seconds.contains(&second)
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

    /// Takes note of a load that has ended.
    pub(super) fn loaded(&mut self, load: Loaded) {
        self.loads.push(load);
    }

    /// What should not have been: requests that nobody answered for, and kills that cost more than
    /// they had.
    #[must_use]
    pub(super) fn faults(&self) -> Vec<String> {
        let (mut faults, mut of_kills) = (Vec::new(), vec![0_u64; self.kills.len()]);
        for Loaded { workload, result } in &self.loads {
            if !result.done || result.ok + result.failed != result.sent {
                let RunResult {
                    sent, ok, failed, ..
                } = result;
                faults.push(format!(
                    "{workload}: {sent} sent, {ok} answered, {failed} failed"
                ));
            }
            let mut unexcused = 0_u64;
            for (second, count) in &result.failed_by_second {
                match self.excuse(workload, *second) {
                    Some(kill) => of_kills[kill] += count,
                    None => unexcused += count,
                }
            }
            if unexcused > 0 {
                faults.push(format!(
                    "{workload}: {unexcused} requests failed and no kill excuses them; in seconds \
                     {:?}: {:?}, by status {:?}",
                    result.failed_by_second, result.errors, result.by_status
                ));
            }
        }
        let costly = self.kills.iter().zip(of_kills);
        faults.extend(
            costly
                .filter(|(kill, failed)| *failed > kill.most)
                .map(|(kill, failed)| {
                    let Kill { act, most, .. } = kill;
                    format!("{act}: {failed} requests failed, at most {most} were in it")
                }),
        );
        faults
    }

    /// The kill that a failure belongs to: the last of those that can have caused it, since what an
    /// earlier one had has mostly failed by then.
    fn excuse(&self, workload: &str, second: u64) -> Option<usize> {
        let mut kills = self.kills.iter();
        kills.rposition(|kill| kill.excuses(workload, second))
    }

    fn sums(&self) -> BTreeMap<&str, Sums> {
        let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
        for Loaded { workload, result } in &self.loads {
            let seconds = result.failed_by_second.iter();
            let excused = seconds.filter(|(second, _)| self.excuse(workload, **second).is_some());
            let excused: u64 = excused.map(|(_, count)| count).sum();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn load(workload: &str, failures: &[(u64, u64)]) -> Loaded {
        let failed: u64 = failures.iter().map(|(_, count)| count).sum();
        Loaded {
            workload: workload.to_owned(),
            result: RunResult {
                done: true,
                sent: 100,
                ok: 100 - failed,
                failed,
                failed_by_second: failures.iter().copied().collect(),
                ..RunResult::default()
            },
        }
    }

    fn kill(workload: Option<&str>, second: u64) -> Kill {
        Kill {
            act: Act::KillPod,
            workload: workload.map(str::to_owned),
            second,
            most: 3,
        }
    }

    #[test]
    fn a_kill_excuses_what_it_had_and_nothing_else() {
        let rows = [
            (vec![], load("shop", &[]), 0),
            (vec![], load("shop", &[(50, 1)]), 1),
            (vec![kill(None, 50)], load("shop", &[(50, 2), (55, 1)]), 0),
            (vec![kill(None, 50)], load("shop", &[(50, 4)]), 1),
            (vec![kill(None, 50)], load("shop", &[(56, 1)]), 1),
            (vec![kill(None, 50)], load("shop", &[(48, 1)]), 1),
            (vec![kill(Some("shop"), 50)], load("shop", &[(51, 1)]), 0),
            (vec![kill(Some("other"), 50)], load("shop", &[(51, 1)]), 1),
            (
                vec![kill(None, 50), kill(None, 54)],
                load("shop", &[(51, 3), (54, 3)]),
                0,
            ),
            (
                vec![kill(None, 50), kill(None, 54)],
                load("shop", &[(51, 3), (54, 4)]),
                1,
            ),
        ];
        for (kills, load, expected) in rows {
            let mut tally = Tally::default();
            kills.into_iter().for_each(|kill| tally.killed(kill));
            tally.loaded(load);
            let faults = tally.faults();
            assert_eq!(faults.len(), expected, "{faults:?}");
        }
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
        tally.loaded(load("shop", &[(50, 2)]));
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
