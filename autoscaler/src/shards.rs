//! Which replica holds which shard's Lease: what one replica knows and does next.
//!
//! Pure: the API server's answers and the time since the process started go in, what to write
//! comes out. [`lease`](crate::lease) does the writing.
//!
//! Never two replicas lead one shard, and never two replicas lead by different divisions:
//! - A holder counts on its lease for [`HOLDS`] from the moment *before* its last renewal. Others
//!   wait for [`DURATION`] from when they saw that renewal, which is later; a write names the
//!   version that was read, so of two takers one wins.
//! - The leases of another division (during a rollout that changes their number) are other objects,
//!   where no version helps. So none is taken while one of them is held, and a lease that was
//!   written while its writer did not lead counts only once a list, read after that write, shows
//!   none of them held. Of two that claim at once at least one then sees the other, and who sees
//!   one lets go.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::ResourceExt;
use lull_contract::Shards;

mod holders;
mod spread;

pub use holders::{Holder, Holders};
pub use spread::preferred;

/// How long others wait for a lease that isn't renewed. A crashed holder is replaced within this
/// and one [`RENEW_EVERY`], by which a renewal is seen late: 2.9 s.
pub const DURATION: Duration = Duration::from_millis(2_400);
/// How long its holder counts on it: half a second less, for a write that is under way at its end.
pub const HOLDS: Duration = Duration::from_millis(1_900);
/// Between renewals, and between looks at others' leases.
pub const RENEW_EVERY: Duration = Duration::from_millis(500);
/// How long a lease that was given up is left to the replica that should have it.
const GRACE: Duration = Duration::from_secs(1);
/// How long another replica should have had a shard until it is handed over.
const SETTLED: Duration = Duration::from_secs(10);
/// Until a shard is handed over once more to a replica that didn't take or keep it: the pod of a
/// lost node looks ready for most of a minute.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a replica of the smaller division stays back after two claimed at once.
const STEP_BACK: Duration = Duration::from_secs(1);

/// What one replica knows of the leases, and which it holds.
#[derive(Debug)]
pub struct View {
    identity: String,
    shards: Shards,
    /// By name: those of every shard, also where there is no object yet, and those of other divisions.
    seen: HashMap<String, Seen>,
    /// By shard: since when which replica should hold it.
    wishes: HashMap<u16, Wish>,
    /// By shard: the time until which this replica leads it; zero = it doesn't.
    until: Vec<Duration>,
    /// Leases written while not leading, and the time before: no list has confirmed them yet.
    claims: HashMap<u16, Duration>,
    /// No lease is taken earlier.
    takes_from: Duration,
}

/// A lease as it was first seen: its end is measured on our own clock.
#[derive(Debug)]
struct Seen {
    lease: Lease,
    at: Duration,
}

/// Which replica should hold a shard, and when it is handed over to it.
#[derive(Debug)]
struct Wish {
    replica: String,
    due: Duration,
}

/// What is around a replica when it plans.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Time since the process started.
    pub now: Duration,
    /// Names of the replicas that are ready, this one or not.
    pub replicas: &'a BTreeSet<String>,
    /// Whether this one knows enough of the cluster to decide.
    pub is_ready: bool,
}

/// A lease that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// This shard's, with our name and the time: taken or renewed.
    Hold(u16),
    /// This shard's, with nobody's name.
    GiveUp(u16),
}

// === impl Seen ===

impl Seen {
    fn holder(&self) -> &str {
        let spec = self.lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
        holder.unwrap_or_default()
    }

    fn is_free(&self) -> bool {
        self.holder().is_empty()
    }

    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) > DURATION
    }

    fn is_held(&self, now: Duration) -> bool {
        !self.is_free() && !self.is_over(now)
    }
}

// === impl View ===

impl View {
    /// Of the replica of this name: nothing is known or held yet.
    #[must_use]
    pub fn new(identity: String, shards: Shards) -> Self {
        Self {
            identity,
            shards,
            seen: HashMap::new(),
            wishes: HashMap::new(),
            until: vec![Duration::ZERO; usize::from(shards.count())],
            claims: HashMap::new(),
            takes_from: Duration::ZERO,
        }
    }

