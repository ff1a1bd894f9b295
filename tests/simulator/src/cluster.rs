//! Pods, endpoints, an activator and requests on their way: what the controller sees and changes.

use std::{collections::VecDeque, time::Duration};

use autoscaler::demand::Reporter;
use lull_contract::report::{HeldWorkload, Lately, Load, QueueProxyReport, VERSION, Ways};
use rand::{RngExt, rngs::StdRng};

/// Length of a step of the model, seconds.
pub const STEP: f64 = 0.1;
/// Steps until callers see a change of the endpoints (kube-proxy's batches: up to 1 s).
const VIEW_LAG: usize = 10;
/// Seconds for which a pod that is let go takes requests: the shortest that there is.
const DRAIN: f64 = 2.0;
/// Activators in the endpoints.
const ACTIVATORS: usize = 2;
/// Name of the one that reports.
pub const ACTIVATOR: &str = "activator";

/// A request at a pod.
#[derive(Debug, Clone, Copy)]
struct Request {
    since: f64,
    /// Seconds of work.
    work: f64,
    /// When it is done; nothing while it waits for a slot.
    ends: Option<f64>,
    /// It came by the activator.
    forwarded: bool,
}

/// A pod of the workload.
#[derive(Debug)]
pub struct Pod {
    name: String,
    ready_at: f64,
    stopping_at: Option<f64>,
    requests: Vec<Request>,
    arrived: u64,
    in_flight_us: f64,
}

/// What callers know.
#[derive(Debug, Clone, Default)]
struct View {
    activators: bool,
    pods: Vec<String>,
}

/// The modelled cluster.
#[derive(Debug)]
pub struct Cluster {
    rng: StdRng,
    start: (f64, f64),
    /// Requests that one pod works on at a time; 0 = any number.
    slots: usize,
    now: f64,
    named: u32,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Activators are in the endpoints.
    pub activators_in: bool,
    /// Kubernetes' own endpoints are empty: nothing matches the selector.
    pub selector_held: bool,
    pods: Vec<Pod>,
    views: VecDeque<View>,
    held: VecDeque<Request>,
    held_us: f64,
    held_since: f64,
    arrived_at_activator: u64,
    /// Requests that nobody took.
    pub lost: u64,
    /// Requests in all.
    pub requests: u64,
    /// Seconds that each of those waited that were held.
    pub waits: Vec<f64>,
    /// Seconds of pods.
    pub pod_seconds: f64,
}

// === impl Cluster ===

impl Cluster {
    /// A cluster with `replicas` pods that are ready.
    #[must_use]
    pub fn new(rng: StdRng, start: (f64, f64), slots: u32, replicas: u32) -> Self {
        let mut cluster = Self {
            rng,
            start,
            slots: usize::try_from(slots).unwrap_or(usize::MAX),
            now: 0.0,
            named: 0,
            replicas: 0,
            activators_in: replicas == 0,
            selector_held: false,
            pods: Vec::new(),
            views: VecDeque::new(),
            held: VecDeque::new(),
            held_us: 0.0,
            held_since: 0.0,
            arrived_at_activator: 0,
            lost: 0,
            requests: 0,
            waits: Vec::new(),
            pod_seconds: 0.0,
        };
        cluster.scale(replicas);
        for pod in &mut cluster.pods {
            pod.ready_at = 0.0;
        }
        cluster.views.push_back(cluster.endpoints());
        cluster
    }

    /// One step with requests at `rate` a second that take `service` seconds in the mean; whether
    /// the activator holds somebody and held nobody before.
    pub fn step(&mut self, rate: f64, service: f64) -> bool {
        let held_before = self.held.len();
        self.now += STEP;
        self.views.push_back(self.endpoints());
        if self.views.len() > VIEW_LAG {
            self.views.pop_front();
        }
        self.end_requests();
        let view = self.views.front().cloned().unwrap_or_default();
        for _ in 0..self.arrivals(rate) {
            let work = -service * (1.0 - self.rng.random::<f64>()).ln();
            self.request(&view, work);
        }
        self.pour();
        self.account();
        held_before == 0 && !self.held.is_empty()
    }

