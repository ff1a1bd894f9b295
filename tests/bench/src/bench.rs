//! What all measurements of one run share.

use std::{path::PathBuf, time::Duration};

use crate::{Cores, Scratch};

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Our binary: the component that the bench is for.
    pub ours: PathBuf,
    /// Envoy's.
    pub envoy: PathBuf,
    /// That of Knative's queue-proxy, where it is measured.
    pub knative: Option<PathBuf>,
}

/// One run.
#[derive(Debug)]
pub struct Bench {
    /// Where the programs are.
    pub programs: Programs,
    /// Folder for configurations.
    pub scratch: Scratch,
    /// Cores.
    pub cores: Cores,
    /// Rounds; each measures every proxy once.
    pub rounds: usize,
    /// How long one measurement takes, whole seconds.
    pub time: Duration,
}

// === impl Bench ===

impl Bench {
    /// Every round with the index of every one of `count`, which begin in turn.
    pub fn turns(&self, count: usize) -> impl Iterator<Item = Turn> + use<> {
        let rounds = self.rounds;
        (0..rounds * count).map(move |number| {
            let (round, place) = (number / count, number % count);
            Turn {
                round,
                rounds,
                index: (round + place) % count,
            }
        })
    }
}

/// One value per proxy that was asked for, for taking apart.
///
/// # Panics
/// Where `values` are not as many: a measurement returns one value per proxy.
#[must_use]
pub fn sorted<T: std::fmt::Debug, const N: usize>(values: Vec<T>) -> [T; N] {
    <[T; N]>::try_from(values).expect("measurements return one value per proxy")
}

/// One measurement's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which round, from 0.
    pub round: usize,
    /// Of how many.
    pub rounds: usize,
    /// What is measured.
    pub index: usize,
}

// === impl Turn ===

impl Turn {
    /// Says on standard error what was measured of whom.
    pub fn progress(&self, name: &str, what: impl std::fmt::Display) {
        let (round, rounds) = (self.round + 1, self.rounds);
        crate::progress(format!("round {round}/{rounds}: {name}: {what}"));
    }
}
