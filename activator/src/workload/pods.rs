//! The pods of a workload: which are trusted, what each has in flight, who is asked.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use lull_process::backoff::doubled;
use tokio::sync::Mutex;

use super::{Phase, Slot, State, Workload};
use crate::{hold::Ask, hub::Owned, pick::pick, pod::Pod, probe};

/// First pause before a pod that could not be reached is probed again; it doubles with each
/// failure, since the first ones are mostly a mesh sidecar that starts a moment later.
const EJECT_FIRST: Duration = Duration::from_millis(50);
/// Longest such pause.
const EJECT_MOST: Duration = Duration::from_secs(1);
/// The pods of one wake come within about this time: for so long the first ones without a hard
/// limit are not given what the others are made for.
const SPREAD: Duration = Duration::from_secs(2);

/// What a pod has in flight, by our own count.
#[derive(Debug, Clone, Copy, Default)]
struct InFlight {
    /// HTTP requests: these take the pod's slots.
    requests: u32,
    /// Spliced connections: their requests are not visible here, so they take none.
    connections: u32,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) pod: Arc<Pod>,
    pub(super) trusted: bool,
    in_flight: InFlight,
    /// Connects that failed since the last that did not.
    pub(super) failures: u32,
    /// Runs while the pod is not trusted.
    prober: Option<Owned>,
    /// Whose turn it is at connections that carry many requests.
    turns: Arc<Mutex<()>>,
}

// === impl Workload ===

impl Workload {
    /// Whether a pod can take something for `app_port`, but for its slots.
    pub(crate) fn has_pod(&self, app_port: u16) -> bool {
        let state = self.state.lock();
        state.pods.iter().any(|entry| entry.serves(app_port))
    }

    /// Takes note of a pod as it is now.
    pub(crate) fn put_pod(self: &Arc<Self>, pod: &Arc<Pod>) {
        if !pod.leaving {
            self.state.lock().saw_pod(pod);
        }
        if pod.leaving {
            return self.drop_pod(&pod.name);
        }
        let Some(ip) = pod.ip else {
            return self.wait_for_pod(&pod.name);
        };
        {
            let mut state = self.state.lock();
            state.coming.remove(&pod.name);
            let known = state.pods.iter_mut().find(|e| e.pod.name == pod.name);
            match known {
                Some(entry) if entry.pod.uid == pod.uid && entry.pod.ip == Some(ip) => {
                    let fell = entry.pod.ready && !pod.ready;
                    entry.pod = Arc::clone(pod);
                    if !fell {
                        return;
                    }
                    self.distrust(entry, Duration::ZERO);
                }
                Some(entry) => *entry = self.entry(pod),
                None => {
                    // In the order of names, which all activators see alike: slots are dealt by it.
                    let place = state.pods.partition_point(|e| e.pod.name < pod.name);
                    state.pods.insert(place, self.entry(pod));
                }
            }
            self.lost_pod(&mut state);
        }
        // With the pods, the slots that are ours may have become others.
        self.dispatch();
    }

    /// The pod is on its way. It is so all the time: if it were not for a moment, those that are here would
    /// be given everybody who is to be spread.
    fn wait_for_pod(self: &Arc<Self>, name: &str) {
        self.lose_pod(name, |coming| {
            coming.insert(name.to_owned());
            false
        });
    }

    /// The pod is none of the workload's, or none that can be used.
    pub(crate) fn drop_pod(self: &Arc<Self>, name: &str) {
        self.lose_pod(name, |coming| coming.remove(name));
    }

    /// The pod can't be used; `note` says whether those on their way are fewer for it.
    fn lose_pod(self: &Arc<Self>, name: &str, note: impl FnOnce(&mut BTreeSet<String>) -> bool) {
        {
            let mut state = self.state.lock();
            let are_fewer = note(&mut state.coming);
            let before = state.pods.len();
            state.pods.retain(|e| e.pod.name != name);
            if state.pods.len() == before && !are_fewer {
                return;
            }
            self.lost_pod(&mut state);
        }
        // Those that are left are dealt anew, and there may be nobody any more to spread for.
        self.dispatch();
    }

