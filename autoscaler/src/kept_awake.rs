//! Who keeps a workload awake, by name: from what its pods tell of their callers, for people.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use lull_contract::{
    report::{CallerRequests, Lately},
    view::{AwakeShare, Caller, KeptAwake, MAX_CALLERS},
};
use parking_lot::Mutex;

use crate::{
    callers,
    context::{Context, Mailbox},
    demand::Demand,
    journal::text_of,
};

/// How long whoever is shown something waits for names. Other replicas, which ask for the page, wait for
/// 800 ms.
const PATIENCE: Duration = Duration::from_millis(400);

/// Whom the pods of a workload have told of; `None` where they have told of nobody.
pub(crate) fn of(ctx: &Context, demand: &Mutex<Demand>) -> Option<KeptAwake> {
    let (last, lately) = demand.lock().called()?;
    let (now, ago) = (Timestamp::now(), ctx.now().saturating_sub(last));
    let at = text_of(now.checked_sub(ago).unwrap_or(now));
    let mut names = callers::names(ctx, addresses(&lately));
    let caller = |text: &str| {
        if is_address(text) {
            return callers::caller(text, names.remove(text));
        }
        Caller {
            account: Some(text.to_owned()),
            ..Caller::default()
        }
    };
    Some(kept_awake(at, &lately, caller))
}

/// Finds out who those are whom [`of`] tells of, and whom activators have held; waits a moment for it.
pub(crate) async fn learn(ctx: &Arc<Context>, mailbox: &Mailbox) {
    let mut wanted: Vec<String> = Vec::new();
    {
        let demand = mailbox.demand.lock();
        if let Some((_, lately)) = demand.called() {
            wanted.extend(addresses(&lately).map(str::to_owned));
        }
        let held = demand.callers().into_iter().take(MAX_CALLERS);
        wanted.extend(held.map(|caller| caller.address));
    }
    callers::learn(ctx, &wanted, PATIENCE).await;
}

/// Of those that are known by nothing else.
fn addresses(lately: &Lately) -> impl Iterator<Item = &str> + Clone {
    let callers = lately.callers.iter().map(|told| told.caller.as_str());
    callers.filter(|text| is_address(text))
}

/// Whether a pod names a caller by its address, rather than by namespace and account.
fn is_address(text: &str) -> bool {
    !text.contains('/')
}

/// Shares of the callers, of whom the last one called `at`; `caller` names each, and those of one name
/// are one.
fn kept_awake(at: String, lately: &Lately, mut caller: impl FnMut(&str) -> Caller) -> KeptAwake {
    let mut by: Vec<(Caller, CallerRequests)> = Vec::new();
    for told in &lately.callers {
        let caller = caller(&told.caller);
        match by
            .iter_mut()
            .find(|(known, _)| known.name() == caller.name())
        {
            Some((_, known)) => known.add(told),
            None => by.push((caller, told.clone())),
        }
    }
    by.sort_by_key(|(_, told)| std::cmp::Reverse(told.requests));
    by.truncate(MAX_CALLERS);
    let named = by.iter().map(|(_, told)| told.requests);
    let named = named.fold(0, u64::saturating_add);
    let percent = |requests| percent(requests, lately.requests);
    let shares = by.into_iter().map(|(caller, told)| AwakeShare {
        percent: percent(told.requests),
        caller: Caller {
            asked: asked(told),
            ..caller
        },
    });
    KeptAwake {
        at,
        by: shares.collect(),
        others_percent: percent(lately.requests.saturating_sub(named)),
    }
}

/// `requests` of `all`, rounded.
fn percent(requests: u64, all: u64) -> u8 {
    let all = u128::from(all.max(1));
    let percent = (u128::from(requests) * 100 + all / 2) / all;
    u8::try_from(percent.min(100)).unwrap_or(100)
}

fn asked(mut told: CallerRequests) -> String {
    told.keep();
    let classes: Vec<String> = told.asked.into_iter().map(|(class, _)| class).collect();
    classes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(caller: &str, requests: u64, asked: &[(&str, u64)]) -> CallerRequests {
        let asked = asked.iter().map(|(class, of)| ((*class).to_owned(), *of));
        CallerRequests {
            caller: caller.to_owned(),
            requests,
            asked: asked.collect(),
        }
    }

    /// Addresses of 10.0.0.0/24 are pods of one workload.
    fn name(text: &str) -> Caller {
        Caller {
            address: text.to_owned(),
            workload: text
                .starts_with("10.0.0.")
                .then(|| "prod/checkout".to_owned()),
            ..Caller::default()
        }
    }

    fn shown(requests: u64, callers: Vec<CallerRequests>) -> String {
        let lately = Lately {
            last_us: 0,
            requests,
            callers,
        };
        kept_awake(String::new(), &lately, name).to_string()
    }

    #[test]
    fn pods_of_one_workload_are_one_caller_and_the_rest_are_the_others() {
        let callers = vec![
            told("10.0.0.1", 40, &[("GET /api/*", 40)]),
            told("10.1.2.3", 11, &[]),
            told("10.0.0.2", 42, &[("POST /pay", 2), ("GET /api/*", 40)]),
        ];
        let expected = "prod/checkout 82 % (GET /api/*, POST /pay), 10.1.2.3 11 %, others 7 %";
        assert_eq!(shown(100, callers), expected);
    }

    #[test]
    fn shares_are_rounded_and_nobody_else_comes_of_it() {
        let thirds = vec![told("10.1.0.1", 2, &[]), told("10.1.0.2", 1, &[])];
        assert_eq!(shown(3, thirds), "10.1.0.1 67 %, 10.1.0.2 33 %");
        let one = vec![told("10.1.0.1", u64::MAX, &[])];
        assert_eq!(
            shown(1, one),
            "10.1.0.1 100 %",
            "also of numbers that can't be"
        );
    }

    #[test]
    fn of_many_callers_the_busiest_are_named() {
        let callers = (1..=20).map(|number| told(&format!("10.1.0.{number}"), number, &[]));
        let lately = Lately {
            last_us: 0,
            requests: 210,
            callers: callers.collect(),
        };
        let kept = kept_awake(String::new(), &lately, name);
        assert_eq!(kept.by.len(), MAX_CALLERS);
        assert_eq!(kept.by[0].caller.address, "10.1.0.20");
        let named: u64 = (13..=20).sum();
        assert_eq!(kept.others_percent, percent(210 - named, 210));
    }
}
