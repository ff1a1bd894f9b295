//! How far a workload is, at one look: what the waits of [`Workload`] and those of longer suites look at.

use anyhow::{Context as _, ensure};
use lull_contract::scaled_workload::{ScaledWorkloadStatus, State};

use crate::{Workload, cluster::is_ready, workload::has_sidecar};

// === impl Workload ===

impl Workload {
    /// Fails unless every wanted replica is of the newest template and ready; returns how many.
    ///
    /// # Errors
    /// With how far the rollout is.
    pub async fn is_rolled_out(&self) -> anyhow::Result<i64> {
        let object = self.object_json().await?;
        let (spec, status) = (&object["spec"], &object["status"]);
        // What is 0 is left out.
        let count = |key: &str| status[key].as_i64().unwrap_or_default();
        let wanted = spec["replicas"].as_i64().unwrap_or_default();
        let (updated, ready, all) = (
            count("updatedReplicas"),
            count("readyReplicas"),
            count("replicas"),
        );
        let (generation, observed) = (
            &object["metadata"]["generation"],
            &status["observedGeneration"],
        );
        ensure!(
            observed == generation && (updated, ready, all) == (wanted, wanted, wanted),
            "wanted {wanted}, updated {updated}, ready {ready}, all {all}, generation \
             {generation} of which {observed} observed",
        );
        Ok(wanted)
    }

    /// Fails unless Lull runs the workload: its Service is switched.
    ///
    /// # Errors
    /// With what Lull says.
    pub async fn is_enrolled(&self) -> anyhow::Result<()> {
        let status = self.status().await?;
        ensure!(
            !matches!(
                status.state,
                State::Enrolling | State::Leaving | State::Planned
            ) && !status.services.is_empty(),
            "state {}, services {:?}, reason {:?}",
            status.state,
            status.services,
            status.reason
        );
        Ok(())
    }

    /// Fails unless there are ready pods, and all of them have a sidecar or, where `with_sidecar` is false,
    /// none has.
    ///
    /// # Errors
    /// With which of them have one.
    pub async fn runs(&self, with_sidecar: bool) -> anyhow::Result<()> {
        let mut pods = self.pods().await?;
        pods.retain(is_ready);
        let is_so = pods.iter().all(|pod| has_sidecar(pod) == with_sidecar);
        ensure!(
            !pods.is_empty() && is_so,
            "with a sidecar: {with_sidecar}? {:?}",
            pods.iter().map(has_sidecar).collect::<Vec<_>>()
        );
        Ok(())
    }

    /// Fails unless the workload sleeps: no replicas, and Lull says so.
    ///
    /// # Errors
    /// With what Lull says.
    pub async fn is_asleep(&self) -> anyhow::Result<()> {
        let replicas = self.replicas().await?;
        let status = self.status().await?;
        ensure!(
            replicas == 0 && status.state == State::Asleep,
            "{replicas} replicas, state {}, reason {:?}",
            status.state,
            status.reason
        );
        Ok(())
    }

    /// What Lull says of the workload.
    ///
    /// # Errors
    /// Where it says nothing, or can't be asked.
    pub async fn status(&self) -> anyhow::Result<ScaledWorkloadStatus> {
        let scaled = self.scaled().await?.context("there is no ScaledWorkload")?;
        scaled.status.context("its ScaledWorkload has no status")
    }

    /// What Lull says of the workload, in a line.
    pub async fn status_line(&self) -> String {
        match self.scaled().await {
            Ok(Some(scaled)) => {
                let status = scaled.status.unwrap_or_default();
                format!(
                    "mode {}, state {}, ready {}, desired {}, in flight {}, held {}: {}",
                    status.mode,
                    status.state,
                    status.ready,
                    status.desired,
                    status.in_flight,
                    status.held,
                    status.reason
                )
            }
            Ok(None) => "no ScaledWorkload".to_owned(),
            Err(error) => format!("{error:#}"),
        }
    }
}
