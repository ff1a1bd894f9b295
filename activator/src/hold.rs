//! The line of those who wait for a pod: first come, first served, bounded; pure.

use std::collections::BTreeMap;

use lull_contract::report::Load;

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Port of the app.
    pub(crate) app_port: u16,
    /// A request, which takes a slot of the pod's hard limit; else a connection.
    pub(crate) takes_slot: bool,
}

/// The line of one workload; `T` is what is told when it is somebody's turn.
#[derive(Debug)]
pub(crate) struct Line<T> {
    waiting: BTreeMap<u64, (Ask, T)>,
    next: u64,
    load: Load,
    /// When `load` was brought up to date last.
    at_us: u64,
}

/// The line is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

// === impl Line ===

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: 0,
            load: Load::default(),
            at_us: 0,
        }
    }
}

impl<T> Line<T> {
    /// Joins at the end, where fewer than `bound` wait; the number is the place.
    pub(crate) fn join(
        &mut self,
        ask: Ask,
        waiter: T,
        bound: usize,
        now_us: u64,
    ) -> Result<u64, Full> {
        if self.waiting.len() >= bound {
            return Err(Full);
        }
        let place = self.next;
        self.next += 1;
        self.load.requests += 1;
        self.rejoin(place, ask, waiter, now_us);
        Ok(place)
    }

    /// Takes up a place that was had before, ahead of all who came later: who was sent to a pod
    /// that could not be reached has waited long enough.
    pub(crate) fn rejoin(&mut self, place: u64, ask: Ask, waiter: T, now_us: u64) {
        self.advance(now_us);
        self.waiting.insert(place, (ask, waiter));
        self.load.in_flight = self.waiting.len() as u64;
    }

    /// Leaves; `None` where the turn had come already.
    pub(crate) fn leave(&mut self, place: u64, now_us: u64) -> Option<T> {
        self.advance(now_us);
        let left = self.waiting.remove(&place);
        self.load.in_flight = self.waiting.len() as u64;
        left.map(|(_, waiter)| waiter)
    }

    /// Takes out the first for whom `serve` has something.
    ///
    /// An ask that got nothing is not tried again in this call: the others of its kind wait for
    /// the same.
    pub(crate) fn serve_first<S>(
        &mut self,
        now_us: u64,
        mut serve: impl FnMut(Ask) -> Option<S>,
    ) -> Option<(T, S)> {
        let mut in_vain: Vec<Ask> = Vec::new();
        let mut found = None;
        for (place, (ask, _)) in &self.waiting {
            if in_vain.contains(ask) {
                continue;
            }
            if let Some(served) = serve(*ask) {
                found = Some((*place, served));
                break;
            }
            in_vain.push(*ask);
        }
        let (place, served) = found?;
        self.advance(now_us);
        let (_, waiter) = self.waiting.remove(&place)?;
        self.load.in_flight = self.waiting.len() as u64;
        Some((waiter, served))
    }

    /// Whether somebody waits for the same.
    pub(crate) fn has(&self, ask: Ask) -> bool {
        self.waiting.values().any(|(other, _)| *other == ask)
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Held until `now_us`, with the integral.
    pub(crate) fn load(&mut self, now_us: u64) -> Load {
        self.advance(now_us);
        self.load
    }

    fn advance(&mut self, now_us: u64) {
        // Two threads may ask in another order than they read their clocks: time never goes back.
        let elapsed = now_us.saturating_sub(self.at_us);
        self.at_us = self.at_us.max(now_us);
        let added = self.load.in_flight.saturating_mul(elapsed);
        self.load.in_flight_us = self.load.in_flight_us.saturating_add(added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: Ask = Ask {
        app_port: 80,
        takes_slot: true,
    };
    const DB: Ask = Ask {
        app_port: 5432,
        takes_slot: false,
    };

    fn line(asks: &[(Ask, char)]) -> Line<char> {
        let mut line = Line::default();
        for (ask, name) in asks {
            line.join(*ask, *name, 10, 0).unwrap();
        }
        line
    }

    #[test]
    fn first_come_is_first_served() {
        let mut line = line(&[(WEB, 'a'), (WEB, 'b'), (WEB, 'c')]);
        let mut order = String::new();
        while let Some((name, ())) = line.serve_first(0, |_| Some(())) {
            order.push(name);
        }
        assert_eq!(order, "abc");
    }

    #[test]
    fn one_port_that_is_short_does_not_stop_the_other() {
        let mut line = line(&[(WEB, 'a'), (WEB, 'b'), (DB, 'c')]);
        let mut asked = 0;
        let served = line.serve_first(0, |ask| {
            asked += 1;
            (ask == DB).then_some(())
        });
        assert_eq!(served, Some(('c', ())));
        assert_eq!(asked, 2, "b wants what a did not get");
        assert!(line.has(WEB) && !line.has(DB));
    }

    #[test]
    fn who_comes_back_is_ahead_of_later_ones_and_arrives_once() {
        let mut line = line(&[(WEB, 'a'), (WEB, 'b')]);
        assert_eq!(line.serve_first(0, |_| Some(())).unwrap().0, 'a');
        line.rejoin(0, WEB, 'a', 0);
        assert_eq!(line.load(0).requests, 2);
        assert_eq!(line.serve_first(0, |_| Some(())).unwrap().0, 'a');
    }

    #[test]
    fn a_full_line_refuses() {
        let mut line = line(&[(WEB, 'a')]);
        assert_eq!(line.join(WEB, 'b', 1, 0), Err(Full));
        assert_eq!(line.leave(0, 0), Some('a'));
        assert_eq!(line.leave(0, 0), None);
        assert_eq!(line.join(WEB, 'b', 1, 0), Ok(1));
    }

    #[test]
    fn the_load_is_a_time_integral() {
        let mut line = line(&[(WEB, 'a'), (WEB, 'b')]);
        line.leave(0, 10);
        let load = line.load(30);
        assert_eq!((load.in_flight, load.requests), (1, 2));
        assert_eq!(load.in_flight_us, 2 * 10 + 20);
    }
}