    /// The time until which this replica leads `shard`; zero where it doesn't.
    #[must_use]
    pub fn until(&self, shard: u16) -> Duration {
        let until = self.until.get(usize::from(shard));
        until.copied().unwrap_or_default()
    }

    fn leads_until(&mut self, shard: u16, end: Duration) {
        if let Some(until) = self.until.get_mut(usize::from(shard)) {
            *until = end;
        }
    }

    /// Whether the lease of `shard` carries our name, as last seen.
    #[must_use]
    pub fn is_ours(&self, shard: u16) -> bool {
        let seen = self.seen.get(&self.shards.lease(shard));
        seen.is_some_and(|seen| seen.holder() == self.identity)
    }

    /// Who holds which shard at `now`, those of other divisions among them.
    #[must_use]
    pub fn holders(&self, now: Duration) -> Holders {
        let held = self.held(now).map(|(shards, shard, seen)| Holder {
            shards,
            shard,
            replica: seen.holder().to_owned(),
        });
        held.collect()
    }

    /// What is to be written now. What is to be given up isn't led any more when this returns.
    pub fn plan(&mut self, moment: &Moment<'_>) -> Vec<Step> {
        self.make_wishes(moment);
        let steps = self.shards.all().filter_map(|s| self.step(s, moment));
        let steps: Vec<Step> = steps.collect();
        for step in &steps {
            if let Step::GiveUp(shard) = *step {
                self.let_go(shard);
            }
        }
        if !steps.is_empty() && self.gives_way(moment.now) {
            self.takes_from = moment.now + STEP_BACK;
        }
        steps
    }

    fn make_wishes(&mut self, moment: &Moment<'_>) {
        let others = moment.replicas.iter().map(String::as_str);
        let replicas: BTreeSet<&str> = others.chain([self.identity.as_str()]).collect();
        for (shard, replica) in self.shards.all().zip(preferred(self.shards, &replicas)) {
            let wish = self.wishes.get(&shard);
            if wish.is_none_or(|wish| wish.replica != replica) {
                let wish = Wish {
                    replica: replica.to_owned(),
                    due: moment.now + SETTLED,
                };
                self.wishes.insert(shard, wish);
            }
        }
    }

    fn step(&self, shard: u16, moment: &Moment<'_>) -> Option<Step> {
        let now = moment.now;
        let seen = self.seen.get(&self.shards.lease(shard))?;
        let wish = self.wishes.get(&shard)?;
        let is_wished = wish.replica == self.identity;
        let may_take = moment.is_ready && !self.is_other_division_held(now);
        if seen.holder() == self.identity {
            // What isn't led and can't be is a claim that met another division, or what the last
            // process in this pod has left behind.
            let is_kept = self.until(shard) > now || may_take;
            let is_due = !is_wished && wish.due <= now;
            return Some(if is_kept && !is_due {
                Step::Hold(shard)
            } else {
                Step::GiveUp(shard)
            });
        }
        let is_to_be_had = if seen.is_free() {
            is_wished || now.saturating_sub(seen.at) >= GRACE
        } else {
            seen.is_over(now)
        };
        (may_take && now >= self.takes_from && is_to_be_had).then_some(Step::Hold(shard))
    }

    /// Whether a replica of another division may be leading.
    fn is_other_division_held(&self, now: Duration) -> bool {
        self.others(now).next().is_some()
    }

    /// Whether this replica holds nothing, and a larger division has a claim too.
    fn gives_way(&self, now: Duration) -> bool {
        let leads = self.until.iter().any(|until| *until > now);
        !leads
            && self
                .others(now)
                .any(|other| other.count() > self.shards.count())
    }

    /// The other divisions, once for each of their leases that is held.
    fn others(&self, now: Duration) -> impl Iterator<Item = Shards> {
        let divisions = self.held(now).map(|(shards, ..)| shards);
        divisions.filter(move |shards| *shards != self.shards)
    }

    /// Division and number of each shard whose lease is held, and that lease.
    fn held(&self, now: Duration) -> impl Iterator<Item = (Shards, u16, &Seen)> {
        self.seen.iter().filter_map(move |(name, seen)| {
            let (shards, shard) = Shards::of_lease(name)?;
            seen.is_held(now).then_some((shards, shard, seen))
        })
    }

