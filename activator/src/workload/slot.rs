//! Waiting for a pod, and leave to use one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lull_traces::TraceParent;
use tokio::{
    sync::{Mutex, OwnedMutexGuard, oneshot},
    time::{Instant, timeout_at},
};

use super::{Phase, SHORT_AGAIN, State, Wake, Workload};
use crate::{hold::Ask, hub::micros, metrics::Reason, pod::Pod, trace, who::Who};

/// What any held request or connection takes beside the caller's own bytes; 6.7 KiB were measured
/// (`make bench-activator`).
const BASE_BYTES: usize = 8 << 10;

/// Leave to send one request or connection to a pod; dropping it says that it has ended.
#[derive(Debug)]
#[must_use = "dropping the slot gives it back"]
pub(crate) struct Slot {
    pub(super) workload: Arc<Workload>,
    pub(super) pod: Arc<Pod>,
    pub(super) ask: Ask,
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// Not among what the workload is forwarding.
    pub(super) is_resting: bool,
    /// Whose turn it is.
    pub(super) turns: Arc<Mutex<()>>,
}

/// The turn to look for a place on a pod's connections, or to make one more; dropping it passes it on.
#[derive(Debug)]
#[must_use = "dropping the turn passes it on"]
pub(crate) struct Turn {
    _held: OwnedMutexGuard<()>,
}

/// Who is told when it is its turn.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) slot_tx: oneshot::Sender<Slot>,
    /// What it takes of the budget.
    pub(super) bytes: usize,
}

/// A place in the line; dropping it leaves the line.
#[derive(Debug)]
struct Place<'a> {
    workload: &'a Workload,
    number: u64,
}

/// Nobody could take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldError {
    /// Too many are held.
    Full {
        /// When it may be worth to come again, seconds.
        retry_after: u64,
    },
    /// Not in time; `pods` = trusted pods that were there all the same.
    Timeout {
        /// Trusted pods that were there at the end.
        pods: usize,
    },
}

/// One who wants through: keeps the place when it comes back after a pod could not be reached.
#[derive(Debug)]
pub(crate) struct Hold {
    ask: Ask,
    /// Memory that it takes while it waits.
    bytes: usize,
    /// When holding ends.
    deadline: Instant,
    place: Option<u64>,
    /// A pod could not be reached.
    has_failed: bool,
    /// Who it is; `None` where nobody has looked.
    pub(crate) who: Option<Who>,
    /// Its span; `None` where it is not traced.
    pub(crate) span: Option<TraceParent>,
    /// Time spent in the line.
    pub(crate) waited: Duration,
    /// The wake that ended the wait, as far as it had got then.
    pub(crate) wake: Option<Wake>,
}

// === impl Workload ===

impl Workload {
    /// Waits until a pod can take it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line and gives back what may just have been granted.
    pub(crate) async fn slot(self: &Arc<Self>, hold: &mut Hold) -> Result<Slot, HoldError> {
        let (number, is_woken, slot_rx) = {
            let mut state = self.state.lock();
            if !hold.is_over()
                && let Some(slot) = self.take_in_order(&mut state, hold.ask)
            {
                return Ok(slot);
            }
            let (slot_tx, slot_rx) = oneshot::channel();
            let number = self.join(&mut state, hold, slot_tx)?;
            hold.place = Some(number);
            (number, state.trusted() == 0, slot_rx)
        };
        let start = Instant::now();
        let place = Place {
            workload: self,
            number,
        };
        let granted = timeout_at(hold.deadline, slot_rx).await;
        drop(place);
        hold.waited += start.elapsed();
        match granted {
            Ok(Ok(slot)) => {
                self.hub.metrics.held_for(hold.waited);
                let mut state = self.state.lock();
                state.recent_wait.note(hold.waited);
                // Who waited for a slot of pods that were there was not woken for.
                if is_woken {
                    hold.wake = state.wake;
                }
                drop(state);
                Ok(slot)
            }
            // The sender lives in the line for as long as we are in it: only time can run out.
            Ok(Err(_)) | Err(_) => {
                self.hub.metrics.rejected(Reason::HoldTimeout);
                let pods = self.state.lock().trusted();
                Err(HoldError::Timeout { pods })
            }
        }
    }

    /// A slot, where a pod can take it now.
    pub(crate) fn slot_at_once(self: &Arc<Self>, hold: &Hold) -> Option<Slot> {
        match hold.is_over() {
            true => None,
            false => self.take_in_order(&mut self.state.lock(), hold.ask),
        }
    }

    /// Nobody overtakes those who wait for the same.
    fn take_in_order(self: &Arc<Self>, state: &mut State, ask: Ask) -> Option<Slot> {
        match state.line.has(ask) {
            true => None,
            false => self.take(state, ask),
        }
    }

    fn join(
        self: &Arc<Self>,
        state: &mut State,
        hold: &Hold,
        slot_tx: oneshot::Sender<Slot>,
    ) -> Result<u64, HoldError> {
        let now_us = self.hub.now_us();
        let was_empty = state.line.len() == 0;
        let bytes = hold.bytes;
        let waiter = Waiter { slot_tx, bytes };
        let number = if let Some(place) = hold.place {
            state.line.rejoin(place, hold.ask, waiter, now_us);
            place
        } else {
            let bound = match self.hub.budget.admits(state.held, bytes) {
                true => self.hub.config.max_held_per_workload,
                false => 0,
            };
            match state.line.join(hold.ask, waiter, bound, now_us) {
                Ok(place) => {
                    if let Some(who) = &hold.who {
                        state.callers.note(who.address());
                    }
                    place
                }
                Err(_) => {
                    self.hub.metrics.rejected(Reason::HoldFull);
                    let retry_after = state.recent_wait.retry_after();
                    return Err(HoldError::Full { retry_after });
                }
            }
        };
        self.hub.budget.add(bytes);
        state.held.count += 1;
        state.held.bytes += bytes;
        if was_empty {
            state.line_since_us = now_us;
            self.line_begins(state, hold);
        }
        Ok(number)
    }

