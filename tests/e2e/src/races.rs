//! The race suite: everything that Lull and its user do, at once and in an order that a seed repeats,
//! while every request of a steady load is counted by its outcome.
//!
//! ```text
//! lanes (one for each workload)          disruptions (one at a time)
//!   switches     Proxy <-> Serve           rollout, eviction and kill of a workload's pods
//!   sleepers     bursts from zero          kill, end and rollout of Lull's components
//!   enrolments   enrol, leave              API server or controllers stand still
//! ```
//!
//! A lane ends when its acts are done or the time is over; the disruptions end with the last lane.

mod disruptions;
mod lanes;
mod length;
mod tally;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::ensure;
use parking_lot::Mutex;
use sample_app::wire::{RunResult, RunSpec};

use self::tally::{Kill, Loaded, Tally};
pub use self::{
    disruptions::{Targets, disrupt, evict_pod, kill_pod},
    lanes::{enrolments, is_switched, sleeps, switches},
    length::{Length, Shape},
    tally::Act,
};
use crate::{Agent, Workload, agent::Run, eventually};

/// Longest time of a request: it may be held while nothing can wake its workload.
const REQUEST: Duration = Duration::from_secs(150);

/// One run of the suite.
#[derive(Debug)]
pub struct Race {
    /// How long it lasts.
    pub length: Length,
    started: Instant,
    tally: Mutex<Tally>,
    /// Loads that run, each with its workload.
    running: Mutex<Vec<(String, RunSpec)>>,
    lanes: AtomicUsize,
    /// Something went wrong: the rest ends early.
    is_cut: AtomicBool,
}

/// The loads of one workload: on kept connections, each request on its own, and HTTP/2 in clear.
#[derive(Debug)]
#[must_use = "loads that nobody stops are not counted"]
pub struct Steady<'a> {
    race: &'a Race,
    workload: String,
    runs: Vec<(RunSpec, Run<'a>)>,
}

// === impl Race ===

impl Race {
    /// One that begins now, with `lanes` lanes.
    #[must_use]
    pub fn new(length: Length, lanes: usize) -> Self {
        Self {
            length,
            started: Instant::now(),
            tally: Mutex::default(),
            running: Mutex::default(),
            lanes: AtomicUsize::new(lanes),
            is_cut: AtomicBool::new(false),
        }
    }

    /// Runs one of the lanes; one that fails ends the others.
    ///
    /// # Errors
    /// Those of the lane.
    pub async fn lane(&self, lane: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        let outcome = self.beside(lane).await;
        self.lanes.fetch_sub(1, Ordering::Relaxed);
        outcome
    }

    /// Runs what is no lane; where it fails the lanes end.
    ///
    /// # Errors
    /// Its own.
    pub async fn beside(
        &self,
        other: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let outcome = other.await;
        outcome.inspect_err(|_| self.is_cut.store(true, Ordering::Relaxed))
    }

    /// Whether a lane begins `act` once more.
    #[must_use]
    pub fn goes_on(&self, act: Act) -> bool {
        let mut quotas = self.length.quotas.iter().copied().flatten();
        let quota = quotas.find(|(of, _)| *of == act).map(|(_, count)| *count);
        self.is_on() && quota.is_none_or(|count| self.tally.lock().done(act) < count)
    }

