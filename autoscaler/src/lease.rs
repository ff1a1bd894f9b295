//! Leadership by a Lease: one replica writes, the others watch and wake.
//!
//! A holder that can't renew stops counting itself as leader before anybody else may take over
//! (it measures from the moment *before* its last successful renewal), so two never write at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long a lease holds without renewal. A crashed leader is replaced within this and one
/// [`RENEW_EVERY`], by which a renewal is seen late: 3 s.
const DURATION: Duration = Duration::from_millis(2_500);
/// Between renewals, and between looks at another's lease.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// How much earlier than others a holder takes its lease for lost.
const MARGIN: Duration = Duration::from_millis(500);
/// Name of the Lease.
const NAME: &str = "lull-autoscaler";

/// Whether this replica leads.
#[derive(Debug, Clone)]
pub struct Leadership {
    start: Instant,
    /// Milliseconds since `start` until which the lease holds; 0 = not held.
    until_ms: Arc<AtomicU64>,
    /// Told when leadership begins.
    pub began: Arc<Notify>,
}

/// Another's lease as it was first seen: expiry is measured on our own clock.
struct Seen {
    version: Option<String>,
    at: Instant,
}

// === impl Leadership ===

impl Leadership {
    /// Not leading yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            until_ms: Arc::default(),
            began: Arc::default(),
        }
    }

    /// Whether this replica may write now.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.start.elapsed().as_millis() < u128::from(self.until_ms.load(Ordering::Acquire))
    }

    fn held_from(&self, at: Instant) {
        let until = (at + DURATION - MARGIN).saturating_duration_since(self.start);
        let was = self.is_leader();
        let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.until_ms.store(until_ms, Ordering::Release);
        if !was {
            tracing::info!("this replica leads now");
            self.began.notify_one();
        }
    }

    fn lost(&self) {
        if self.until_ms.swap(0, Ordering::AcqRel) != 0 {
            tracing::info!("this replica does not lead any more");
        }
    }

    /// Takes and renews the lease until `stop`, then gives it up at once.
    pub async fn run(
        self,
        client: Client,
        namespace: String,
        identity: String,
        stop: CancellationToken,
    ) {
        let leases: Api<Lease> = Api::namespaced(client, &namespace);
        let mut seen = Seen {
            version: None,
            at: Instant::now(),
        };
        while !stop.is_cancelled() {
            let before = Instant::now();
            match tokio::time::timeout(DURATION, attempt(&leases, &identity, &mut seen)).await {
                Ok(Ok(true)) => self.held_from(before),
                Ok(Ok(false)) => self.lost(),
                Ok(Err(error)) => tracing::warn!(%error, "lease {NAME} could not be renewed"),
                Err(_) => tracing::warn!("lease {NAME}: the API server did not answer in time"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause(self.is_leader(), seen.at.elapsed())) => {}
            }
        }
        self.lost();
        if let Err(error) = release(&leases, &identity).await {
            tracing::debug!(%error, "lease was not released; it ends by itself");
        }
    }
}

impl Default for Leadership {
    fn default() -> Self {
        Self::new()
    }
}

/// Until the next renewal, or the next look at another's lease that was seen so long ago: just
/// after its end, but no oftener than [`RENEW_EVERY`] where it has ended and can't be had.
fn pause(leads: bool, seen_for: Duration) -> Duration {
    let left = DURATION.saturating_sub(seen_for);
    if leads || left.is_zero() {
        return RENEW_EVERY;
    }
    // A millisecond more than the rest: it must be over.
    (left + Duration::from_millis(1)).min(RENEW_EVERY)
}

/// One try to hold the lease; whether it is ours now.
async fn attempt(leases: &Api<Lease>, identity: &str, seen: &mut Seen) -> kube::Result<bool> {
    let Some(mut lease) = leases.get_opt(NAME).await? else {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                ..ObjectMeta::default()
            },
            spec: Some(spec(identity, 0)),
        };
        return won(leases.create(&PostParams::default(), &lease).await);
    };
    let version = lease.resource_version();
    if seen.version != version {
        *seen = Seen {
            version,
            at: Instant::now(),
        };
    }
    let current = lease.spec.clone().unwrap_or_default();
    let holder = current.holder_identity.as_deref().unwrap_or_default();
    let free = holder.is_empty() || seen.at.elapsed() > DURATION;
    if holder != identity && !free {
        return Ok(false);
    }
    let transitions = current.lease_transitions.unwrap_or(0) + i32::from(holder != identity);
    let acquired = (holder == identity)
        .then_some(current.acquire_time)
        .flatten();
    let mut next = spec(identity, transitions);
    next.acquire_time = acquired.or(next.acquire_time);
    lease.spec = Some(next);
    won(leases.replace(NAME, &PostParams::default(), &lease).await)
}

fn spec(identity: &str, transitions: i32) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs() + 1).ok(),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    }
}

/// Somebody else was quicker: that is an answer, not a fault.
fn won(result: kube::Result<Lease>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn release(leases: &Api<Lease>, identity: &str) -> kube::Result<()> {
    let Some(mut lease) = leases.get_opt(NAME).await? else {
        return Ok(());
    };
    if let Some(spec) = lease
        .spec
        .as_mut()
        .filter(|s| s.holder_identity.as_deref() == Some(identity))
    {
        spec.holder_identity = None;
        leases.replace(NAME, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anothers_lease_is_looked_at_when_it_ends_and_a_lost_api_server_not_all_the_time() {
        let ms = Duration::from_millis;
        assert_eq!(pause(true, ms(0)), RENEW_EVERY);
        assert_eq!(pause(false, ms(100)), RENEW_EVERY);
        assert_eq!(pause(false, DURATION - ms(200)), ms(201));
        assert_eq!(pause(false, DURATION), RENEW_EVERY);
        assert_eq!(pause(false, DURATION * 4), RENEW_EVERY);
    }
}
