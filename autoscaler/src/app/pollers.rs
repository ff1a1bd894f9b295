//! One poller for each activator: its reports go to the tasks that they are about.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use lull_contract::{
    ports,
    report::{
        ActivatorReport, MAX_ACTIVATOR_BYTES, ReportError, SEEN_PARAM, SINCE_PARAM, WAIT_PARAM,
    },
};
use tokio::task::JoinHandle;

use crate::{context::Context, demand::Hearing, metrics::Asked};

/// How long an activator may keep a poll open: also how often each says that it is there.
const POLL_WAIT: Duration = Duration::from_secs(1);
/// How long until an activator is asked for everything again, whatever it has told: what went wrong
/// unseen is mended with it. Not after a number of reports: there is one for each wake, and whoever is
/// held while everything is told waits for that.
const COMPLETE_EVERY: Duration = Duration::from_secs(60);
/// Pause after a failed poll.
const POLL_PAUSE: Duration = Duration::from_millis(200);

/// A poller handles reports for a quarter of its time at most: there is one for each wake, and each tells
/// everybody who is held, so that the more are held, the longer each takes. With fifty wakes a second on
/// two cores that was three quarters of one (`make wakes`), which the API server lacked, so more were held.
const REST_FOR_WORK: u32 = 3;
/// Below this there is no rest, which is shorter than what a timer can do.
const SHORTEST_REST: Duration = Duration::from_millis(1);
/// Nobody who is held waits longer than this to be told of.
const LONGEST_REST: Duration = Duration::from_millis(50);

/// A workload is looked at no sooner again for callers of whom it was told: its wake has been asked for. A look
/// for each report would make every wake later by all that are late already.
const HELD_AGAIN: Duration = Duration::from_millis(250);

/// Address and poller of each activator pod, by its name.
pub(super) type Pollers = HashMap<String, (String, JoinHandle<()>)>;

/// One poller for each activator pod that has an address.
pub(super) fn keep(ctx: &Arc<Context>, pollers: &mut Pollers) {
    let activators: HashMap<String, String> = ctx
        .stores
        .activators
        .all()
        .iter()
        .filter_map(|pod| Some((pod.name.clone(), pod.ip.clone()?)))
        .collect();
    pollers.retain(|name, (ip, poller)| {
        let is_wanted = activators.get(name) == Some(ip);
        // It has no end of its own.
        let has_panicked = poller.is_finished();
        if has_panicked {
            ctx.metrics.panics.inc();
            tracing::error!(activator = name, "its poller has failed: it begins anew");
        }
        let keep = is_wanted && !has_panicked;
        if !keep {
            poller.abort();
            ctx.forget(name);
        }
        keep
    });
    for (name, ip) in activators {
        pollers.entry(name.clone()).or_insert_with(|| {
            let poller = tokio::spawn(poll_activator(Arc::clone(ctx), name, ip.clone()));
            (ip, poller)
        });
    }
}

/// Long-polls one activator and hands what it says to the tasks.
async fn poll_activator(ctx: Arc<Context>, name: String, ip: String) {
    let mut known = Known::default();
    let limits = (POLL_WAIT + Duration::from_secs(2), MAX_ACTIVATOR_BYTES);
    loop {
        // Read first: whoever comes later is told everything with the next report.
        let opened = ctx.mailboxes().opened();
        let path = known.path(opened, ctx.now());
        let answer = ctx.puller.get((&ip, ports::REPORT), &path, limits).await;
        let begun = Instant::now();
        let left_out = |error: &ReportError| {
            ctx.metrics.refused(Asked::Activator, error);
            tracing::warn!(activator = name, %error, "callers in its report refused");
        };
        let report = match answer.map(|body| ActivatorReport::parse_telling(&body, left_out)) {
            Ok(Ok(report)) if report.pod != name => {
                // The address is another activator's by now.
                tracing::debug!(activator = name, other = report.pod, "not its report");
                known = Known::default();
                tokio::time::sleep(POLL_WAIT).await;
                continue;
            }
            Ok(Ok(report)) => report,
            Ok(Err(error)) => {
                ctx.metrics.refused(Asked::Activator, &error);
                tracing::warn!(activator = name, %error, "report refused");
                known = Known::default();
                tokio::time::sleep(POLL_WAIT).await;
                continue;
            }
            Err(error) => {
                ctx.metrics.pull_failed(Asked::Activator, &error);
                tracing::debug!(activator = name, %error, "report not had");
                known = Known::default();
                tokio::time::sleep(POLL_PAUSE).await;
                continue;
            }
        };
        let last = ctx.hearing(&name).filter(|last| last.boot == report.boot);
        if report.partial && last.is_none() {
            // Of another process than the one that was asked to leave something out.
            known = Known::default();
            continue;
        }
        deliver(&ctx, &name, last, &report);
        known = Known {
            seen: Some(report.edge),
            since: Some(report.sequence).filter(|sequence| *sequence > 0),
            opened: if report.partial { known.opened } else { opened },
            complete_at: if report.partial {
                known.complete_at
            } else {
                ctx.now()
            },
        };
        if let Some(rest) = rest_after(begun.elapsed()) {
            tokio::time::sleep(rest).await;
        }
    }
}

