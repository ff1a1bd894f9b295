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
    /// For each of the few things that somebody waits for, who waits in which place.
    lanes: Vec<(Ask, BTreeMap<u64, T>)>,
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
            lanes: Vec::new(),
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
        if self.len() >= bound {
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
        let lane = self.lanes.iter_mut().find(|(other, _)| *other == ask);
        match lane {
            Some((_, lane)) => {
                lane.insert(place, waiter);
            }
            None => self.lanes.push((ask, BTreeMap::from([(place, waiter)]))),
        }
        self.load.in_flight += 1;
    }

    /// Leaves; `None` where the turn had come already.
    pub(crate) fn leave(&mut self, place: u64, now_us: u64) -> Option<T> {
        self.advance(now_us);
        let mut lanes = self.lanes.iter_mut();
        let left = lanes.find_map(|(_, lane)| lane.remove(&place))?;
        self.load.in_flight -= 1;
        Some(left)
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
        let mut tried = None;
        loop {
            let (place, ask) = self.first_behind(tried)?;
            let Some(served) = serve(ask) else {
                tried = Some(place);
                continue;
            };
            return self.leave(place, now_us).map(|waiter| (waiter, served));
        }
    }

    /// Of the first ones of all lanes the first behind the place `tried`.
    fn first_behind(&self, tried: Option<u64>) -> Option<(u64, Ask)> {
        let firsts = self.lanes.iter().filter_map(|(ask, lane)| {
            let (place, _) = lane.first_key_value()?;
            Some((*place, *ask))
        });
        let behind = firsts.filter(|(place, _)| tried.is_none_or(|tried| *place > tried));
        behind.min_by_key(|(place, _)| *place)
    }

    /// Whether somebody waits for the same.
    pub(crate) fn has(&self, ask: Ask) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|(other, lane)| *other == ask && !lane.is_empty())
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(|(_, lane)| lane.len()).sum()
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
    fn the_first_of_all_is_served_first_whatever_it_waits_for() {
        let mut line = line(&[(DB, 'a'), (WEB, 'b'), (DB, 'c'), (WEB, 'd')]);
        let mut order = String::new();
        while let Some((name, ())) = line.serve_first(0, |_| Some(())) {
            order.push(name);
        }
        assert_eq!((order.as_str(), line.len()), ("abcd", 0));
        assert!(!line.has(WEB) && !line.has(DB));
    }

    #[test]
    fn a_turn_of_nobody_asks_once_for_each_kind_however_many_wait() {
        let mut line = Line::default();
        for _ in 0..1_000 {
            line.join(WEB, 'w', 10_000, 0).unwrap();
            line.join(DB, 'd', 10_000, 0).unwrap();
        }
        let mut asked = Vec::new();
        let served: Option<(char, ())> = line.serve_first(0, |ask| {
            asked.push(ask);
            None
        });
        assert_eq!((served, asked), (None, vec![WEB, DB]));
        assert_eq!(line.load(0).in_flight, 2_000);
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
