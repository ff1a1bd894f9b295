//! What is shown of a workload: from its ScaledWorkload, and from what its leader knows. Pure.

use jiff::Timestamp;
use lull_contract::{
    report::{CallerCount, SeenCaller},
    scaled_workload::{ScaledWorkload, State},
    view::{Caller, CallerShare, KeptAwake, MAX_CALLERS, WakeView, WorkloadView},
};

use crate::{
    callers::resolve, context::Context, journal::text_of, metrics::Numbers, workload::waking_reason,
};

/// What this replica knows of a workload beside its ScaledWorkload.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Live {
    /// It leads it.
    pub(super) is_led: bool,
    /// As it was seen last, where it decides for it.
    pub(super) numbers: Option<Numbers>,
    /// When this is told.
    pub(super) at: Timestamp,
}

/// The workload as it is now.
pub(super) fn workload(workload: &ScaledWorkload, live: Live) -> WorkloadView {
    let status = workload.status.as_ref();
    let view = WorkloadView {
        is_live: live.is_led,
        // As all times of the page.
        since: status.and_then(|status| Some(text_of(status.state_since.as_ref()?.0))),
        ..workload.view()
    };
    let state = status.map_or_else(State::default, |status| status.state);
    let Some(seen) = live.numbers.filter(|_| live.is_led) else {
        return view;
    };
    let view = match (state, seen.state) {
        // A status that says so is put off, and most wakes are over before.
        (State::Asleep, State::Waking) => WorkloadView {
            state: State::Waking.to_string(),
            since: None,
            reason: waking_reason(seen.held),
            saved_pod_seconds: view.saved_pod_seconds + slept(workload, live.at),
            saving_pods: 0,
            ..view
        },
        (there, now) if there == now => view,
        // Where the state is another one by now, the status follows in a moment, and with all of it.
        _ => return view,
    };
    WorkloadView {
        ready: seen.ready,
        desired: seen.desired,
        in_flight: seen.in_flight,
        held: seen.held,
        ..view
    }
}

/// Pod-seconds that a workload has slept `at` then, since its status says so.
fn slept(workload: &ScaledWorkload, at: Timestamp) -> u64 {
    let status = workload.status.as_ref();
    let since = status.and_then(|status| status.state_since.as_ref());
    let slept = since.map_or(0, |since| at.duration_since(since.0).as_secs());
    u64::try_from(slept).unwrap_or(0) * u64::from(workload.spec.saved_pods())
}

/// The last wakes, as a leader has written them down.
pub(super) fn written_wakes(workload: &ScaledWorkload) -> Vec<WakeView> {
    let status = workload.status.as_ref();
    status.map_or_else(Vec::new, |status| status.wakes.clone())
}

/// Who keeps it awake, or has, as a leader has written it down.
pub(super) fn written_kept_awake(workload: &ScaledWorkload) -> KeptAwake {
    let status = workload.status.as_ref();
    status.map_or_else(KeptAwake::default, |status| status.kept_awake.clone())
}

/// Who was held how often, the busiest first, each with its pod where that is known.
pub(super) fn callers(counts: &[CallerCount], ctx: &Context) -> Vec<CallerShare> {
    shares(counts, |seen| resolve(ctx, seen))
}

fn shares(counts: &[CallerCount], resolve: impl Fn(&SeenCaller) -> Caller) -> Vec<CallerShare> {
    let total: u128 = counts.iter().map(|caller| u128::from(caller.holds)).sum();
    let shares = counts.iter().take(MAX_CALLERS).map(|caller| {
        let percent = u128::from(caller.holds) * 100 / total.max(1);
        CallerShare {
            caller: resolve(&SeenCaller {
                address: caller.address.clone(),
                asked: String::new(),
            }),
            holds: caller.holds,
            percent: u8::try_from(percent).unwrap_or(100),
        }
    });
    shares.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asleep() -> ScaledWorkload {
        let object = json!({
            "apiVersion": "lull.dev/v1alpha1",
            "kind": "ScaledWorkload",
            "metadata": { "name": "shop", "namespace": "ns" },
            "spec": {
                "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "u" },
                "podSelector": {},
                "ports": [],
                "settings": lull_contract::Settings::default(),
                "originalReplicas": 3,
            },
            "status": {
                "state": "Asleep",
                "mode": "Proxy",
                "stateSince": "2026-11-25T10:00:00Z",
                "savedPodSeconds": 90,
                "wakes": [{ "at": "2026-11-25T09:00:00.000Z", "scaledTo": 2 }],
                "keptAwake": {
                    "at": "2026-11-25T09:59:00.000Z",
                    "by": [{ "caller": { "account": "prod/checkout" }, "percent": 100 }],
                },
            },
        });
        serde_json::from_value(object).unwrap()
    }

    fn numbers(state: State, held: u64) -> Numbers {
        Numbers {
            state,
            desired: 1,
            ready: 0,
            in_flight: held,
            held,
            panicking: false,
            heard: true,
        }
    }

    #[test]
    fn a_replica_that_does_not_lead_shows_what_is_written() {
        let view = workload(&asleep(), Live::default());
        assert!(!view.is_live);
        assert_eq!(
            (view.state.as_str(), view.mode.as_str()),
            ("Asleep", "Proxy")
        );
        assert_eq!(view.since.as_deref(), Some("2026-11-25T10:00:00.000Z"));
        assert_eq!((view.saved_pod_seconds, view.saving_pods), (90, 3));
        assert_eq!(view.key(), "ns/shop");
        assert_eq!(written_wakes(&asleep())[0].scaled_to, 2);
        let kept = written_kept_awake(&asleep());
        assert_eq!(kept.to_string(), "prod/checkout 100 %");
    }

    #[test]
    fn the_leader_shows_what_it_sees_unless_the_state_is_another_one_by_now_than_waking() {
        let live = |is_led, state| Live {
            is_led,
            numbers: Some(numbers(state, 7)),
            at: "2026-11-25T10:00:10Z".parse().unwrap(),
        };
        let cases = [
            (live(true, State::Asleep), "Asleep", 7),
            (live(true, State::Waking), "Waking", 7),
            (live(true, State::Settling), "Asleep", 0),
            (live(false, State::Asleep), "Asleep", 0),
            (live(false, State::Waking), "Asleep", 0),
        ];
        for (live, state, held) in cases {
            let view = workload(&asleep(), live);
            assert_eq!((view.state.as_str(), view.held), (state, held), "{live:?}");
        }
        let waking = workload(&asleep(), live(true, State::Waking));
        assert_eq!(waking.reason, "no pod is ready yet, 7 held");
        let saved = (waking.saved_pod_seconds, waking.saving_pods);
        assert_eq!((waking.since, saved), (None, (120, 0)));
    }

    #[test]
    fn shares_are_of_all_that_are_known() {
        let counts = [("10.0.0.1", 3), ("10.0.0.2", 1)].map(|(address, holds)| CallerCount {
            address: address.to_owned(),
            holds,
        });
        let unknown = |seen: &SeenCaller| Caller {
            address: seen.address.clone(),
            ..Caller::default()
        };
        let percents: Vec<u8> = shares(&counts, unknown).iter().map(|s| s.percent).collect();
        assert_eq!(percents, [75, 25]);
        assert!(shares(&[], unknown).is_empty());
    }
}
