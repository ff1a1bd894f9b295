//! One workload: its pods, who is held for it, and who is let through to which pod.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use lull_contract::{
    report::{HeldWorkload, Load},
    scaled_workload::WorkloadPort,
    settings::Settings,
};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    hold::{Ask, Line},
    hub::{Hub, Owned},
    metrics::Reason,
    pick::{InFlight, pick},
    pod::Pod,
    probe,
};

/// First pause before a pod that could not be reached is probed again; it doubles with each
/// failure, since the first ones are mostly a mesh sidecar that starts a moment later.
const EJECT_FIRST: Duration = Duration::from_millis(50);
/// Longest such pause.
const EJECT_MOST: Duration = Duration::from_secs(1);
/// The edge is raised again after these pauses while somebody is held and no pod is there.
const WAKE_AGAIN: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// And then with this one.
const WAKE_AGAIN_EVERY: Duration = Duration::from_secs(5);

/// A workload that we listen for.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

/// What the ScaledWorkload says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) ports: Vec<WorkloadPort>,
    pub(crate) settings: Settings,
    /// The Services point at the pods: callers had better go there.
    pub(crate) serve: bool,
}

#[derive(Debug)]
struct State {
    spec: Arc<Spec>,
    /// The ScaledWorkload is gone; stragglers are served.
    left: bool,
    pods: Vec<Entry>,
    line: Line<oneshot::Sender<Slot>>,
    forwarding: u64,
    /// Where the next tie starts.
    cursor: usize,
    /// Raises the edge again; replaced with each time that the line begins.
    waking: Option<Owned>,
    /// App port to where we listen for it.
    listening: BTreeMap<u16, SocketAddr>,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    trusted: bool,
    in_flight: InFlight,
    /// Connects that failed since the last that did not.
    failures: u32,
    /// Runs while the pod is not trusted.
    prober: Option<Owned>,
}

/// Leave to send one request or connection to a pod; dropping it says that it has ended.
#[derive(Debug)]
#[must_use = "dropping the slot gives it back"]
pub(crate) struct Slot {
    workload: Arc<Workload>,
    pod: Arc<Pod>,
    ask: Ask,
    /// Where to connect.
    pub(crate) address: SocketAddr,
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
    Full,
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
    /// When holding ends.
    deadline: Instant,
    place: Option<u64>,
    /// Time spent in the line.
    pub(crate) waited: Duration,
}

/// For `/workloads`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    namespace: String,
    name: String,
    held: u64,
    forwarding: u64,
    pods_known: usize,
    pods_trusted: usize,
    ports: Vec<u16>,
    left: bool,
}

// === impl Workload ===

impl Workload {
    pub(crate) fn new(
        (namespace, name, uid): (String, String, String),
        spec: Spec,
        hub: Arc<Hub>,
    ) -> Arc<Self> {
        Arc::new(Self {
            namespace,
            name,
            uid,
            hub,
            state: Mutex::new(State {
                spec: Arc::new(spec),
                left: false,
                pods: Vec::new(),
                line: Line::default(),
                forwarding: 0,
                cursor: 0,
                waking: None,
                listening: BTreeMap::new(),
            }),
        })
    }

    pub(crate) fn spec(&self) -> Arc<Spec> {
        Arc::clone(&self.state.lock().spec)
    }

    /// Takes a new spec; a workload that had left is back.
    pub(crate) fn set_spec(self: &Arc<Self>, spec: Spec) {
        {
            let mut state = self.state.lock();
            state.spec = Arc::new(spec);
            state.left = false;
        }
        // A limit may have grown.
        self.dispatch();
    }

    /// The ScaledWorkload is gone.
    pub(crate) fn leave(&self) {
        self.state.lock().left = true;
    }

    pub(crate) fn has_left(&self) -> bool {
        self.state.lock().left
    }

    /// Whether callers should open their next connection elsewhere.
    pub(crate) fn moves_on(&self) -> bool {
        let state = self.state.lock();
        state.left || state.spec.serve || self.hub.is_draining()
    }

    /// Whether a pod can take something for `app_port`, but for its slots.
    pub(crate) fn has_pod(&self, app_port: u16) -> bool {
        let state = self.state.lock();
        state
            .pods
            .iter()
            .any(|entry| entry.trusted && entry.pod.ports.contains_key(&app_port))
    }

