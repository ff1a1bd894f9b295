//! `sleep`: no pods now, where nobody uses the workload.
//!
//! The count is set to 0, which Lull respects: it puts activators into the endpoints and the next
//! request wakes the workload. When Lull does it itself, activators are there first; so this is
//! refused while something is in flight, and says so.

use anyhow::bail;
use autoscaler::workload::tells_no_activator;
use lull_contract::{
    Class, Settings,
    scaled_workload::{ScaledWorkload, ScaledWorkloadStatus, State, is_odd},
};

use super::{
    Asked,
    wait::{Done, Look, as_millis, if_wanted},
    wake::scale_from,
};
use crate::{
    cli::SleepArgs,
    output::{Outcome, Output},
    pages,
    style::{Paint, Style},
    words::count,
    workload::Workload,
};

/// What a sleep that Lull has not prepared may have cost.
const WITHOUT_ACTIVATORS: &str = "callers of the moment before activators were in its endpoints may \
                                  have been refused; left alone it falls asleep without that";

/// What speaks for and against sleep.
#[derive(Debug, Clone, Copy)]
struct Situation<'a> {
    settings: &'a Settings,
    state: State,
    /// What stands in the way of an enrolled workload, which is kept awake then.
    in_the_way: Option<&'a str>,
    /// There is no activator at all.
    has_no_activator: bool,
    /// Requests in flight; `None`: nobody can say.
    in_flight: Option<u64>,
    is_forced: bool,
}

/// Puts the workload to sleep.
///
/// # Errors
/// Where Lull doesn't run it, the API server refuses, or it doesn't sleep in time.
pub(super) async fn run(asked: Asked<'_>, args: &SleepArgs) -> anyhow::Result<Output> {
    let cluster = asked.cluster;
    let workload = Workload::find(cluster, &args.which.workload).await?;
    let scaled = workload.run_by_lull(cluster).await?;
    let status = scaled.status.clone().unwrap_or_default();
    let replicas = workload.target.replicas;
    let mut done = Done {
        workload: workload.target.to_string(),
        namespace: workload.target.namespace.clone(),
        result: "is asleep already".to_owned(),
        notes: Vec::new(),
        took_ms: None,
    };
    if replicas == 0 {
        return done.output(asked.style);
    }
    let situation = Situation {
        settings: &scaled.spec.settings,
        state: status.state,
        in_the_way: in_the_way(&status),
        has_no_activator: tells_no_activator(&status),
        in_flight: in_flight(asked, &workload).await,
        is_forced: args.force,
    };
    if let Some(why) = objection(&situation) {
        return left_alone(done, &why, asked.style);
    }
    if !scale_from(&workload, replicas, 0).await? {
        // Lull itself may have been first.
        let now = workload.now().await?;
        if now.is_none_or(|now| now.replicas > 0) {
            let target = &workload.target;
            bail!("the count of {target} has changed just now: look again");
        }
    }
    let what = format!("{} to sleep", workload.target);
    let took = if_wanted(args.wait, &what, async || {
        let scaled = workload.scaled(cluster).await?;
        let now = workload.now().await?;
        asleep(scaled.as_ref(), now.map_or(0, |now| now.replicas))
    })
    .await?;
    let result = match took {
        Some(_) => "is asleep: the next request wakes it",
        None => "is asked to sleep",
    };
    done.result = result.to_owned();
    done.notes = vec![WITHOUT_ACTIVATORS.to_owned()];
    done.took_ms = took.map(as_millis);
    done.output(asked.style)
}

/// The answer where nothing was done.
fn left_alone(mut done: Done, why: &str, style: Style) -> anyhow::Result<Output> {
    done.result = format!("was left alone: {why}");
    let result = style.paint(Paint::Bad, &done.result);
    let text = format!("{} {result}\n", done.workload);
    Output::new(&done, text, Outcome::Found)
}

/// Requests in flight, by the replica that leads the workload: a status is written now and then only.
async fn in_flight(asked: Asked<'_>, workload: &Workload) -> Option<u64> {
    let target = &workload.target;
    let detail = pages::detail(asked.cluster, &target.namespace, &target.id()).await;
    let live = detail.ok().flatten().map(|detail| detail.workload);
    live.filter(|live| live.is_live).map(|live| live.in_flight)
}

/// What has come in the way since it was enrolled.
fn in_the_way(status: &ScaledWorkloadStatus) -> Option<&str> {
    let mut conditions = status.conditions.iter();
    let enrolled = conditions.find(|one| one.type_ == "Enrolled" && is_odd(one))?;
    (enrolled.status == "True").then_some(enrolled.message.as_str())
}