/// Pause before the next poll, where a report has taken `handled`.
fn rest_after(handled: Duration) -> Option<Duration> {
    let rest = (handled * REST_FOR_WORK).min(LONGEST_REST);
    (rest >= SHORTEST_REST).then_some(rest)
}

/// What has been had from an activator.
#[derive(Debug, Default)]
struct Known {
    seen: Option<u64>,
    /// Number of the last report.
    since: Option<u64>,
    /// [`Mailboxes::opened`](crate::context::Mailboxes::opened) at the last complete report.
    opened: u64,
    /// When that one came, on the process's clock.
    complete_at: Duration,
}

// === impl Known ===

impl Known {
    /// What is to be asked for at `now`, where so many mailboxes have been opened.
    fn path(&self, opened: u64, now: Duration) -> String {
        let Some(seen) = self.seen else {
            return "/report".to_owned();
        };
        let wait = POLL_WAIT.as_millis();
        let mut path = format!("/report?{SEEN_PARAM}={seen}&{WAIT_PARAM}={wait}");
        let is_recent = now.saturating_sub(self.complete_at) < COMPLETE_EVERY;
        let is_known = self.opened == opened && is_recent;
        if let Some(since) = self.since.filter(|_| is_known) {
            // Writing to a String can't fail.
            let _ = write!(path, "&{SINCE_PARAM}={since}");
        }
        path
    }
}

fn deliver(ctx: &Context, activator: &str, last: Option<Hearing>, report: &ActivatorReport) {
    let hearing = Hearing {
        boot: report.boot,
        complete: last.map_or(0, |last| last.complete) + u64::from(!report.partial),
        now_us: report.now_us,
        at: ctx.now(),
    };
    for held in &report.workloads {
        let Some(mailbox) = ctx.mailboxes().get(&held.namespace, &held.name) else {
            continue;
        };
        let (listens_otherwise, are_more) = {
            let mut demand = mailbox.demand.lock();
            let before = demand.held();
            let listens_otherwise = demand.activator_reported(activator, (last, hearing), held);
            (listens_otherwise, demand.held() > before)
        };
        // One that sleeps looks around by itself only twice a minute.
        let is_held_still =
            || held.held.in_flight > 0 && mailbox.is_told_again(hearing.at, HELD_AGAIN);
        if listens_otherwise || are_more || is_held_still() {
            mailbox.changed.notify_one();
        }
    }
    ctx.heard(activator, hearing);
    if last.is_none() {
        // None could be listed before, also where its pod has been ready for a moment.
        ctx.mailboxes().wake(|_| true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poller_leaves_most_of_its_time_to_others_and_is_back_soon() {
        let rest = |micros| rest_after(Duration::from_micros(micros));
        assert_eq!((rest(50), rest(300)), (None, None), "one wake");
        assert_eq!(rest(4_000), Some(Duration::from_millis(12)));
        assert_eq!(rest(400_000), Some(LONGEST_REST));
    }

    #[test]
    fn everything_is_asked_for_once_a_minute_however_many_wakes_are_told() {
        let secs = Duration::from_secs;
        let known = Known {
            seen: Some(5_000),
            since: Some(9_000),
            opened: 3,
            complete_at: secs(100),
        };
        let changes = "/report?seen=5000&wait_ms=1000&since=9000";
        let all = "/report?seen=5000&wait_ms=1000";
        assert_eq!(known.path(3, secs(159)), changes);
        assert_eq!(known.path(3, secs(160)), all);
        assert_eq!(
            known.path(4, secs(101)),
            all,
            "a task that has heard nothing"
        );
        assert_eq!(Known::default().path(3, secs(101)), "/report");
    }
}
