//! A load that two pods carry, for tests of what must not move them.

use std::time::Duration;

use anyhow::ensure;
use lull_contract::scaled_workload::State;
use sample_app::wire::{RunResult, RunSpec};

use crate::{Agent, App, Workload, agent::Run, all_answered, eventually};

/// Longest wait until two pods carry the load.
const FOLLOW: Duration = Duration::from_secs(60);

/// A load that is under way, and the two pods that carry it.
#[derive(Debug)]
pub struct TwoPods<'a> {
    busy: &'a Workload,
    pods: Vec<String>,
    /// The load.
    pub run: Run<'a>,
}

/// An app that has two pods at most.
#[must_use]
pub fn app(name: &str) -> App {
    App::new(name).annotate("lull.dev/max-scale", "2")
}

// === impl TwoPods ===

impl<'a> TwoPods<'a> {
    /// Calls `busy`, an [`app`] for two pods, for `longest` at most; returns when two pods carry that.
    ///
    /// # Errors
    /// Where they don't within a minute.
    pub async fn load(
        agent: &'a Agent,
        busy: &'a Workload,
        longest: Duration,
    ) -> anyhow::Result<Self> {
        let run = agent
            .start(&RunSpec {
                url: busy.url("/?sleep_ms=600"),
                connections: 150,
                seconds: Some(longest.as_secs_f64()),
                // Kept ones would all stay with the pod that was ready first.
                keep_alive: false,
                ..RunSpec::default()
            })
            .await?;
        eventually("two pods that carry the load", FOLLOW, async || {
            let status = busy.status().await?;
            let now = (status.state, status.ready);
            ensure!(now == (State::Awake, 2), "{now:?}");
            Ok(())
        })
        .await?;
        let pods = busy.ready_pods().await?;
        Ok(Self { busy, pods, run })
    }

    /// Ends the load.
    ///
    /// # Errors
    /// Unless these two pods still carried it, no others did meanwhile, and every request was answered.
    pub async fn stop(self) -> anyhow::Result<RunResult> {
        let Self { busy, pods, run } = self;
        let (replicas, now) = (busy.replicas().await?, busy.ready_pods().await?);
        ensure!(
            replicas == 2 && now == pods,
            "{replicas} replicas; ready were {pods:?}, are {now:?}"
        );
        let result = run.stop().await?;
        all_answered(&result)?;
        ensure!(
            result.by_pod.len() == 2,
            "others answered: {:?}",
            result.by_pod
        );
        Ok(result)
    }
}
