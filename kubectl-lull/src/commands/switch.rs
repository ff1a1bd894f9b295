//! `on` and `off`: the one annotation that lets Lull run a workload.

use anyhow::bail;
use autoscaler::target::Target;
use kube::api::{Patch, PatchParams};
use lull_contract::{
    annotations::{self, SCALE},
    scaled_workload::{ScaledWorkload, State},
};
use serde_json::{Value, json};

use super::{
    Asked, plan,
    wait::{Done, Look, as_millis, if_wanted},
};
use crate::{
    cli::{OffArgs, OnArgs},
    cluster::call,
    gather,
    output::Output,
    workload::{NOT_INSTALLED, Workload, is_installed},
};

/// Lets Lull run the workload, where nothing stands in the way.
///
/// # Errors
/// Where there is no such workload, the API server or the webhook refuses, or it is not enrolled in
/// time.
pub(super) async fn on(asked: Asked<'_>, args: &OnArgs) -> anyhow::Result<Output> {
    let cluster = asked.cluster;
    let workload = Workload::find(cluster, &args.which.workload).await?;
    let planned = gather::planned(cluster, &workload).await?;
    let is_enrolled = planned.is_enrolled;
    let services: Vec<String> = planned
        .plan
        .services
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut notes = planned.missing.clone();
    notes.extend(planned.plan.findings.iter().map(ToString::to_string));
    let page = plan::Page::new(&workload, planned);
    if page.is_refused() && !args.force {
        let mut text = page.text(asked.style);
        text.push_str(
            "\nNothing was changed. --force asks for it anyway: Lull waits until nothing is in the \
             way.\n",
        );
        return Output::new(&page, text, page.outcome());
    }
    let is_asked_for = annotations::opted_in(&workload.target.annotations);
    if !is_asked_for {
        if !is_installed(cluster).await? {
            bail!(NOT_INSTALLED);
        }
        annotate(&workload, json!("true")).await?;
    }
    let what = format!("{} to be enrolled", workload.target);
    let took = if_wanted(args.wait, &what, async || {
        Ok(enrolled(workload.scaled(cluster).await?.as_ref()))
    })
    .await?;
    let result = match took {
        Some(_) => format!("is run by Lull: {}", services.join(", ")),
        None if is_enrolled && is_asked_for => "is run by Lull already".to_owned(),
        None => "is asked for: Lull enrols it with the rollout that has begun".to_owned(),
    };
    done(&workload, result, notes, took.map(as_millis)).output(asked.style)
}

/// Gives the workload back as it was.
///
/// # Errors
/// Where there is no such workload, the API server refuses, or it is not given back in time.
pub(super) async fn off(asked: Asked<'_>, args: &OffArgs) -> anyhow::Result<Output> {
    let cluster = asked.cluster;
    let workload = Workload::find(cluster, &args.which.workload).await?;
    let scaled = workload.scaled(cluster).await?;
    if is_plain(scaled.as_ref(), &workload.target) {
        let result = "is not run by Lull: nothing was changed".to_owned();
        return done(&workload, result, Vec::new(), None).output(asked.style);
    }
    if scaled.is_none() && workload.target.is_injected() && !is_installed(cluster).await? {
        // Nobody would give it back, however long that is waited for.
        bail!(
            "{NOT_INSTALLED}, and {} still has its sidecar: docs/uninstall.md says how it is given \
             back without Lull",
            workload.target
        );
    }
    if workload.target.annotations.contains_key(SCALE) {
        annotate(&workload, Value::Null).await?;
    }
    let what = format!("{} to be given back", workload.target);
    let took = if_wanted(args.wait, &what, async || {
        let scaled = workload.scaled(cluster).await?;
        Ok(given_back(scaled.as_ref(), workload.now().await?.as_ref()))
    })
    .await?;
    let result = match took {
        Some(_) => "is plain again: Services and template are as they were",
        None => "is asked to leave: Lull gives it back",
    };
    done(
        &workload,
        result.to_owned(),
        Vec::new(),
        took.map(as_millis),
    )
    .output(asked.style)
}

fn done(workload: &Workload, result: String, notes: Vec<String>, took_ms: Option<u64>) -> Done {
    Done {
        workload: workload.target.to_string(),
        namespace: workload.target.namespace.clone(),
        result,
        notes,
        took_ms,
    }
}

