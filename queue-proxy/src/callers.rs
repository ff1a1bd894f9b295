//! Who has called lately: what keeps the workload awake, for people.
//!
//! ```text
//! request, stream --some of them--> Callers --told--> report
//! ```
//!
//! Requests are counted by sample, so that it costs them next to nothing: each caller's share is what
//! is asked for, not its count. Everything is bounded, and forgotten after a while.

mod who;

use std::{net::IpAddr, time::Duration};

use lull_contract::report::{CallerRequests, Lately, MAX_LATELY};
use parking_lot::Mutex;
use tokio::time::Instant;

use self::who::{Class, Name};

pub(crate) use who::{Asked, Who};

/// For so long calls are counted together; the time before, in which anybody called, is told with it.
pub(crate) const EPOCH: Duration = Duration::from_secs(60);
/// Requests of a connection that are counted one by one.
const EXACT: u64 = 16;
/// Of those that follow, one is counted for so many. A prime: whatever comes in turns, as from an Envoy
/// that sends the requests of several callers on one connection, seldom comes in turns of this length.
const STRIDE: u64 = 17;
/// Callers that are counted at one time.
const MAX_CALLERS: usize = 32;
/// Classes of requests that are counted of each of them.
const MAX_CLASSES: usize = 4;

/// Who has called, and for what, kept for longer than the request's head.
#[derive(Debug)]
pub(crate) struct Known {
    name: Name,
    class: Class,
}

/// The callers of this pod.
#[derive(Debug)]
pub(crate) struct Callers {
    is_on: bool,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    now: Epoch,
    /// The last one before in which anybody called.
    before: Epoch,
    /// When the current one began.
    began: Option<Instant>,
    /// When somebody called last.
    last: Option<Instant>,
}

/// Who has called in a time.
#[derive(Debug, Default)]
struct Epoch {
    requests: u64,
    callers: Places<Called>,
}

/// One who has called.
#[derive(Debug)]
struct Called {
    name: Name,
    asked: Places<Class>,
}

/// Those that are counted, each with its count. Who is not among them takes the place of the least one,
/// if that one is not more: so no count is too high, and who calls much finds a place.
#[derive(Debug)]
struct Places<T>(Vec<(T, u64)>);

/// For how many requests of its connection the one of this `number` is counted, from 1 on; 0 = it is not
/// looked at.
pub(crate) fn weight(number: u64) -> u64 {
    if number <= EXACT {
        1
    } else if (number - EXACT).is_multiple_of(STRIDE) {
        STRIDE
    } else {
        0
    }
}

// === impl Known ===

impl Known {
    pub(crate) fn of(who: Who<'_>, asked: Asked<'_>) -> Self {
        Self {
            name: Name::of(who),
            class: Class::of(asked),
        }
    }
}

// === impl Callers ===

impl Callers {
    /// Nobody has called yet; where it is not `is_on`, nobody is told of.
    pub(crate) fn new(is_on: bool) -> Self {
        Self {
            is_on,
            table: Mutex::default(),
        }
    }

    /// `who` calls at `now`, for what is `asked`, where that is seen; it stands for `weight` requests.
    pub(crate) fn note(&self, now: Instant, who: Who<'_>, asked: Option<Asked<'_>>, weight: u64) {
        if self.is_on {
            self.table.lock().note(now, who, asked, weight);
        }
    }

    /// What somebody `known` has asked for goes on for another [`EPOCH`].
    pub(crate) fn note_again(&self, now: Instant, known: &Known) {
        self.note(now, known.name.who(), Some(known.class.asked()), 1);
    }

    /// A byte stream of `peer` begins at `now`, or goes on for another [`EPOCH`].
    pub(crate) fn note_stream(&self, now: Instant, peer: IpAddr) {
        self.note(now, Who::Address(peer.to_canonical()), None, 1);
    }

    /// For the autoscaler; `micros` says what time it was on the report's clock.
    pub(crate) fn told(&self, micros: impl Fn(Instant) -> u64) -> Lately {
        let table = self.table.lock();
        let mut lately = table.now.told();
        lately.add(&table.before.told());
        lately.last_us = table.last.map_or(0, micros);
        drop(table);
        lately.keep(MAX_LATELY);
        lately
    }
}

// === impl Table ===

impl Table {
    fn note(&mut self, now: Instant, who: Who<'_>, asked: Option<Asked<'_>>, weight: u64) {
        let is_over = |began: Instant| now.saturating_duration_since(began) >= EPOCH;
        if self.began.is_none_or(is_over) {
            self.before = std::mem::take(&mut self.now);
            self.began = Some(now);
        }
        self.last = Some(now);
        self.now.note(who, asked, weight);
    }
}

// === impl Epoch ===

impl Epoch {
    fn note(&mut self, who: Who<'_>, asked: Option<Asked<'_>>, weight: u64) {
        self.requests += weight;
        let is_it = |called: &Called| called.name.is(who);
        let new = || Called::new(Name::of(who));
        let called = self.callers.note((MAX_CALLERS, weight), is_it, new);
        if let (Some(called), Some(asked)) = (called, asked) {
            let is_it = |class: &Class| class.is(asked);
            let new = || Class::of(asked);
            called.asked.note((MAX_CLASSES, weight), is_it, new);
        }
    }

    fn told(&self) -> Lately {
        let callers = self.callers.0.iter().map(|(called, requests)| {
            let asked = called.asked.0.iter();
            CallerRequests {
                caller: called.name.text(),
                requests: *requests,
                asked: asked.map(|(class, of)| (class.text(), *of)).collect(),
            }
        });
        Lately {
            last_us: 0,
            requests: self.requests,
            callers: callers.collect(),
        }
    }
}

// === impl Called ===

impl Called {
    fn new(name: Name) -> Self {
        Self {
            name,
            asked: Places::default(),
        }
    }
}

// === impl Places ===

impl<T> Places<T> {
    /// Counts `weight` more for the one that `is_it`; a `new` one gets a place where one of `most` is free
    /// or its count is not more. `None`: it has none.
    fn note(
        &mut self,
        (most, weight): (usize, u64),
        is_it: impl Fn(&T) -> bool,
        new: impl FnOnce() -> T,
    ) -> Option<&mut T> {
        let place = match self.0.iter().position(|(there, _)| is_it(there)) {
            Some(place) => place,
            None if self.0.len() < most => {
                self.0.push((new(), 0));
                self.0.len() - 1
            }
            None => {
                let all = self.0.iter().enumerate();
                let (place, (_, least)) = all.min_by_key(|(_, (_, count))| *count)?;
                if *least > weight {
                    return None;
                }
                self.0[place] = (new(), 0);
                place
            }
        };
        let (there, count) = self.0.get_mut(place)?;
        *count += weight;
        Some(there)
    }
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[cfg(test)]
mod tests;
