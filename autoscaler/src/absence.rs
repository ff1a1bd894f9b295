//! Whether there is no activator at all. Then nobody reaches what sleeps, so it is woken and kept
//! in Serve mode until activators are there to stay ([`crate::machine`]).
//!
//! Unknown is not gone: before it counts, the API server itself is asked, since the watch may be
//! behind. Activators that have never been there may still be on their first start, so a process
//! that has seen none waits longer; and what is not asleep yet needs none. Where the last process was
//! certain, which is in the statuses that it has written, the next one doesn't begin anew.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1 as core;
use kube::{Api, api::ListParams};
use lull_process::readiness::Readiness;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    config::API_TIMEOUT, context::Context, pod::Pod, silence::Silence, workload::tells_no_activator,
};

/// Without a ready activator for so long, there is none. One that was killed is ready again within
/// some seconds, and a rollout always leaves one; a caller waits 10 s for a connection, twice more in
/// a mesh.
const GONE_AFTER: Duration = Duration::from_secs(15);
/// The same where this process has seen none yet: after a start of the whole cluster, images are
/// pulled first.
const NEVER_SEEN_AFTER: Duration = Duration::from_secs(120);
/// They are back when there has been a ready one for so long without a break: one that dies each
/// time it has started is no reason to let anything sleep.
const BACK_AFTER: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same until the first one: what the last process was certain of is known, if it can be, before
/// this one leads a shard and writes statuses without it.
const BEGIN_WITHIN: Duration = Duration::from_millis(100);

/// What has been seen of activators. All times are on the process's clock.
#[derive(Debug, Clone, Copy)]
struct Absence {
    /// Since when is looked.
    begun: Duration,
    /// The last process has told that there is none.
    was_told: bool,
    /// When one was ready last.
    ready_at: Option<Duration>,
    /// Since when there has been one all the time.
    ready_since: Option<Duration>,
    /// There is none.
    is_certain: bool,
}

/// Tells `ctx` whether there is an activator among the pods that `selector` selects, and which of them
/// are not heard, until `stop`.
pub async fn watch(
    ctx: Arc<Context>,
    selector: String,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let mut absence: Option<Absence> = None;
    let mut silence = Silence::default();
    loop {
        let pause = absence.map_or(BEGIN_WITHIN, |_| LOOK_EVERY);
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        if !readiness.missing().is_empty() {
            continue;
        }
        let now = ctx.now();
        silence.look(&ctx, now);
        let absence = absence.get_or_insert_with(|| Absence::new(now, was_told(&ctx)));
        let ready = ctx.stores.activators.find(|pod| pod.is_ready);
        absence.see(ready.is_some(), now);
        if absence.is_suspected(now) {
            match is_any_ready(&ctx, &selector).await {
                Ok(is_ready) => absence.confirm(is_ready, now),
                Err(why) => tracing::debug!(%why, "no activator is seen; that may be wrong"),
            }
        }
        tell(&ctx, absence.is_certain);
    }
}

/// Tells every task, where it is another one than before.
fn tell(ctx: &Context, is_certain: bool) {
    if ctx.set_no_activator(is_certain) == is_certain {
        return;
    }
    if is_certain {
        tracing::warn!("no activator has been ready for a while: what sleeps is woken");
    } else {
        tracing::info!("activators are back: what is idle may sleep");
    }
    ctx.mailboxes().wake(|_| true);
}

/// Whether a status says that there is no activator at all.
fn was_told(ctx: &Context) -> bool {
    let told = ctx.stores.workloads.find(|workload| {
        let status = workload.status.as_ref();
        status.is_some_and(tells_no_activator)
    });
    told.is_some()
}