async fn annotate(workload: &Workload, value: Value) -> anyhow::Result<()> {
    let patch = json!({ "metadata": { "annotations": { SCALE: value } } });
    let (name, params) = (&workload.target.name, PatchParams::default());
    let patch = Patch::Merge(&patch);
    let what = format!("annotate {}", workload.target);
    call(&what, workload.api.patch(name, &params, &patch)).await?;
    Ok(())
}

/// Whether Lull runs it.
fn enrolled(scaled: Option<&ScaledWorkload>) -> Look {
    let Some(scaled) = scaled else {
        return Look::NotYet("the autoscaler has not seen it yet".to_owned());
    };
    let status = scaled.status.clone().unwrap_or_default();
    // One that is asked for again while it leaves has its Services still, and gives them back first.
    if gather::is_enrolled(scaled) && status.state != State::Leaving {
        return Look::There;
    }
    Look::NotYet(format!("{}: {}", status.state, status.reason))
}

/// Whether Lull has nothing to do with it, and is not asked to.
fn is_plain(scaled: Option<&ScaledWorkload>, target: &Target) -> bool {
    let is_asked_for = target.annotations.contains_key(SCALE);
    scaled.is_none() && !is_asked_for && !target.is_injected()
}

/// Whether nothing of Lull is left on it.
fn given_back(scaled: Option<&ScaledWorkload>, target: Option<&Target>) -> Look {
    if let Some(scaled) = scaled {
        let status = scaled.status.clone().unwrap_or_default();
        return Look::NotYet(format!("{}: {}", status.state, status.reason));
    }
    match target {
        Some(target) if target.is_injected() => {
            Look::NotYet("the sidecar is being taken out of the template".to_owned())
        }
        Some(target) if target.is_rolling => {
            Look::NotYet("pods without the sidecar are being started".to_owned())
        }
        _ => Look::There,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::apps::v1::Deployment;
    use kube::core::ApiResource;
    use lull_contract::{
        Settings,
        scaled_workload::{ScaledWorkloadSpec, ScaledWorkloadStatus, Target as Named},
    };

    use super::*;

    fn scaled(state: State, services: &[&str]) -> ScaledWorkload {
        let spec = ScaledWorkloadSpec {
            target: Named {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: "shop".to_owned(),
                uid: "1".to_owned(),
            },
            pod_selector: [].into(),
            ports: Vec::new(),
            settings: Settings::default(),
            original_replicas: 1,
        };
        let mut scaled = ScaledWorkload::new("shop", spec);
        scaled.status = Some(ScaledWorkloadStatus {
            state,
            reason: "waiting for pods".to_owned(),
            services: services.iter().map(|name| (*name).to_owned()).collect(),
            ..ScaledWorkloadStatus::default()
        });
        scaled
    }

    #[test]
    fn a_workload_is_enrolled_once_its_services_are_switched() {
        assert!(matches!(enrolled(None), Look::NotYet(_)));
        let waiting = enrolled(Some(&scaled(State::Enrolling, &[])));
        assert_eq!(
            waiting,
            Look::NotYet("Enrolling: waiting for pods".to_owned())
        );
        assert!(matches!(
            enrolled(Some(&scaled(State::Planned, &["shop"]))),
            Look::NotYet(_)
        ));
        assert!(matches!(
            enrolled(Some(&scaled(State::Leaving, &["shop"]))),
            Look::NotYet(_)
        ));
        assert_eq!(
            enrolled(Some(&scaled(State::Awake, &["shop"]))),
            Look::There
        );
    }

    #[test]
    fn only_what_lull_neither_runs_nor_is_to_run_is_plain() {
        let kind = Arc::new(ApiResource::erase::<Deployment>(&()));
        let target = |annotations: Value| {
            let object = json!({ "metadata": { "name": "shop", "annotations": annotations } });
            Target::new(&kind, serde_json::from_value(object).unwrap())
        };
        let plain = target(json!({}));
        assert!(is_plain(None, &plain));
        assert!(!is_plain(Some(&scaled(State::Leaving, &[])), &plain));
        for value in ["true", "dry-run"] {
            assert!(!is_plain(None, &target(json!({ SCALE: value }))), "{value}");
        }
    }

    #[test]
    fn a_workload_has_left_when_nothing_of_lull_is_there() {
        let leaving = given_back(Some(&scaled(State::Leaving, &["shop"])), None);
        assert!(matches!(leaving, Look::NotYet(_)));
        assert_eq!(given_back(None, None), Look::There);
    }
}
