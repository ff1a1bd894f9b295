//! One workload: its pods, who is held for it, and who is let through to which pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use lull_contract::{
    report::{HeldWorkload, Load, Ways, Woken},
    scaled_workload::WorkloadPort,
    settings::Settings,
};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    budget::Amount,
    hold::Line,
    hub::{Hub, Owned, micros},
    pod::Pod,
    share::Share,
    ways::WayCounts,
    who::{Counts, Who},
};

mod pods;
mod recent_wait;
mod slot;
mod wake;

use pods::Entry;
use recent_wait::RecentWait;
use slot::Waiter;
pub(crate) use slot::{Hold, HoldError, Slot, Turn};
pub(crate) use wake::{Phase, Wake};

/// The edge is raised again after these pauses while somebody is held and no pod is there.
const WAKE_AGAIN: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// And then with this one.
const WAKE_AGAIN_EVERY: Duration = Duration::from_secs(5);
/// Where slots are short, the line comes and goes with every request: the autoscaler is told of it at
/// once no more often than this, since each time costs it a report.
const SHORT_AGAIN: Duration = Duration::from_millis(100);
/// For so long the autoscaler is told of a wake that has ended: ten of its pulls.
const WOKEN_TOLD: Duration = Duration::from_secs(10);

/// A workload that we listen for.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) ways: WayCounts,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

/// What the ScaledWorkload says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    /// A deleted and recreated one is another object, and the same to those who are held.
    pub(crate) uid: String,
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) ports: Vec<WorkloadPort>,
    pub(crate) settings: Settings,
    /// Names of its public Services.
    pub(crate) services: Vec<String>,
    /// The Services point at the pods: callers had better go there.
    pub(crate) serve: bool,
}

#[derive(Debug)]
struct State {
    spec: Arc<Spec>,
    /// The ScaledWorkload is gone; stragglers are served.
    left: bool,
    pods: Vec<Entry>,
    line: Line<Waiter>,
    /// What those in the line take.
    held: Amount,
    /// When the line began, [`Hub::now_us`].
    line_since_us: u64,
    /// The last wake, which may be under way.
    wake: Option<Wake>,
    /// Who was the first one held of it.
    woken_by: Option<Who>,
    /// Who was held most often.
    callers: Counts,
    /// The last wake that ended, and when.
    woken: Option<(Woken, Instant)>,
    recent_wait: RecentWait,
    forwarding: u64,
    /// Which of the pods' slots are ours.
    share: Share,
    /// Where the next tie starts.
    cursor: usize,
    /// Names of the pods that have no address yet.
    coming: BTreeSet<String>,
    /// While pods are on their way, those that are here take no more than their target.
    spreading: Option<Owned>,
    /// Raises the edge again while somebody waits and no pod is there.
    waking: Option<Owned>,
    /// When the edge was raised last for a line that began while pods were there,
    /// [`Hub::now_us`].
    short_told_us: Option<u64>,
    /// App port to where we listen for it.
    listening: BTreeMap<u16, SocketAddr>,
    /// What was told last, and the number of the report in which it was new.
    told: (Told, u64),
}

/// What the autoscaler is told.
#[derive(Debug, Clone, Default, PartialEq)]
struct Told {
    held: Load,
    forwarding: u64,
    ports: Vec<u16>,
    woken: Option<Woken>,
}

/// For `/workloads`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    namespace: String,
    name: String,
    held: u64,
    held_bytes: u64,
    forwarding: u64,
    pods_known: usize,
    pods_trusted: usize,
    ports: Vec<u16>,
    left: bool,
    connections: Ways,
}

// === impl Workload ===