    /// Takes note of a pod as it is now.
    pub(crate) fn put_pod(self: &Arc<Self>, pod: &Arc<Pod>) {
        let Some(ip) = pod.ip.filter(|_| !pod.leaving) else {
            self.drop_pod(&pod.name);
            return;
        };
        let mut state = self.state.lock();
        let known = state.pods.iter_mut().find(|e| e.pod.name == pod.name);
        match known {
            Some(entry) if entry.pod.uid == pod.uid && entry.pod.ip == Some(ip) => {
                let fell = entry.pod.ready && !pod.ready;
                entry.pod = Arc::clone(pod);
                if fell {
                    self.distrust(entry, Duration::ZERO);
                }
            }
            Some(entry) => *entry = self.entry(pod),
            None => state.pods.push(self.entry(pod)),
        }
    }

    pub(crate) fn drop_pod(&self, name: &str) {
        self.state.lock().pods.retain(|e| e.pod.name != name);
    }

    pub(crate) fn set_listening(&self, app_port: u16, address: Option<SocketAddr>) {
        let mut state = self.state.lock();
        match address {
            Some(address) => state.listening.insert(app_port, address),
            None => state.listening.remove(&app_port),
        };
    }

    pub(crate) fn listening(&self, app_port: u16) -> Option<SocketAddr> {
        self.state.lock().listening.get(&app_port).copied()
    }

    /// For the autoscaler.
    pub(crate) fn report(&self) -> HeldWorkload {
        let now_us = self.hub.now_us();
        let mut state = self.state.lock();
        let held: Load = state.line.load(now_us);
        HeldWorkload {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            ports: state.listening.values().map(SocketAddr::port).collect(),
            held,
            forwarding: state.forwarding,
        }
    }

    /// For people.
    pub(crate) fn page(&self) -> Page {
        let state = self.state.lock();
        Page {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            held: state.line.len() as u64,
            forwarding: state.forwarding,
            pods_known: state.pods.len(),
            pods_trusted: state.trusted(),
            ports: state.listening.values().map(SocketAddr::port).collect(),
            left: state.left,
        }
    }

    /// Waits until a pod can take it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line and gives back what may just have been granted.
    pub(crate) async fn slot(self: &Arc<Self>, hold: &mut Hold) -> Result<Slot, HoldError> {
        let (slot_tx, slot_rx) = oneshot::channel();
        let number = {
            let mut state = self.state.lock();
            // Nobody overtakes those who wait for the same.
            if !state.line.has(hold.ask)
                && let Some(slot) = self.take(&mut state, hold.ask)
            {
                return Ok(slot);
            }
            let number = self.join(&mut state, hold, slot_tx)?;
            hold.place = Some(number);
            number
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

    fn join(
        self: &Arc<Self>,
        state: &mut State,
        hold: &Hold,
        slot_tx: oneshot::Sender<Slot>,
    ) -> Result<u64, HoldError> {
        let now_us = self.hub.now_us();
        let config = &self.hub.config;
        let was_empty = state.line.len() == 0;
        let number = if let Some(place) = hold.place {
            state.line.rejoin(place, hold.ask, slot_tx, now_us);
            place
        } else {
            let bound = if self.hub.held() < config.max_held_total {
                config.max_held_per_workload
            } else {
                0
            };
            match state.line.join(hold.ask, slot_tx, bound, now_us) {
                Ok(place) => place,
                Err(_) => {
                    self.hub.metrics.rejected(Reason::HoldFull);
                    return Err(HoldError::Full);
                }
            }
        };
        self.hub.add_held();
        if was_empty {
            self.hub.raise_edge();
            state.waking = Some(self.hub.spawn(wake_again(Arc::downgrade(self))));
        }
        Ok(number)
    }

    /// Whether the edge is to be raised once more; `None` when nobody is held any more.
    fn still_wakes(&self) -> Option<bool> {
        let state = self.state.lock();
        (state.line.len() > 0).then(|| state.trusted() == 0)
    }

    /// A slot at the pod whose turn it is.
    fn take(self: &Arc<Self>, state: &mut State, ask: Ask) -> Option<Slot> {
        let slots = match ask.takes_slot {
            true => state.spec.settings.container_concurrency,
            false => 0,
        };
        let usable = |entry: &Entry| {
            let serves = entry.trusted && entry.pod.ports.contains_key(&ask.app_port);
            serves.then_some(entry.in_flight)
        };
        let index = pick(state.pods.iter().map(usable), slots, state.cursor)?;
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
        })
    }