    /// Poisson: as many exponential gaps as fit into a step.
    fn arrivals(&mut self, rate: f64) -> u32 {
        if rate <= 0.0 {
            return 0;
        }
        let (mut count, mut at) = (0, 0.0);
        loop {
            at -= (1.0 - self.rng.random::<f64>()).ln() / rate;
            if at > STEP {
                return count;
            }
            count += 1;
        }
    }

    fn request(&mut self, view: &View, work: f64) {
        self.requests += 1;
        let request = Request {
            since: self.now,
            work,
            ends: None,
            forwarded: false,
        };
        let activators = if view.activators { ACTIVATORS } else { 0 };
        let all = activators + view.pods.len();
        if all == 0 {
            self.lost += 1;
            return;
        }
        let chosen = self.rng.random_range(0..all);
        let Some(name) = chosen.checked_sub(activators).map(|pod| &view.pods[pod]) else {
            if self.held.is_empty() {
                self.held_since = self.now;
            }
            self.arrived_at_activator += 1;
            self.held.push_back(request);
            return;
        };
        match self.pods.iter_mut().find(|pod| pod.name == *name) {
            Some(pod) => pod.take(request, self.slots, self.now),
            None => self.lost += 1,
        }
    }

    /// The activator lets go what a pod can take.
    fn pour(&mut self) {
        while let Some(request) = self.held.front() {
            let (now, slots) = (self.now, self.slots);
            let able = self
                .pods
                .iter_mut()
                .filter(|pod| pod.is_ready(now) && (slots == 0 || pod.requests.len() < slots));
            let Some(pod) = able.min_by_key(|pod| pod.requests.len()) else {
                return;
            };
            self.waits.push(now - request.since);
            let forwarded = Request {
                forwarded: true,
                ..*request
            };
            pod.take(forwarded, slots, now);
            self.held.pop_front();
        }
    }

    fn end_requests(&mut self) {
        let (now, slots) = (self.now, self.slots);
        for pod in &mut self.pods {
            pod.requests
                .retain(|request| request.ends.is_none_or(|end| end > now));
            pod.start(slots, now);
        }
        self.pods.retain(|pod| {
            let drained = pod.stopping_at.is_some_and(|at| now >= at + DRAIN);
            !(drained && pod.requests.is_empty())
        });
    }

    fn account(&mut self) {
        for pod in &mut self.pods {
            pod.in_flight_us += as_f64(pod.requests.len()) * STEP * 1e6;
        }
        self.held_us += as_f64(self.held.len()) * STEP * 1e6;
        self.pod_seconds += as_f64(self.pods.len()) * STEP;
    }

    fn endpoints(&self) -> View {
        let ready = self.pods.iter().filter(|pod| pod.is_ready(self.now));
        let listed = ready.filter(|_| !self.selector_held);
        View {
            activators: self.activators_in,
            pods: listed.map(|pod| pod.name.clone()).collect(),
        }
    }

    /// Writes `/scale`: pods come, or some go: first those that are not ready, as a ReplicaSet has it,
    /// then those that have least to do.
    pub fn scale(&mut self, to: u32) {
        self.replicas = to;
        let mut kept: Vec<usize> = (0..self.pods.len())
            .filter(|index| self.pods[*index].stopping_at.is_none())
            .collect();
        kept.sort_by_key(|index| {
            let pod = &self.pods[*index];
            (pod.is_ready(self.now), pod.requests.len())
        });
        let to = usize::try_from(to).unwrap_or(usize::MAX);
        for index in kept.iter().take(kept.len().saturating_sub(to)) {
            self.pods[*index].stopping_at = Some(self.now);
        }
        for _ in kept.len()..to {
            self.named += 1;
            let takes = self.rng.random_range(self.start.0..=self.start.1);
            self.pods.push(Pod {
                name: format!("pod-{}", self.named),
                ready_at: self.now + takes,
                stopping_at: None,
                requests: Vec::new(),
                arrived: 0,
                in_flight_us: 0.0,
            });
        }
    }