    /// `hold` is the first one in the line.
    fn line_begins(self: &Arc<Self>, state: &mut State, hold: &Hold) {
        if state.trusted() == 0 {
            // Who comes back from a pod that could not be reached goes on with its wake.
            let is_in_it = hold.place.is_some() || state.forwarding > 0;
            let goes_on = is_in_it && state.wake.is_some_and(|wake| !wake.has_ended());
            if !goes_on {
                state.wake = Some(Wake::begin(hold.span));
                state.woken_by.clone_from(&hold.who);
            }
            self.call_for_pods(state);
            return;
        }
        let now_us = self.hub.now_us();
        let told = |at_us: u64| now_us.saturating_sub(at_us) < micros(SHORT_AGAIN);
        if !state.short_told_us.is_some_and(told) {
            state.short_told_us = Some(now_us);
            self.hub.raise_edge();
        }
    }
}

// === impl Slot ===

impl Slot {
    /// The pod's uid: upstream connections are never shared with another pod of the same address.
    pub(crate) fn pod_uid(&self) -> &str {
        &self.pod.uid
    }

    /// Where the pod's app listens, behind the queue-proxy.
    pub(crate) fn app(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), self.ask.app_port)
    }

    /// Waits for the turn at connections that carry many requests. Of those who are let through at once
    /// each would make one of its own: the first is in no pool before it has been made.
    ///
    /// `None` = meanwhile the pod could not be reached, or has gone.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line.
    pub(crate) async fn turn(&self) -> Option<Turn> {
        if let Ok(held) = Arc::clone(&self.turns).try_lock_owned() {
            return Some(Turn { _held: held });
        }
        let held = Arc::clone(&self.turns).lock_owned().await;
        let mut state = self.workload.state.lock();
        let is_trusted = state.entry_of(&self.pod).is_some_and(|it| it.trusted);
        is_trusted.then_some(Turn { _held: held })
    }

    /// The pod could not be reached: it is left alone for a moment and probed again.
    pub(crate) fn eject(self) {
        self.workload.eject(&self.pod);
    }

    /// The pod broke off what it was sent: others get it first, where there are some.
    pub(crate) fn avoid(self) {
        self.workload.avoid(&self.pod, self.ask.app_port);
    }

    /// The pod's first byte for somebody who was held: a wake that has not ended yet has.
    pub(crate) fn answered(&self) {
        let ended = {
            let mut state = self.workload.state.lock();
            let wake = state.wake.as_mut();
            let ended = wake
                .filter(|wake| wake.is_answering())
                .and_then(|wake| wake.reached(Phase::FirstByte).then_some(*wake));
            if let Some(wake) = &ended {
                state.has_woken(wake);
            }
            ended
        };
        if let Some(wake) = ended {
            let Workload {
                namespace,
                name,
                hub,
                ..
            } = &*self.workload;
            hub.metrics.woken(&wake);
            trace::woken(&hub.traces, (namespace, name), &wake);
        }
    }

    /// What it is for is open but not in use, or in use again; until told otherwise it is in use.
    pub(crate) fn set_resting(&mut self, is_resting: bool) {
        if std::mem::replace(&mut self.is_resting, is_resting) == is_resting {
            return;
        }
        let mut state = self.workload.state.lock();
        state.forwarding = match is_resting {
            true => state.forwarding.saturating_sub(1),
            false => state.forwarding + 1,
        };
    }

    /// The pod was reached.
    pub(crate) fn connected(&self) {
        let mut state = self.workload.state.lock();
        if let Some(entry) = state.entry_of(&self.pod) {
            entry.failures = 0;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.set_resting(false);
        self.workload.give_back(&self.pod, self.ask);
    }
}

// === impl Place ===

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.workload.state.lock();
        let now_us = self.workload.hub.now_us();
        let Some(waiter) = state.line.leave(self.number, now_us) else {
            return;
        };
        self.workload.has_left_line(&mut state, &waiter);
        if state.line.len() == 0 && state.forwarding == 0 {
            // Nobody is left whose answer could end the wake: a later one's must not.
            state.wake = None;
        }
    }
}

// === impl Hold ===

impl Hold {
    /// For something of which nothing but the connection is in memory.
    pub(crate) fn new(ask: Ask, deadline: Instant) -> Self {
        Self {
            ask,
            bytes: BASE_BYTES,
            deadline,
            place: None,
            has_failed: false,
            who: None,
            span: None,
            waited: Duration::ZERO,
            wake: None,
        }
    }

    /// The pod that it got could not be reached: it wants another.
    pub(crate) fn failed(&mut self) {
        self.has_failed = true;
    }

    /// Whether it has tried for long enough; at the first try nobody looks at the clock.
    fn is_over(&self) -> bool {
        self.has_failed && Instant::now() >= self.deadline
    }

    /// The same with so many bytes of the caller's in memory.
    pub(crate) fn with_bytes(self, bytes: usize) -> Self {
        Self {
            bytes: self.bytes + bytes,
            ..self
        }
    }
}