    /// Whether disruptions go on: while a lane runs and its time is not over.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        self.is_on() && self.lanes.load(Ordering::Relaxed) > 0
    }

    fn is_on(&self) -> bool {
        !self.is_cut.load(Ordering::Relaxed) && self.started.elapsed() < self.length.longest
    }

    /// Counts something that was done.
    pub fn did(&self, act: Act) {
        self.tally.lock().did(act);
    }

    /// Kills by `kill` a process that had requests of `workload` alone, or of any that come by activators,
    /// and takes note of when; `refuses`: callers connect to the process itself.
    ///
    /// # Errors
    /// Those of `kill`.
    pub fn kill(
        &self,
        (act, workload, refuses): (Act, Option<&Workload>, bool),
        kill: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let second = || sample_app::unix_us() / 1_000_000;
        let from = second();
        let outcome = kill();
        self.tally.lock().killed(Kill {
            act,
            workload: workload.map(|workload| workload.name.clone()),
            refuses,
            seconds: (from, second()),
            again: None,
        });
        outcome
    }

    /// What was killed last is ready again.
    fn is_back(&self) {
        let now = sample_app::unix_us() / 1_000_000;
        self.tally.lock().again(now);
    }

    /// Waits for what must come.
    ///
    /// # Errors
    /// Where it doesn't, with what was seen last.
    pub async fn until<T>(
        &self,
        what: &str,
        check: impl AsyncFnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        eventually(what, self.length.follow(), check).await
    }

    /// Sets annotations until the API server takes them; `None` removes one.
    ///
    /// # Errors
    /// Where it doesn't.
    pub async fn annotate(
        &self,
        workload: &Workload,
        annotations: &[(&str, Option<&str>)],
    ) -> anyhow::Result<()> {
        let what = format!("the annotations of {} to be taken", workload.name);
        let set = async || workload.annotate(annotations).await;
        self.until(&what, set).await
    }

    /// Starts the loads of a workload.
    ///
    /// # Errors
    /// Where the agent refuses one.
    pub async fn steady<'a>(
        &'a self,
        agent: &'a Agent,
        (workload, shape): (&Workload, Shape),
    ) -> anyhow::Result<Steady<'a>> {
        agent
            .is_answered(&workload.url("/"), self.length.follow())
            .await?;
        let mut runs = Vec::new();
        for spec in shape.specs(workload) {
            let run = agent.start(&spec).await?;
            let place = (workload.name.clone(), spec.clone());
            self.running.lock().push(place);
            runs.push((spec, run));
        }
        let steady = Steady {
            race: self,
            workload: workload.name.clone(),
            runs,
        };
        let what = format!("the loads of {} to be under way", workload.name);
        self.until(&what, async || steady.is_under_way().await)
            .await?;
        Ok(steady)
    }

    /// Waits until so many workloads have a steady load, so that nothing is set up any more.
    ///
    /// # Errors
    /// Where they don't come.
    pub async fn all_steady(&self, workloads: usize) -> anyhow::Result<()> {
        self.until("every steady load", async || {
            let running = self.running.lock();
            let steady = running.iter().filter(|(_, load)| load.rate.is_some());
            let names: BTreeSet<&String> = steady.map(|(name, _)| name).collect();
            // Where a lane has failed nobody else comes.
            let is_on = !self.is_cut.load(Ordering::Relaxed);
            ensure!(names.len() == workloads || !is_on, "so far {names:?}");
            Ok(())
        })
        .await
    }

    /// A load with an end, on a workload that may be asleep.
    ///
    /// # Errors
    /// Where the agent refuses it or it doesn't end.
    pub async fn burst(
        &self,
        agent: &Agent,
        workload: &Workload,
        spec: &RunSpec,
    ) -> anyhow::Result<()> {
        let place = (workload.name.clone(), spec.clone());
        self.running.lock().push(place);
        let result = agent.run(spec).await;
        let mut running = self.running.lock();
        let ended = running
            .iter()
            .position(|(name, of)| *name == workload.name && of.requests == spec.requests);
        ended.map(|index| running.swap_remove(index));
        drop(running);
        self.loaded(&workload.name, (spec, result?));
        Ok(())
    }

    fn loaded(&self, workload: &str, (spec, result): (&RunSpec, RunResult)) {
        let load = Loaded::new(workload, spec, result);
        self.tally.lock().loaded(load);
    }

    /// What was done and what became of it, for people.
    #[must_use]
    pub fn table(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        format!("\n{seconds} s of races\n{}", self.tally.lock().table())
    }

    /// Fails where a request failed that no kill excuses, and where something was not done often enough.
    ///
    /// # Errors
    /// With all of that.
    pub fn check(&self) -> anyhow::Result<()> {
        let tally = self.tally.lock();
        let mut faults = tally.faults();
        let once = [Act::Switch, Act::SleepAndWake, Act::Enrol, Act::Leave].map(|act| (act, 1));
        for (act, least) in self.length.quotas.unwrap_or(&once) {
            let done = tally.done(*act);
            if done < *least {
                faults.push(format!("{act}: {done} times, {least} were to be"));
            }
        }
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    }
}

// === impl Steady ===

impl Steady<'_> {
    async fn is_under_way(&self) -> anyhow::Result<()> {
        for (_, run) in &self.runs {
            let ok = run.so_far().await?.ok;
            ensure!(ok >= 3, "{ok} answers");
        }
        Ok(())
    }

    /// Ends them and counts what became of their requests.
    ///
    /// # Errors
    /// Where they don't end.
    pub async fn stop(self) -> anyhow::Result<()> {
        for (spec, run) in self.runs {
            let result = run.stop().await?;
            self.race.loaded(&self.workload, (&spec, result));
        }
        let mut running = self.race.running.lock();
        running.retain(|(name, _)| *name != self.workload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_goes_on_until_its_quota_or_the_time_or_a_failure() {
        let race = Race::new(Length::full(), 1);
        assert!(race.goes_on(Act::Leave) && race.is_disturbed());
        for _ in 0..50 {
            race.did(Act::Leave);
        }
        assert!(!race.goes_on(Act::Leave) && race.goes_on(Act::Enrol));
        // What has no quota goes on.
        assert!(race.goes_on(Act::RollOut));
        race.is_cut.store(true, Ordering::Relaxed);
        assert!(!race.goes_on(Act::Enrol) && !race.is_disturbed());
        assert!(race.check().is_err());
    }
}
