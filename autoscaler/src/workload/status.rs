//! The status that people and activators see.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use lull_contract::scaled_workload::{ScaledWorkload, ScaledWorkloadStatus, State};
use serde_json::json;

use super::{Task, look::Look};
use crate::{context::WriteError, plan::PlannedService, purpose::Purpose};

/// Numbers alone are written at most this often.
const NUMBERS_EVERY: Duration = Duration::from_secs(2);

/// A status without numbers, for states that have their own driver.
#[derive(Debug)]
pub(super) struct Say {
    state: State,
    reason: &'static str,
}

// === impl Say ===

impl Say {
    pub(super) fn leaving(reason: &'static str) -> Self {
        Self {
            state: State::Leaving,
            reason,
        }
    }
}

// === impl Task ===

impl Task {
    pub(super) async fn write_status(
        &mut self,
        workload: &ScaledWorkload,
        look: &Look,
        (state, services, reason): (State, &[PlannedService], String),
    ) -> Result<(), WriteError> {
        let before = self.status_before(workload);
        let enrolled = state != State::Enrolling;
        let names = services
            .iter()
            .map(|service| service.name.clone())
            .collect();
        let status = ScaledWorkloadStatus {
            mode: state.mode(),
            state,
            ready: look.facts.ready,
            desired: look.facts.want,
            in_flight: look.facts.in_flight,
            held: look.facts.held,
            conditions: vec![enrolled_condition(&before, enrolled, &reason)],
            reason,
            // While a Service is away, it stays on the list: it is to be given back.
            services: if services.is_empty() {
                before.services.clone()
            } else {
                names
            },
            state_since: since(&before, state),
        };
        self.patch_status(workload, status).await
    }

    pub(super) async fn say(
        &mut self,
        workload: &ScaledWorkload,
        say: Say,
    ) -> Result<(), WriteError> {
        let before = self.status_before(workload);
        let status = ScaledWorkloadStatus {
            mode: say.state.mode(),
            state: say.state,
            reason: say.reason.to_owned(),
            state_since: since(&before, say.state),
            ..before
        };
        self.patch_status(workload, status).await
    }

    fn status_before(&self, workload: &ScaledWorkload) -> ScaledWorkloadStatus {
        match &self.status_written {
            Some((status, _)) => status.clone(),
            None => workload.status.clone().unwrap_or_default(),
        }
    }

    async fn patch_status(
        &mut self,
        workload: &ScaledWorkload,
        status: ScaledWorkloadStatus,
    ) -> Result<(), WriteError> {
        if let Some((written, at)) = &self.status_written {
            let numbers_only = without_numbers(written) == without_numbers(&status);
            let same = *written == status && workload.status.is_some();
            if same || (numbers_only && at.elapsed() < NUMBERS_EVERY) {
                return Ok(());
            }
        }
        let api: Api<ScaledWorkload> = self.api();
        let patch = json!({ "status": status });
        let name = workload.name_any();
        self.call(
            Purpose::WriteStatus,
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)),
        )
        .await?;
        self.status_written = Some((status, Instant::now()));
        Ok(())
    }
}

/// What is written at once when it changes.
fn without_numbers(status: &ScaledWorkloadStatus) -> ScaledWorkloadStatus {
    let state = status.state;
    // An awake workload's reason carries its load, which moves all the time.
    let reason = match state {
        State::Awake | State::Bursting => String::new(),
        _ => status.reason.clone(),
    };
    ScaledWorkloadStatus {
        state,
        mode: status.mode,
        ready: status.ready,
        desired: status.desired,
        services: status.services.clone(),
        reason,
        ..ScaledWorkloadStatus::default()
    }
}

fn since(before: &ScaledWorkloadStatus, state: State) -> Option<Time> {
    match &before.state_since {
        Some(time) if before.state == state => Some(time.clone()),
        _ => Some(Time(Timestamp::now())),
    }
}

fn enrolled_condition(before: &ScaledWorkloadStatus, enrolled: bool, reason: &str) -> Condition {
    let status = if enrolled { "True" } else { "False" };
    let last = before
        .conditions
        .iter()
        .find(|c| c.type_ == "Enrolled" && c.status == status);
    Condition {
        type_: "Enrolled".into(),
        status: status.into(),
        reason: if enrolled { "Enrolled" } else { "Waiting" }.into(),
        message: if enrolled {
            String::new()
        } else {
            reason.to_owned()
        },
        observed_generation: None,
        last_transition_time: last.map_or_else(
            || Time(Timestamp::now()),
            |c| c.last_transition_time.clone(),
        ),
    }
}
