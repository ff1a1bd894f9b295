//! What a replica does for a workload that it doesn't lead: it wakes it, where the leader doesn't.

use std::time::Duration;

use lull_contract::{Class, Settings};

use super::Task;
use crate::{context::WriteError, policy::wanted_for_held, target::Target};

/// How long a wake is left to the leader, which needs a few milliseconds: two that write at once are a
/// conflict, and more calls than a wake is worth.
const LEADER_PATIENCE: Duration = Duration::from_millis(100);
/// The same where the API server is slow, in usual writes: the leader's own waits for its turn first, and an
/// API server that takes 80 ms for a write tells of it 400 ms later (`make wakes`).
const LEADER_WRITES: u32 = 10;
/// However slow the API server is.
const SLOW_PATIENCE: Duration = Duration::from_secs(2);
/// The same where the object has been written meanwhile, so that somebody is there: in all.
const LONGEST_PATIENCE: Duration = Duration::from_secs(1);

/// Since when a wake is left to the leader.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// The object's version, and since when it has been that one; `None` while nobody is held.
    seen: Option<(Option<String>, Duration)>,
}

/// How long a wake is left to the leader where a write takes `usual`. Else every wake would be written
/// twice just where the API server has no time for it. Not so long by a replica that `leads` itself, and
/// can't do all of it: nobody else may be there.
fn for_leader(leads: bool, usual: Duration) -> Duration {
    if leads {
        return LEADER_PATIENCE;
    }
    let slow = usual.saturating_mul(LEADER_WRITES);
    slow.clamp(LEADER_PATIENCE, SLOW_PATIENCE)
}

// === impl Patience ===

impl Patience {
    /// Nobody is held.
    fn forget(&mut self) {
        self.seen = None;
    }

    /// How long the wake of an object of this `version`, which is left to the leader `for_leader`, is so
    /// from `now` on, where somebody has been held `since`. It begins anew with every version: who has
    /// just written it, and be it to put it to sleep, has seen what is held, too.
    fn left(
        &mut self,
        version: Option<&str>,
        for_leader: Duration,
        (since, now): (Duration, Duration),
    ) -> Duration {
        let from = match &self.seen {
            Some((seen, from)) if seen.as_deref() == version => *from,
            Some(_) => now,
            None => since,
        };
        self.seen = Some((version.map(str::to_owned), from));
        let until = (from + for_leader).min(since + for_leader.max(LONGEST_PATIENCE));
        until.saturating_sub(now)
    }
}

// === impl Task ===

impl Task {
    /// What a replica that doesn't lead does, or one that can't do all that a leader has to: only the
    /// first step out of sleep, and only where the leader hasn't done it.
    pub(super) async fn wake_as_follower(
        &mut self,
        target: &Target,
        settings: &Settings,
    ) -> Result<(), WriteError> {
        let (held, since) = {
            let demand = self.mailbox.demand.lock();
            (demand.held(), demand.held_since().unwrap_or_default())
        };
        if held == 0 || settings.class == Class::None {
            self.patience.forget();
            return Ok(());
        }
        let (version, now) = (target.resource_version.as_deref(), self.ctx.now());
        let leads = self.term.is_some();
        let for_leader = for_leader(leads, self.ctx.pressure.usual_write());
        let left = self.patience.left(version, for_leader, (since, now));
        if self.replicas(target) != 0 {
            return Ok(());
        }
        if !left.is_zero() {
            // Not longer than nothing happens: this replica may lead by now. One that does would try what has
            // failed with every report of who is held.
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                () = self.mailbox.changed.notified(), if !leads => {}
            }
            self.mailbox.changed.notify_one();
            return Ok(());
        }
        self.scale(target, 0, wanted_for_held(settings, held).max(1))
            .await
    }

    /// All that is done for a workload whose ScaledWorkload can't be read: who is held is let in, as its
    /// annotations say, and everything else stays as it is.
    pub(super) async fn wake_unread(&mut self, target: &Target) -> Result<(), WriteError> {
        self.series.hide();
        // What comes in its place is looked at anew.
        self.state = None;
        let settings = self.settings(target).unwrap_or_default();
        self.wake_as_follower(target, &settings).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_is_left_to_the_leader_a_while_longer_where_somebody_writes_the_object() {
        let ms = Duration::from_millis;
        let mut patience = Patience::default();
        let mut left = |version: &str, now: u64| {
            let times = (ms(5_000), ms(now));
            let left = patience.left(Some(version), LEADER_PATIENCE, times);
            u64::try_from(left.as_millis()).unwrap()
        };
        assert_eq!(left("1", 5_010), 90);
        assert_eq!(left("1", 5_099), 1);
        assert_eq!(left("2", 5_099), 100);
        assert_eq!(left("2", 5_199), 0);
        assert_eq!(left("3", 5_250), 100);
        assert_eq!(left("4", 5_980), 20, "a second in all");
        assert_eq!(left("5", 6_100), 0);
    }

    #[test]
    fn whoever_is_held_next_is_left_to_the_leader_from_then_on() {
        let ms = Duration::from_millis;
        let mut patience = Patience::default();
        let left = |patience: &mut Patience, version: &str, since: u64, now: u64| {
            patience.left(Some(version), LEADER_PATIENCE, (ms(since), ms(now)))
        };
        assert_eq!(left(&mut patience, "1", 1_000, 1_100), ms(0));
        patience.forget();
        assert_eq!(left(&mut patience, "2", 9_000, 9_000), ms(100));
    }

    #[test]
    fn a_wake_is_left_to_the_leader_longer_where_the_api_server_is_slow_and_not_for_ever() {
        let ms = Duration::from_millis;
        let rows = [(0, 100), (8, 100), (50, 500), (150, 1_500), (9_000, 2_000)];
        for (usual, expected) in rows {
            assert_eq!(for_leader(false, ms(usual)), ms(expected), "{usual} ms");
        }
        assert_eq!(for_leader(true, ms(150)), ms(100), "it is the leader");
        let mut patience = Patience::default();
        let slow = for_leader(false, ms(150));
        let mut left =
            |version: &str, now: u64| patience.left(Some(version), slow, (ms(5_000), ms(now)));
        assert_eq!(left("1", 5_100), ms(1_400));
        assert_eq!(left("2", 5_200), ms(1_300), "no longer in all");
        assert_eq!(left("2", 6_500), ms(0));
    }
}
