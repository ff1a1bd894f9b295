//! A GitOps controller: applies the same manifests again and again, whatever has become of them.

mod tool;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinSet;

pub use self::tool::{Applier, Tool};
use crate::{Cluster, eventually};

/// Its field manager.
pub const MANAGER: &str = "gitops";
/// Content type of server-side apply; JSON is YAML.
const APPLY: &str = "application/apply-patch+yaml";
/// More than two rounds and the time of their writes, on a busy machine.
const ROUNDS: Duration = Duration::from_secs(60);

/// Objects, each with the path of its kind's objects.
pub type Manifests = Vec<(String, Value)>;

/// Applies until it is dropped.
#[derive(Debug)]
pub struct Controller {
    state: Arc<Mutex<State>>,
    _task: JoinSet<()>,
}

#[derive(Debug, Default)]
struct State {
    manifests: Manifests,
    rounds: u64,
    errors: Vec<String>,
}

/// How a controller applies.
enum Means {
    /// As [`apply`] does.
    Itself(Cluster),
    /// By a user's tool.
    By(Applier),
}

/// Applies `manifests` once, by server-side apply that takes every field of theirs.
///
/// # Errors
/// Where the API server refuses one.
pub async fn apply(cluster: &Cluster, manifests: &Manifests) -> anyhow::Result<()> {
    for (path, object) in manifests {
        let name = object["metadata"]["name"]
            .as_str()
            .context("it has no name")?;
        let path = format!("{path}/{name}?fieldManager={MANAGER}&force=true");
        cluster.patch(&path, APPLY, object).await?;
    }
    Ok(())
}

// === impl Controller ===

impl Controller {
    /// Applies `manifests` every `period`, from now on.
    #[must_use]
    pub fn start(cluster: &Cluster, manifests: Manifests, period: Duration) -> Self {
        Self::start_with(Means::Itself(cluster.clone()), manifests, period)
    }

    /// The same by a user's tool.
    #[must_use]
    pub fn start_by(applier: Applier, manifests: Manifests, period: Duration) -> Self {
        Self::start_with(Means::By(applier), manifests, period)
    }

    fn start_with(means: Means, manifests: Manifests, period: Duration) -> Self {
        let state = Arc::new(Mutex::new(State {
            manifests,
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut rounds = tokio::time::interval(period);
            loop {
                rounds.tick().await;
                let manifests = shared.lock().manifests.clone();
                let outcome = means.apply(&manifests).await;
                let mut state = shared.lock();
                state.rounds += 1;
                state.errors.extend(outcome.err().map(|e| format!("{e:#}")));
            }
        });
        Self { state, _task: task }
    }

    /// Applies `manifests` instead, from the next round on.
    pub fn change(&self, manifests: Manifests) {
        self.state.lock().manifests = manifests;
    }

    /// Waits for two more ends of rounds, so that one has begun by now.
    ///
    /// # Errors
    /// Where they don't come, or one has failed since the start.
    pub async fn a_round(&self) -> anyhow::Result<u64> {
        let before = self.state.lock().rounds;
        eventually("the manifests to be applied", ROUNDS, async || {
            let rounds = self.state.lock().rounds;
            ensure!(rounds >= before + 2, "{rounds} rounds, {before} before");
            Ok(())
        })
        .await?;
        let state = self.state.lock();
        ensure!(state.errors.is_empty(), "refused: {:?}", state.errors);
        Ok(state.rounds)
    }
}

// === impl Means ===

impl Means {
    async fn apply(&self, manifests: &Manifests) -> anyhow::Result<()> {
        match self {
            Self::Itself(cluster) => apply(cluster, manifests).await,
            Self::By(applier) => applier.apply(manifests).await,
        }
    }
}