/// Why it should not sleep now.
fn objection(situation: &Situation<'_>) -> Option<String> {
    let Situation {
        settings,
        state,
        in_the_way,
        has_no_activator,
        in_flight,
        is_forced,
    } = *situation;
    // Not even by force: nobody would wake it, or Lull would at once.
    if settings.class == Class::None {
        return Some("class none: Lull would not wake it again".to_owned());
    }
    if settings.min_scale > 0 {
        let least = settings.min_scale;
        return Some(format!(
            "lull.dev/min-scale is {least}, so Lull would wake it at once; set it to 0"
        ));
    }
    if matches!(state, State::Enrolling | State::Leaving | State::Planned) {
        return Some(format!("it is {state}: nothing would hold its callers"));
    }
    if let Some(what) = in_the_way {
        return Some(format!(
            "it is kept awake as long as this stands in the way: {what}"
        ));
    }
    if has_no_activator {
        let why = "no activator is ready: nothing would hold its callers, and Lull would wake it";
        return Some(why.to_owned());
    }
    if is_forced {
        return None;
    }
    match in_flight {
        Some(0) => None,
        Some(count) => Some(format!(
            "{count} in flight; it falls asleep by itself {} after the last one, or use --force",
            settings.window
        )),
        None => Some(
            "no autoscaler could say whether requests are in flight; see kubectl lull doctor, or \
             use --force"
                .to_owned(),
        ),
    }
}

/// Whether it sleeps; it has so many `replicas` now.
///
/// # Errors
/// Where it has pods again: somebody called, so it would be waited for in vain.
fn asleep(scaled: Option<&ScaledWorkload>, replicas: u32) -> anyhow::Result<Look> {
    let status = scaled.and_then(|scaled| scaled.status.clone());
    let ScaledWorkloadStatus { state, reason, .. } = status.unwrap_or_default();
    if state == State::Asleep {
        return Ok(Look::There);
    }
    if replicas > 0 {
        let pods = count(u64::from(replicas), "pod");
        bail!("it was woken again before it slept: {pods} wanted; {state}: {reason}");
    }
    Ok(Look::NotYet(format!("{state}: {reason}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn traffic_and_settings_speak_against_sleep() {
        let plain = Settings::default();
        let kept = Settings {
            min_scale: 1,
            ..Settings::default()
        };
        let unscaled = Settings {
            class: Class::None,
            ..Settings::default()
        };
        let rows = [
            (&plain, State::Awake, Some(0), false, None),
            (&plain, State::Awake, Some(3), false, Some("3 in flight")),
            (&plain, State::Awake, Some(3), true, None),
            (&plain, State::Awake, None, false, Some("doctor")),
            (&plain, State::Awake, None, true, None),
            (&plain, State::Enrolling, Some(0), true, Some("Enrolling")),
            (&kept, State::Awake, Some(0), true, Some("min-scale is 1")),
            (&unscaled, State::Awake, Some(0), true, Some("class none")),
        ];
        for (settings, state, in_flight, is_forced, expected) in rows {
            let situation = Situation {
                settings,
                state,
                in_the_way: None,
                has_no_activator: false,
                in_flight,
                is_forced,
            };
            let why = objection(&situation);
            match expected {
                None => assert_eq!(why, None, "{situation:?}"),
                Some(part) => assert!(why.as_ref().is_some_and(|w| w.contains(part)), "{why:?}"),
            }
        }
    }

    #[test]
    fn what_lull_keeps_awake_is_not_put_to_sleep_even_by_force() {
        let condition = |reason: &str, message: &str| -> ScaledWorkloadStatus {
            serde_json::from_value(json!({ "state": "Awake", "conditions": [{
                "type": "Enrolled", "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }] }))
            .unwrap()
        };
        let plain = condition("Enrolled", "");
        let taken = condition("NameTaken", "EndpointSlice shop-lull is not Lull's");
        let settings = Settings::default();
        for (status, has_no_activator, expected) in [
            (&plain, false, None),
            (&taken, false, Some("shop-lull")),
            (&plain, true, Some("no activator is ready")),
        ] {
            let why = objection(&Situation {
                settings: &settings,
                state: status.state,
                in_the_way: in_the_way(status),
                has_no_activator,
                in_flight: Some(0),
                is_forced: true,
            });
            match expected {
                None => assert_eq!(why, None),
                Some(part) => assert!(why.as_ref().is_some_and(|w| w.contains(part)), "{why:?}"),
            }
        }
    }

    #[test]
    fn what_was_woken_again_is_not_waited_for() {
        let scaled = |state: &str| -> ScaledWorkload {
            serde_json::from_value(json!({
                "apiVersion": "lull.dev/v1alpha1", "kind": "ScaledWorkload",
                "metadata": { "name": "shop", "namespace": "web" },
                "spec": {
                    "target": {
                        "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "1",
                    },
                    "podSelector": {}, "ports": [], "settings": Settings::default(),
                    "originalReplicas": 1,
                },
                "status": { "state": state, "reason": "2 held" },
            }))
            .unwrap()
        };
        let look = |state: &str, replicas| asleep(Some(&scaled(state)), replicas);
        assert_eq!(look("Asleep", 0).unwrap(), Look::There);
        // It slept, for whoever has called since.
        assert_eq!(look("Asleep", 1).unwrap(), Look::There);
        let draining = Look::NotYet("Awake: 2 held".to_owned());
        assert_eq!(look("Awake", 0).unwrap(), draining);
        let woken = look("Awake", 1).unwrap_err().to_string();
        assert!(
            woken.contains("woken again") && woken.contains("1 pod wanted"),
            "{woken}"
        );
    }
}