    /// Those without a queue-proxy are these, and no others.
    pub(crate) fn keep_plain(self: &Arc<Self>, plain: &[Arc<Pod>]) {
        let mut gone: Vec<String> = {
            let state = self.state.lock();
            let known = state.pods.iter().map(|entry| &entry.pod);
            let known = known.filter(|pod| pod.admin_port.is_none());
            known.map(|pod| pod.name.clone()).collect()
        };
        gone.retain(|name| plain.iter().all(|pod| pod.name != *name));
        for name in &gone {
            self.drop_pod(name);
        }
        for pod in plain {
            self.put_pod(pod);
        }
    }

    /// A slot at the pod whose turn it is.
    pub(super) fn take(self: &Arc<Self>, state: &mut State, ask: Ask) -> Option<Slot> {
        let limit = state.spec.settings.container_concurrency;
        let hard = (ask.takes_slot && limit > 0).then_some(limit);
        let soft = state.spread_limit();
        let (share, count) = (state.share, state.pods.len());
        let usable = |(rank, entry): (usize, &Entry)| {
            let ours = |limit| share.of_pod(limit, (rank, count));
            let InFlight {
                requests,
                connections,
            } = entry.in_flight;
            let all = requests.saturating_add(connections);
            let has_room = hard.is_none_or(|limit| requests < ours(limit))
                && soft.is_none_or(|limit| all < ours(limit));
            (entry.serves(ask.app_port) && has_room).then_some(all)
        };
        let index = pick(state.pods.iter().enumerate().map(usable), state.cursor)
            .or_else(|| state.lends(hard?, ask.app_port))?;
        let entry = state.pods.get_mut(index)?;
        let pod = Arc::clone(&entry.pod);
        let address = SocketAddr::new(pod.ip?, *pod.ports.get(&ask.app_port)?);
        *entry.in_flight.of(ask) += 1;
        state.cursor = index + 1;
        state.forwarding += 1;
        Some(Slot {
            workload: Arc::clone(self),
            pod,
            ask,
            address,
            is_resting: false,
            turns: Arc::clone(&entry.turns),
        })
    }

    pub(super) fn give_back(self: &Arc<Self>, pod: &Pod, ask: Ask) {
        {
            let mut state = self.state.lock();
            state.forwarding = state.forwarding.saturating_sub(1);
            if let Some(entry) = state.entry_of(pod) {
                let count = entry.in_flight.of(ask);
                *count = count.saturating_sub(1);
            }
            if state.line.len() == 0 {
                return;
            }
        }
        self.dispatch();
    }

    /// The pod is left alone for a moment and probed again.
    pub(super) fn eject(self: &Arc<Self>, pod: &Pod) {
        let mut state = self.state.lock();
        self.eject_in(&mut state, pod);
    }

    /// The pod is left alone for a moment where another one serves `app_port`. Else it is not: it may be
    /// what a caller asks for at which the app breaks, and such a caller must not take the last pod from the
    /// others.
    pub(super) fn avoid(self: &Arc<Self>, pod: &Pod, app_port: u16) {
        // In one go: two that break off at once must not each count on the other.
        let mut state = self.state.lock();
        let mut others = state.pods.iter().filter(|entry| entry.pod.uid != pod.uid);
        let has_others = others.any(|entry| entry.serves(app_port));
        if has_others {
            self.eject_in(&mut state, pod);
        }
    }

    fn eject_in(self: &Arc<Self>, state: &mut State, pod: &Pod) {
        // One failure after the other counts, not those that were under way with the first.
        let Some(entry) = state.entry_of(pod).filter(|entry| entry.trusted) else {
            return;
        };
        let pause = doubled(EJECT_FIRST, entry.failures, EJECT_MOST);
        entry.failures += 1;
        self.distrust(entry, pause);
        self.lost_pod(state);
    }

    /// Some queue-proxy takes connections.
    fn heard_queue_proxy(&self) {
        if let Some(wake) = &mut self.state.lock().wake {
            wake.reached(Phase::Listening);
        }
    }