    /// Lets through whoever can go, in order.
    fn dispatch(self: &Arc<Self>) {
        let mut granted = Vec::new();
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let now_us = self.hub.now_us();
            // The line is set aside, so that the pods can be changed while it is looked through.
            let mut line = std::mem::take(&mut state.line);
            while let Some(turn) = line.serve_first(now_us, |ask| self.take(state, ask)) {
                self.hub.sub_held();
                granted.push(turn);
            }
            state.line = line;
        }
        // Out of the lock: who has just left drops the slot, which comes back here.
        for (slot_tx, slot) in granted {
            let _ = slot_tx.send(slot);
        }
    }

    fn give_back(self: &Arc<Self>, pod: &Pod, ask: Ask) {
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

    fn eject(self: &Arc<Self>, pod: &Pod) {
        self.hub.metrics.connect_failures.inc();
        let mut state = self.state.lock();
        // One failure after the other counts, not those that were under way with the first.
        let Some(entry) = state.entry_of(pod).filter(|entry| entry.trusted) else {
            return;
        };
        let pause = EJECT_FIRST
            .saturating_mul(1 << entry.failures.min(10))
            .min(EJECT_MOST);
        entry.failures += 1;
        self.distrust(entry, pause);
    }

    fn trust(self: &Arc<Self>, uid: &str) {
        {
            let mut state = self.state.lock();
            let Some(entry) = state.pods.iter_mut().find(|e| e.pod.uid == uid) else {
                return;
            };
            entry.trusted = true;
            entry.prober = None;
        }
        self.dispatch();
    }

    fn entry(self: &Arc<Self>, pod: &Arc<Pod>) -> Entry {
        let mut entry = Entry {
            pod: Arc::clone(pod),
            trusted: false,
            in_flight: InFlight {
                requests: 0,
                connections: 0,
            },
            failures: 0,
            prober: None,
        };
        self.distrust(&mut entry, Duration::ZERO);
        entry
    }

    fn distrust(self: &Arc<Self>, entry: &mut Entry, pause: Duration) {
        entry.trusted = false;
        let Some(ip) = entry.pod.ip else { return };
        let admin = SocketAddr::new(ip, entry.pod.admin_port);
        let (workload, pod) = (Arc::downgrade(self), Arc::clone(&entry.pod));
        entry.prober = Some(self.hub.spawn(async move {
            probe::until_ready(admin, pause).await;
            if let Some(workload) = workload.upgrade() {
                workload.trust(&pod.uid);
            }
        }));
    }
}

async fn wake_again(workload: Weak<Workload>) {
    let pauses = WAKE_AGAIN.into_iter().chain(std::iter::repeat(WAKE_AGAIN_EVERY));
    for pause in pauses {
        tokio::time::sleep(pause).await;
        let Some(workload) = workload.upgrade() else {
            return;
        };
        match workload.still_wakes() {
            Some(true) => workload.hub.raise_edge(),
            Some(false) => {}
            None => return,
        }
    }
}

// === impl State ===

impl State {
    fn trusted(&self) -> usize {
        self.pods.iter().filter(|entry| entry.trusted).count()
    }

    fn entry_of(&mut self, pod: &Pod) -> Option<&mut Entry> {
        self.pods.iter_mut().find(|entry| entry.pod.uid == pod.uid)
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

// === impl Slot ===

impl Slot {
    /// The pod's uid: upstream connections are never shared with another pod of the same address.
    pub(crate) fn pod_uid(&self) -> &str {
        &self.pod.uid
    }

    /// The pod could not be reached: it is left alone for a moment and probed again.
    pub(crate) fn eject(self) {
        self.workload.eject(&self.pod);
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
        self.workload.give_back(&self.pod, self.ask);
    }
}

// === impl Place ===

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.workload.state.lock();
        if state.line.leave(self.number, self.workload.hub.now_us()) {
            self.workload.hub.sub_held();
        }
    }
}

// === impl Hold ===

impl Hold {
    pub(crate) fn new(ask: Ask, deadline: Instant) -> Self {
        Self {
            ask,
            deadline,
            place: None,
            waited: Duration::ZERO,
        }
    }
}

// === impl Spec ===

impl Spec {
    /// Whether it has `app_port`.
    pub(crate) fn has_port(&self, app_port: u16) -> bool {
        self.ports.iter().any(|port| port.app_port == app_port)
    }
}

#[cfg(test)]
mod tests;
