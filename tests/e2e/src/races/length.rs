//! How long the races last, and how much load there is meanwhile.

use std::time::Duration;

use anyhow::Context as _;
use sample_app::wire::RunSpec;

use super::{Act, REQUEST};
use crate::{Workload, rounds};

/// Longest run of a load: it is stopped before.
const LOAD: Duration = Duration::from_secs(3_900);
/// How long the short races last, seconds: five minutes at most with all that is before and after.
const SHORT: u64 = 150;
/// Kept connections of all steady loads together, and new ones a second.
const STEADY: u32 = 100;

/// How long the suite lasts.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// No lane begins anything after this.
    pub longest: Duration,
    /// How long the API server and the controllers stand still.
    pub pause: Duration,
    /// Workloads that are switched.
    pub switched: usize,
    /// Workloads that are enrolled and leave.
    pub enrolled: usize,
    /// Acts after which lanes end; without them the time ends them.
    pub(super) quotas: Option<&'static [(Act, u64)]>,
}

/// How the steady load of one workload is divided.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Connections that are kept, used in turns.
    kept: u32,
    /// New connections a second, and requests a second on the kept ones.
    rate: f64,
}

// === impl Length ===

impl Length {
    /// Short, for `E2E_RACES_SECONDS` (150), or full where `E2E_FULL` is set.
    ///
    /// # Errors
    /// Where the variable is no number.
    pub fn from_env() -> anyhow::Result<Self> {
        let is_set = |key: &str| std::env::var(key).ok().filter(|text| !text.is_empty());
        if rounds::is_full() {
            return Ok(Self::full());
        }
        let seconds = is_set("E2E_RACES_SECONDS");
        let seconds = seconds.map_or(Ok(SHORT), |text| {
            let number = text.parse::<u64>();
            number.with_context(|| format!("E2E_RACES_SECONDS={text:?}: must be a whole number"))
        })?;
        Ok(Self::short(Duration::from_secs(seconds)))
    }

    /// Without quotas, as long as one run of all tests has time for.
    fn short(longest: Duration) -> Self {
        Self {
            longest,
            pause: Duration::from_secs(15),
            switched: 3,
            enrolled: 2,
            quotas: None,
        }
    }

    /// What issue 7 asks for, within an hour.
    pub(super) fn full() -> Self {
        const QUOTAS: [(Act, u64); 4] = [
            (Act::Switch, 1_000),
            (Act::SleepAndWake, 200),
            (Act::Enrol, 50),
            (Act::Leave, 50),
        ];
        Self {
            longest: Duration::from_secs(3_300),
            pause: Duration::from_secs(60),
            switched: 6,
            // Their pods take long to end.
            enrolled: 4,
            quotas: Some(&QUOTAS),
        }
    }

    /// For steady loads of two workloads and what is done to them, without any lane: nothing must be done a
    /// number of times.
    #[must_use]
    pub fn of_loads(longest: Duration) -> Self {
        Self {
            longest,
            pause: Duration::ZERO,
            switched: 0,
            enrolled: 0,
            quotas: Some(&[]),
        }
    }

    /// How long plain pods take to end, seconds: without Lull, too, one that is deleted just before the API
    /// server stands still is called until kube-proxy hears of it.
    #[must_use]
    pub fn linger(&self) -> u32 {
        const AFTERWARDS: Duration = Duration::from_secs(15);
        let seconds = (self.pause + AFTERWARDS).as_secs();
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    /// Longest wait for anything that must come. Meanwhile the controllers and the API server may stand
    /// still one after the other, and plain pods that are replaced end before and after.
    #[must_use]
    pub(super) fn follow(&self) -> Duration {
        const UNDISTURBED: Duration = Duration::from_secs(150);
        let linger = Duration::from_secs(self.linger().into());
        UNDISTURBED + 2 * (self.pause + linger)
    }

    /// A steady load for each of the workloads that have one, which make `STEADY` together.
    #[must_use]
    pub fn share(&self) -> Shape {
        // Those that are switched, the one that is rolled out and the one whose pods are killed.
        let workloads = u32::try_from(self.switched + 2).unwrap_or(u32::MAX);
        let kept = STEADY.div_ceil(workloads);
        Shape {
            kept,
            rate: f64::from(kept),
        }
    }
}

// === impl Shape ===

impl Shape {
    /// For a workload whose plain pods end: a kept connection hears of it with an answer, and each of
    /// these has some every second.
    #[must_use]
    pub fn of_the_plain() -> Self {
        Self {
            kept: 5,
            rate: 20.0,
        }
    }

    pub(super) fn specs(self, workload: &Workload) -> [RunSpec; 3] {
        let kept = RunSpec {
            url: workload.url("/?sleep_ms=10"),
            connections: self.kept,
            rate: Some(self.rate),
            seconds: Some(LOAD.as_secs_f64()),
            timeout_ms: u64::try_from(REQUEST.as_millis()).unwrap_or(u64::MAX),
            ..RunSpec::default()
        };
        let fresh = RunSpec {
            keep_alive: false,
            ..kept.clone()
        };
        let streams = RunSpec {
            h2c: true,
            connections: 2,
            rate: Some(5.0),
            ..kept.clone()
        };
        [kept, fresh, streams]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steady_loads_make_a_hundred_together() {
        for length in [Length::full(), Length::short(Duration::from_secs(120))] {
            let workloads = length.switched + 2;
            let kept = length.share().kept as usize * workloads;
            assert!((100..100 + workloads).contains(&kept), "{length:?}: {kept}");
        }
    }
}