    fn trust(self: &Arc<Self>, uid: &str) {
        {
            let mut state = self.state.lock();
            let Some(entry) = state.pods.iter_mut().find(|e| e.pod.uid == uid) else {
                return;
            };
            entry.trusted = true;
            entry.prober = None;
            if state.trusted() == 1 && state.line.len() > 0 {
                state.spreading = Some(self.hub.spawn(spread(Arc::downgrade(self))));
            }
            if let Some(wake) = &mut state.wake {
                wake.reached(Phase::Answering);
            }
        }
        self.dispatch();
    }

    fn entry(self: &Arc<Self>, pod: &Arc<Pod>) -> Entry {
        let mut entry = Entry {
            pod: Arc::clone(pod),
            trusted: false,
            in_flight: InFlight::default(),
            failures: 0,
            prober: None,
            turns: Arc::default(),
        };
        self.distrust(&mut entry, Duration::ZERO);
        entry
    }

    fn distrust(self: &Arc<Self>, entry: &mut Entry, pause: Duration) {
        entry.trusted = false;
        let Some(ip) = entry.pod.ip else { return };
        let admin = entry.pod.admin_port;
        let admin = admin.map(|port| SocketAddr::new(ip, port));
        let (workload, pod) = (Arc::downgrade(self), Arc::clone(&entry.pod));
        let hub = Arc::clone(&self.hub);
        entry.prober = Some(self.hub.spawn(async move {
            match admin {
                Some(admin) => {
                    let listens = || {
                        if let Some(workload) = workload.upgrade() {
                            workload.heard_queue_proxy();
                        }
                    };
                    probe::until_ready(admin, pause, &hub.probes, listens).await;
                }
                // There is nobody to ask: whether it takes traffic shows when it gets some.
                None => tokio::time::sleep(pause).await,
            }
            if let Some(workload) = workload.upgrade() {
                workload.trust(&pod.uid);
            }
        }));
    }
}

/// Lets everybody through after [`SPREAD`], wherever the other pods are.
async fn spread(workload: Weak<Workload>) {
    tokio::time::sleep(SPREAD).await;
    if let Some(workload) = workload.upgrade() {
        // The handle of this very task is dropped by it, which only ends it at its next pause.
        workload.state.lock().spreading = None;
        workload.dispatch();
    }
}

// === impl Entry ===

impl Entry {
    /// Whether it can take something for `app_port`, but for its slots.
    fn serves(&self, app_port: u16) -> bool {
        self.trusted && self.pod.ports.contains_key(&app_port)
    }
}

// === impl State ===

impl State {
    /// The pod that takes one of ours although no slot there is ours, where all pods that have some
    /// for us can't be used, for longer than it takes those of one wake to come: a pod that never
    /// gets ready must not shut out whoever came by us.
    fn lends(&self, limit: u32, app_port: u16) -> Option<usize> {
        let count = self.pods.len();
        let usable = || {
            let all = self.pods.iter().enumerate();
            all.filter(move |(_, entry)| entry.serves(app_port))
        };
        let has_ours = usable().any(|(rank, _)| self.share.of_pod(limit, (rank, count)) > 0);
        if has_ours || self.spreading.is_some() {
            return None;
        }
        let place = self.share.among_lenders(usable().count())?;
        let (index, entry) = usable().nth(place)?;
        (entry.in_flight.requests == 0).then_some(index)
    }

    /// What a pod without a hard limit takes at most, while others are on their way.
    fn spread_limit(&self) -> Option<u32> {
        let settings = &self.spec.settings;
        let others_come = !self.coming.is_empty() || self.trusted() < self.pods.len();
        let spreads =
            self.spreading.is_some() && others_come && settings.container_concurrency == 0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a saturating cast of a number that is not negative"
        )]
        // A target of less than one still lets one through.
        spreads.then(|| settings.target.max(1.0) as u32)
    }

    fn saw_pod(&mut self, pod: &Pod) {
        if let Some(wake) = &mut self.wake {
            wake.saw_pod(pod);
        }
    }
}

// === impl InFlight ===

impl InFlight {
    fn of(&mut self, ask: Ask) -> &mut u32 {
        match ask.takes_slot {
            true => &mut self.requests,
            false => &mut self.connections,
        }
    }
}

#[cfg(test)]
mod tests;