    /// The lease as `step` writes it: a new object where it has no version yet.
    #[must_use]
    pub fn lease(&self, step: Step, at: Timestamp) -> Lease {
        let (Step::Hold(shard) | Step::GiveUp(shard)) = step;
        let name = self.shards.lease(shard);
        let seen = self.seen.get(&name).map(|seen| seen.lease.clone());
        let mut lease = seen.unwrap_or_else(|| unwritten(name));
        let current = lease.spec.take().unwrap_or_default();
        lease.spec = Some(match step {
            Step::Hold(_) => self.held_spec(&current, MicroTime(at)),
            Step::GiveUp(_) => LeaseSpec {
                holder_identity: None,
                ..current
            },
        });
        lease
    }

    fn held_spec(&self, current: &LeaseSpec, at: MicroTime) -> LeaseSpec {
        let is_renewal = current.holder_identity.as_ref() == Some(&self.identity);
        let acquired = current.acquire_time.clone().filter(|_| is_renewal);
        let transitions = current.lease_transitions.unwrap_or(0) + i32::from(!is_renewal);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs() + 1).ok(),
            acquire_time: Some(acquired.unwrap_or_else(|| at.clone())),
            renew_time: Some(at),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    /// Takes note of a write that was sent after `before` and has succeeded.
    pub fn wrote(&mut self, step: Step, before: Duration, now: Duration) {
        match step {
            // Nobody may have taken the lease for over yet, and whoever looks now sees the renewal.
            Step::Hold(shard) if self.until(shard) > now => {
                self.leads_until(shard, before + HOLDS);
            }
            Step::Hold(shard) => {
                self.claims.insert(shard, before);
            }
            Step::GiveUp(shard) => {
                if let Some(wish) = self.wishes.get_mut(&shard) {
                    wish.due = wish.due.max(now + AGAIN);
                }
            }
        }
    }

    /// Takes note of all Leases of the namespace, listed after what was [`wrote`](Self::wrote).
    pub fn see(&mut self, listed: Vec<Lease>, now: Duration) {
        let mut known = std::mem::take(&mut self.seen);
        let there: HashSet<String> = listed.iter().map(ResourceExt::name_any).collect();
        let names = self.shards.all().map(|shard| self.shards.lease(shard));
        let missing = names.filter(|name| !there.contains(name)).map(unwritten);
        let ours = listed
            .into_iter()
            .filter(|lease| Shards::of_lease(&lease.name_any()).is_some());
        self.seen = ours
            .chain(missing)
            .map(|lease| {
                let name = lease.name_any();
                let same = known
                    .remove(&name)
                    .filter(|seen| seen.lease.resource_version() == lease.resource_version());
                let at = same.map_or(now, |seen| seen.at);
                (name, Seen { lease, at })
            })
            .collect();
        self.confirm(now);
    }

    /// Leads what was claimed, unless another division is there, and nothing that is another's.
    fn confirm(&mut self, now: Duration) {
        let is_refused = self.is_other_division_held(now);
        for (shard, before) in std::mem::take(&mut self.claims) {
            if !is_refused && before + HOLDS > now {
                self.leads_until(shard, before + HOLDS);
            }
        }
        for shard in self.shards.all() {
            if !self.is_ours(shard) {
                self.let_go(shard);
            }
        }
    }

    /// Leads `shard` no more.
    pub fn let_go(&mut self, shard: u16) {
        self.claims.remove(&shard);
        self.leads_until(shard, Duration::ZERO);
    }

    /// Until the next look, where the last one began at `began`: just after another's lease ends.
    #[must_use]
    pub fn pause(&self, began: Duration, now: Duration) -> Duration {
        let others = self
            .seen
            .values()
            .filter(|seen| !seen.is_free() && seen.holder() != self.identity);
        // A millisecond more than the rest: it must be over. One that ended during the last look
        // was not over when that was planned.
        let ends = others
            .map(|seen| seen.at + DURATION + Duration::from_millis(1))
            .filter(|end| *end > began);
        let end = ends.fold(began + RENEW_EVERY, Duration::min);
        end.saturating_sub(now)
    }
}

/// A lease that isn't there yet.
fn unwritten(name: String) -> Lease {
    let metadata = ObjectMeta {
        name: Some(name),
        ..ObjectMeta::default()
    };
    Lease {
        metadata,
        spec: None,
    }
}

#[cfg(test)]
mod tests;