/// As the API server has it now.
///
/// # Errors
/// Why it can't say.
async fn is_any_ready(ctx: &Context, selector: &str) -> Result<bool, String> {
    let pods: Api<core::Pod> = Api::namespaced(ctx.client.clone(), &ctx.lull.namespace);
    let params = ListParams::default().labels(selector);
    match timeout(API_TIMEOUT, pods.list(&params)).await {
        Ok(Ok(pods)) => Ok(pods.into_iter().any(|pod| Pod::from(pod).is_ready)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {API_TIMEOUT:?}")),
    }
}

// === impl Absence ===

impl Absence {
    /// Nothing seen yet; `was_told`: the last process has told that there is none.
    fn new(now: Duration, was_told: bool) -> Self {
        Self {
            begun: now,
            was_told,
            ready_at: None,
            ready_since: None,
            is_certain: false,
        }
    }

    /// Takes note of whether any is ready at `now`.
    fn see(&mut self, is_ready: bool, now: Duration) {
        if !is_ready {
            self.ready_since = None;
            return;
        }
        self.ready_at = Some(now);
        let since = *self.ready_since.get_or_insert(now);
        self.is_certain &= now < since + BACK_AFTER;
    }

    /// There seems to be none, which the API server has to confirm.
    fn is_suspected(&self, now: Duration) -> bool {
        let (since, patience) = match self.ready_at {
            Some(at) => (at, GONE_AFTER),
            None if self.was_told => (self.begun, Duration::ZERO),
            None => (self.begun, NEVER_SEEN_AFTER),
        };
        !self.is_certain && now >= since + patience
    }

    /// The API server says whether any is ready.
    fn confirm(&mut self, is_ready: bool, now: Duration) {
        if is_ready {
            // The watch is behind.
            self.ready_at = Some(now);
        } else {
            self.is_certain = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Looks once a second from `from` to `to`; in which second something was suspected first.
    fn look(absence: &mut Absence, is_ready: bool, (from, to): (u32, u32)) -> Option<u32> {
        (from..to).find(|second| {
            let now = SECOND * *second;
            absence.see(is_ready, now);
            absence.is_suspected(now)
        })
    }

    #[test]
    fn activators_are_gone_when_none_was_ready_for_a_while_and_the_api_server_says_so() {
        let mut absence = Absence::new(Duration::ZERO, false);
        assert_eq!(look(&mut absence, true, (0, 60)), None);
        // The last one was seen in the 59th second.
        assert_eq!(look(&mut absence, false, (60, 200)), Some(74));
        assert!(!absence.is_certain, "it is not confirmed");
        absence.confirm(true, SECOND * 74);
        assert_eq!(look(&mut absence, false, (75, 200)), Some(89));
        absence.confirm(false, SECOND * 89);
        assert!(absence.is_certain);
        assert_eq!(look(&mut absence, false, (90, 200)), None, "it is known");
        assert!(absence.is_certain);
    }

    #[test]
    fn a_short_gap_is_none() {
        let mut absence = Absence::new(Duration::ZERO, false);
        for round in 0..20 {
            let begin = round * 15;
            assert_eq!(look(&mut absence, true, (begin, begin + 1)), None);
            assert_eq!(look(&mut absence, false, (begin + 1, begin + 15)), None);
        }
    }

    #[test]
    fn those_that_were_never_seen_may_be_on_their_first_start() {
        let mut absence = Absence::new(SECOND * 5, false);
        assert_eq!(look(&mut absence, false, (5, 300)), Some(125));
    }

    #[test]
    fn what_the_last_process_was_certain_of_is_asked_for_at_once() {
        let mut gone = Absence::new(SECOND * 5, true);
        assert_eq!(look(&mut gone, false, (5, 300)), Some(5));
        assert!(!gone.is_certain, "it is not confirmed");
        gone.confirm(false, SECOND * 5);
        assert!(gone.is_certain);
        let mut back = Absence::new(SECOND * 5, true);
        assert_eq!(look(&mut back, true, (5, 6)), None);
        assert_eq!(look(&mut back, false, (6, 300)), Some(20));
    }

    #[test]
    fn they_are_back_when_one_stays_ready() {
        let mut absence = Absence::new(Duration::ZERO, false);
        absence.see(true, Duration::ZERO);
        assert_eq!(look(&mut absence, false, (1, 60)), Some(15));
        absence.confirm(false, SECOND * 15);
        for round in 1..5 {
            let begin = round * 20;
            look(&mut absence, true, (begin, begin + 10));
            look(&mut absence, false, (begin + 10, begin + 20));
            assert!(absence.is_certain, "one that dies again and again");
        }
        look(&mut absence, true, (100, 111));
        assert!(!absence.is_certain);
    }
}
