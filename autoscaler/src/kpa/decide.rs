//! How many pods a workload should have, and why.
//!
//! Formulas, constants and their order are Knative's (`pkg/autoscaler/scaling/autoscaler.go`).

use std::{collections::VecDeque, fmt, time::Duration};

use lull_contract::Settings;

/// Knative's `max-scale-up-rate`.
const MAX_SCALE_UP_RATE: f64 = 1000.0;
/// Knative's `max-scale-down-rate`.
const MAX_SCALE_DOWN_RATE: f64 = 2.0;
/// Length of a slot of the scale-down delay (Knative's tick).
const DELAY_SLOT: Duration = Duration::from_secs(2);

/// What a decision is made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observed {
    /// Average over the stable window, whole workload.
    pub stable: f64,
    /// Average over the panic window, whole workload.
    pub panic: f64,
    /// Pods that take traffic.
    pub ready: u32,
}

/// What the workload should have.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Pods wanted, before min and max.
    pub want: u32,
    /// Spare capacity beyond the target burst capacity; negative: activators belong in the path.
    pub excess_burst_capacity: i64,
    /// Load has been far above what the pods are for, lately: the count only grows.
    pub panicking: bool,
    /// Why, in a few words.
    pub reason: Reason,
}

/// Why a decision is what it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reason {
    /// Nothing in the stable window.
    Idle,
    /// The stable window's average asks for it.
    Stable {
        /// Average load.
        load: f64,
        /// Load aimed at per pod.
        per_pod: f64,
    },
    /// The panic window's average asks for it, or did.
    Panic {
        /// Average load.
        load: f64,
        /// Load aimed at per pod.
        per_pod: f64,
    },
    /// A higher count is kept for the scale-down delay.
    Delay {
        /// Pods that the load alone asks for.
        without: u32,
    },
}

/// The memory of one workload's decisions.
#[derive(Debug, Clone)]
pub struct Decider {
    panic_since: Option<Duration>,
    max_panic_pods: u32,
    delay: VecDeque<(u64, u32)>,
    up_rate: f64,
    down_rate: f64,
}

// === impl Decider ===

impl Decider {
    /// A decider that starts with `ready` pods.
    ///
    /// With more than one pod it starts in panic at that count, so that a restarted autoscaler
    /// doesn't scale down on a window that it hasn't seen (Knative #4795).
    #[must_use]
    pub fn new(ready: u32, now: Duration) -> Self {
        Self {
            panic_since: (ready > 1).then_some(now),
            max_panic_pods: ready,
            delay: VecDeque::new(),
            up_rate: MAX_SCALE_UP_RATE,
            down_rate: MAX_SCALE_DOWN_RATE,
        }
    }

    /// The decision at `now`.
    pub fn decide(&mut self, settings: &Settings, observed: Observed, now: Duration) -> Decision {
        let per_pod = settings.target_per_pod();
        let ready = f64::from(observed.ready.max(1));
        let (low, high) = (
            (ready / self.down_rate).floor(),
            (self.up_rate * ready).ceil(),
        );
        let raw_panic = (observed.panic / per_pod).ceil();
        let proposal = |raw: f64| {
            let bounded = to_count(raw.max(low).min(high));
            if raw > 0.0 {
                bounded.max(settings.activation_scale)
            } else {
                bounded
            }
        };
        let stable = proposal((observed.stable / per_pod).ceil());
        let panic = proposal(raw_panic);

        self.update_panic(settings, raw_panic / ready, now);
        let mut want = stable;
        let mut reason = if observed.stable > 0.0 || want > 0 {
            Reason::Stable {
                load: observed.stable,
                per_pod,
            }
        } else {
            Reason::Idle
        };
        let panicking = self.panic_since.is_some();
        if panicking {
            self.max_panic_pods = self.max_panic_pods.max(want.max(panic));
            want = self.max_panic_pods;
            reason = Reason::Panic {
                load: observed.panic,
                per_pod,
            };
        }
        let delayed = self.delayed(settings.scale_down_delay.0, want, now);
        if delayed > want {
            reason = Reason::Delay { without: want };
        }
        Decision {
            want: delayed,
            excess_burst_capacity: excess_burst_capacity(settings, observed),
            panicking,
            reason,
        }
    }

    fn update_panic(&mut self, settings: &Settings, over: f64, now: Duration) {
        if over >= settings.panic_threshold_percentage / 100.0 {
            self.panic_since = Some(now);
        } else if self
            .panic_since
            .is_some_and(|since| since + settings.window.0 < now)
        {
            self.panic_since = None;
            self.max_panic_pods = 0;
        }
    }

    /// The highest count of the last `delay`, in slots of [`DELAY_SLOT`].
    fn delayed(&mut self, delay: Duration, want: u32, now: Duration) -> u32 {
        if delay.is_zero() {
            self.delay.clear();
            return want;
        }
        let slot = now.as_secs() / DELAY_SLOT.as_secs();
        let slots = delay.as_secs().div_ceil(DELAY_SLOT.as_secs());
        match self.delay.back_mut() {
            Some((last, peak)) if *last == slot => *peak = want.max(*peak),
            _ => self.delay.push_back((slot, want)),
        }
        while self
            .delay
            .front()
            .is_some_and(|(oldest, _)| oldest + slots <= slot)
        {
            self.delay.pop_front();
        }
        self.delay
            .iter()
            .map(|(_, peak)| *peak)
            .max()
            .unwrap_or(want)
    }
}

/// Ready pods' total capacity less target burst capacity less load; -1 = always Proxy.
fn excess_burst_capacity(settings: &Settings, observed: Observed) -> i64 {
    match settings.target_burst_capacity {
        0 => 0,
        -1 => -1,
        burst => {
            let total = f64::from(observed.ready) * settings.total_per_pod();
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a saturating cast of a whole number"
            )]
            let excess = (total - observed.panic).floor() as i64;
            excess.saturating_sub(burst)
        }
    }
}

fn to_count(value: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a saturating cast of a whole number that is not negative"
    )]
    let count = value.max(0.0) as u32;
    count
}

// === impl Reason ===

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => write!(f, "idle"),
            Self::Stable { load, per_pod } => write!(f, "load {load:.1} / {per_pod:.1} per pod"),
            Self::Panic { load, per_pod } => write!(f, "panic: {load:.1} / {per_pod:.1} per pod"),
            Self::Delay { without } => write!(f, "scale-down delay (load asks for {without})"),
        }
    }
}

#[cfg(test)]
mod tests;