impl Workload {
    pub(crate) fn new((namespace, name): (String, String), spec: Spec, hub: Arc<Hub>) -> Arc<Self> {
        Arc::new(Self {
            namespace,
            name,
            ways: WayCounts::default(),
            hub,
            state: Mutex::new(State {
                spec: Arc::new(spec),
                left: false,
                pods: Vec::new(),
                line: Line::default(),
                held: Amount::default(),
                line_since_us: 0,
                wake: None,
                woken_by: None,
                callers: Counts::default(),
                woken: None,
                recent_wait: RecentWait::default(),
                forwarding: 0,
                share: Share::WHOLE,
                cursor: 0,
                coming: BTreeSet::new(),
                spreading: None,
                waking: None,
                short_told_us: None,
                listening: BTreeMap::new(),
                told: (Told::default(), 0),
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
            if state.spec.uid != spec.uid {
                self.begin_anew(&mut state);
            }
            state.spec = Arc::new(spec);
            state.left = false;
        }
        // A limit may have grown.
        self.dispatch();
    }

    /// Takes a new part of the pods' slots.
    pub(crate) fn set_share(self: &Arc<Self>, share: Share) {
        if std::mem::replace(&mut self.state.lock().share, share) != share {
            self.dispatch();
        }
    }

    /// The object has been recreated: who was held for the old one is not told of the new one, but
    /// whoever still is, is held for that from now on.
    fn begin_anew(&self, state: &mut State) {
        state.callers = Counts::default();
        if state.line.len() > 0 {
            self.hub.raise_edge();
        }
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

    /// We listen for `app_port` at `address` from now on.
    pub(crate) fn listens(&self, app_port: u16, address: SocketAddr) {
        self.state.lock().listening.insert(app_port, address);
    }

    /// We listen for `app_port` at `address` no more; it may be elsewhere by now.
    pub(crate) fn listens_no_more(&self, app_port: u16, address: SocketAddr) {
        let mut state = self.state.lock();
        if state.listening.get(&app_port) == Some(&address) {
            state.listening.remove(&app_port);
        }
    }

    pub(crate) fn listening(&self, app_port: u16) -> Option<SocketAddr> {
        self.state.lock().listening.get(&app_port).copied()
    }

    /// For the autoscaler, in its report number `sequence`; `None` where nothing has changed after
    /// the one `since`.
    pub(crate) fn report(&self, sequence: u64, since: Option<u64>) -> Option<HeldWorkload> {
        let now_us = self.hub.now_us();
        let mut state = self.state.lock();
        let told = Told {
            held: state.line.load(now_us),
            forwarding: state.forwarding,
            ports: state.listening.values().map(SocketAddr::port).collect(),
            woken: state.woken_lately(),
        };
        if state.told.0 != told {
            state.told = (told.clone(), sequence);
        }
        if since.is_some_and(|since| state.told.1 <= since) {
            return None;
        }
        Some(HeldWorkload {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: state.spec.uid.clone(),
            ports: told.ports,
            held_for_us: match told.held.in_flight {
                0 => 0,
                _ => now_us.saturating_sub(state.line_since_us),
            },
            held: told.held,
            forwarding: told.forwarding,
            woken: told.woken,
            // Whenever they change, so does what was held.
            callers: state.callers.told(),
            ways: self.ways.told(),
        })
    }

    /// For people.
    pub(crate) fn page(&self) -> Page {
        let state = self.state.lock();
        Page {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            held: state.line.len() as u64,
            held_bytes: state.held.bytes as u64,
            forwarding: state.forwarding,
            pods_known: state.pods.len(),
            pods_trusted: state.trusted(),
            ports: state.listening.values().map(SocketAddr::port).collect(),
            left: state.left,
            connections: self.ways.told(),
        }
    }

    /// Gives back what `waiter` took of the budget.
    fn has_left_line(&self, state: &mut State, waiter: &Waiter) {
        self.hub.budget.sub(waiter.bytes);
        state.held.count = state.held.count.saturating_sub(1);
        state.held.bytes = state.held.bytes.saturating_sub(waiter.bytes);
    }

    /// Tells the autoscaler that somebody waits and no pod is there, now and again until one is.
    fn call_for_pods(self: &Arc<Self>, state: &mut State) {
        self.hub.raise_edge();
        state.waking = Some(self.hub.spawn(wake_again(Arc::downgrade(self))));
    }

    /// A pod has gone or is not trusted any more: the last one may be missed.
    fn lost_pod(self: &Arc<Self>, state: &mut State) {
        if state.line.len() > 0 && state.trusted() == 0 && state.waking.is_none() {
            self.call_for_pods(state);
        }
    }

    /// Whether somebody waits and no pod is there; where it is not so, nobody asks again.
    fn still_wakes(&self) -> bool {
        let mut state = self.state.lock();
        let wakes = state.line.len() > 0 && state.trusted() == 0;
        if !wakes {
            // The handle of the very task that asks is dropped by it: it only ends at its next pause.
            state.waking = None;
        }
        wakes
    }

    /// Lets through whoever can go, in order.
    pub(crate) fn dispatch(self: &Arc<Self>) {
        let mut granted = Vec::new();
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            if state.line.len() == 0 {
                return;
            }
            let now_us = self.hub.now_us();
            // The line is set aside, so that the pods can be changed while it is looked through.
            let mut line = std::mem::take(&mut state.line);
            while let Some(turn) = line.serve_first(now_us, |ask| self.take(state, ask)) {
                granted.push(turn);
            }
            state.line = line;
            for (waiter, _) in &granted {
                self.has_left_line(state, waiter);
            }
        }
        // Out of the lock: who has just left drops the slot, which comes back here.
        for (waiter, slot) in granted {
            let _ = waiter.slot_tx.send(slot);
        }
    }
}

async fn wake_again(workload: Weak<Workload>) {
    let pauses = WAKE_AGAIN
        .into_iter()
        .chain(std::iter::repeat(WAKE_AGAIN_EVERY));
    for pause in pauses {
        tokio::time::sleep(pause).await;
        let Some(workload) = workload.upgrade().filter(|it| it.still_wakes()) else {
            return;
        };
        workload.hub.raise_edge();
    }
}

// === impl State ===

impl State {
    fn trusted(&self) -> usize {
        self.pods.iter().filter(|entry| entry.trusted).count()
    }

    fn woken_lately(&self) -> Option<Woken> {
        let (woken, at) = self.woken.as_ref()?;
        (at.elapsed() < WOKEN_TOLD).then(|| woken.clone())
    }

    /// Takes note of the end of the wake.
    fn has_woken(&mut self, wake: &Wake) {
        let number = self.woken.as_ref().map_or(0, |(woken, _)| woken.number) + 1;
        let phases = wake.phases();
        let phases_us = phases
            .map(|(phase, took)| (phase.name().to_owned(), micros(took)))
            .collect();
        let woken = Woken {
            number,
            phases_us,
            by: self.woken_by.as_ref().map(Who::seen),
        };
        self.woken = Some((woken, Instant::now()));
    }

    fn entry_of(&mut self, pod: &Pod) -> Option<&mut Entry> {
        self.pods.iter_mut().find(|entry| entry.pod.uid == pod.uid)
    }
}