    /// Seconds since the beginning.
    #[must_use]
    pub fn now(&self) -> f64 {
        self.now
    }

    /// Pods that take traffic.
    #[must_use]
    pub fn ready(&self) -> u32 {
        count(
            self.pods
                .iter()
                .filter(|pod| pod.is_ready(self.now))
                .count(),
        )
    }

    /// Requests in flight at pods.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pods.iter().map(|pod| pod.requests.len()).sum()
    }

    /// Requests that the activator holds.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Age of the oldest request at a pod that has not been let go.
    #[must_use]
    pub fn oldest_in_flight(&self) -> f64 {
        let kept = self.pods.iter().filter(|pod| pod.stopping_at.is_none());
        let requests = kept.flat_map(|pod| &pod.requests);
        requests.map(|r| self.now - r.since).fold(0.0, f64::max)
    }

    /// The pods as the controller's cache has them.
    pub fn reporters(&self) -> impl Iterator<Item = Reporter<'_>> + Clone {
        self.pods.iter().map(|pod| Reporter {
            name: &pod.name,
            ready: pod.is_ready(self.now),
        })
    }

    /// The report of every pod that answers.
    pub fn reports(&self) -> impl Iterator<Item = QueueProxyReport> {
        let there = self.pods.iter().filter(|pod| self.now >= pod.ready_at);
        there.map(|pod| QueueProxyReport {
            v: VERSION,
            pod: pod.name.clone(),
            boot: 1,
            now_us: micros(self.now - pod.ready_at) + 1,
            load: Load {
                in_flight: pod.requests.len() as u64,
                in_flight_us: micros(pod.in_flight_us / 1e6),
                requests: pod.arrived,
            },
            queued: 0,
            limit: 0,
            app_ready: true,
            draining: pod.stopping_at.is_some(),
            bypass: 0,
            lately: Lately::default(),
            loopback_only: Vec::new(),
        })
    }

    /// What the activator tells, and its clock.
    #[must_use]
    pub fn holding(&self) -> (u64, HeldWorkload) {
        let forwarded = self.pods.iter().flat_map(|pod| &pod.requests);
        let held = HeldWorkload {
            namespace: String::new(),
            name: String::new(),
            uid: String::new(),
            ports: Vec::new(),
            held: Load {
                in_flight: self.held.len() as u64,
                in_flight_us: micros(self.held_us / 1e6),
                requests: self.arrived_at_activator,
            },
            forwarding: forwarded.filter(|r| r.forwarded).count() as u64,
            held_for_us: micros(self.now - self.held_since),
            woken: None,
            callers: Vec::new(),
            ways: Ways::default(),
        };
        (micros(self.now) + 1, held)
    }
}

// === impl Pod ===

impl Pod {
    /// It is in Kubernetes' own endpoints, and its queue-proxy takes what activators send.
    fn is_ready(&self, now: f64) -> bool {
        now >= self.ready_at && self.stopping_at.is_none()
    }

    fn take(&mut self, request: Request, slots: usize, now: f64) {
        self.arrived += 1;
        self.requests.push(request);
        self.start(slots, now);
    }

    /// Gives free slots to those that wait, in their order.
    fn start(&mut self, slots: usize, now: f64) {
        let slots = if slots == 0 { usize::MAX } else { slots };
        for request in self.requests.iter_mut().take(slots) {
            request.ends.get_or_insert(now + request.work);
        }
    }
}

fn micros(seconds: f64) -> u64 {
    let duration = Duration::from_secs_f64(seconds.max(0.0));
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn as_f64(count: usize) -> f64 {
    count as f64
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
