//! One connection of a caller: who it is, what it is doing, and how long it may do nothing.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Request};
use tokio::time::Instant;

use crate::{
    callers::{self, Asked, Known, Who},
    headers,
    request::Port,
    stall::Answers,
};

/// Longest time from a head's first byte to its end: between one and two of these. Connections are
/// looked at so often, which costs less than a timer for each head.
pub(crate) const TICK: Duration = Duration::from_secs(60);
/// Longest time between two requests. Longer than Envoy's hour, so that it is always the caller
/// who closes an idle connection: if we did, a request could be on its way.
const IDLE_TICKS: u32 = 65;
/// How many ticks beyond its time a request is left to end by itself.
const LATE_TICKS: u64 = 3;

/// A connection that carries HTTP.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) port: Arc<Port>,
    /// How `X-Forwarded-For` names it.
    pub(crate) name: HeaderValue,
    peer: IpAddr,
    /// Requests whose head is complete.
    requests: AtomicU64,
    /// Of these, the ones that have not ended.
    busy: AtomicU64,
    /// Bytes have come that belong to no request yet. HTTP/1 only.
    head_begun: AtomicBool,
    /// The body of the last request broke off. HTTP/1 only.
    body_broke: AtomicBool,
    /// A request's body was given up before its end. HTTP/1 only.
    left_body: AtomicBool,
    /// An answer was cut whose end is that of the connection.
    must_reset: AtomicBool,
    /// HTTP/2 only.
    pub(crate) answers: Answers,
}

/// One request of a caller; dropping it says that it has ended.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Caller>);

/// What was seen at the last tick.
#[derive(Debug)]
pub(crate) struct Patience {
    requests: u64,
    head_begun: bool,
    idle_ticks: u32,
    /// Since the last request began, while any has not ended.
    busy_ticks: u64,
    max_busy_ticks: u64,
}

// === impl Caller ===

impl Caller {
    pub(crate) fn new(port: Arc<Port>, peer: IpAddr) -> Arc<Self> {
        Arc::new(Self {
            port,
            name: headers::forwarded_for(peer),
            peer: peer.to_canonical(),
            requests: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            head_begun: AtomicBool::new(true),
            body_broke: AtomicBool::new(false),
            left_body: AtomicBool::new(false),
            must_reset: AtomicBool::new(false),
            answers: Answers::default(),
        })
    }

    /// A request's body breaks off or is not what its head says: in HTTP/1 no other request can
    /// follow it, and in HTTP/2 nobody reads the stream's answer any more.
    pub(crate) fn note_broken_body(&self) {
        self.body_broke.store(true, Ordering::Relaxed);
    }

    /// Whether a request's body has broken.
    pub(crate) fn has_broken_body(&self) -> bool {
        self.body_broke.load(Ordering::Relaxed)
    }

    /// Nobody reads the rest of a request's body, so that the connection will end.
    pub(crate) fn note_left_body(&self) {
        self.left_body.store(true, Ordering::Relaxed);
    }

    /// Whether it may still be sending a body that nobody reads.
    pub(crate) fn has_left_body(&self) -> bool {
        self.left_body.load(Ordering::Relaxed)
    }

    /// Bytes arrive.
    pub(crate) fn note_read(&self) {
        if self.busy.load(Ordering::Relaxed) == 0 {
            self.head_begun.store(true, Ordering::Relaxed);
        }
    }

    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.head_begun.store(false, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Takes note at `now` of who sends `request`, the last one that has begun, where it is one of those
    /// that are looked at.
    pub(crate) fn note<B>(&self, now: Instant, request: &Request<B>) {
        let weight = callers::weight(self.requests());
        if weight > 0 {
            let (who, asked) = self.sees(request);
            let callers = &self.port.gateway.callers;
            callers.note(now, who, Some(asked), weight);
        }
    }

    /// Who sends `request`, and for what, for as long as that is to be known.
    pub(crate) fn known<B>(&self, request: &Request<B>) -> Known {
        let (who, asked) = self.sees(request);
        Known::of(who, asked)
    }

    fn sees<'a, B>(&self, request: &'a Request<B>) -> (Who<'a>, Asked<'a>) {
        let who = Who::of(self.peer, request.headers());
        (who, Asked::of(request.method(), request.uri().path()))
    }

    /// The connection is to end with a reset: it is all that tells a cut answer from a whole one.
    pub(crate) fn reset_at_end(&self) {
        self.must_reset.store(true, Ordering::Relaxed);
    }

    /// Whether the connection is to end with a reset.
    pub(crate) fn must_reset(&self) -> bool {
        self.must_reset.load(Ordering::Relaxed)
    }

    /// Whether any request has come.
    pub(crate) fn has_asked(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Requests that have begun.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether a request has not ended.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Whether it may stay for another tick; asked once a tick.
    pub(crate) fn may_stay(&self, patience: &mut Patience) -> bool {
        patience.may_stay(
            self.requests.load(Ordering::Relaxed),
            self.is_busy(),
            self.head_begun.load(Ordering::Relaxed),
        )
    }
}

// === impl Busy ===

impl Busy {
    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Patience ===

impl Patience {
    /// At a connection's beginning, whose first byte is there; `timeout` = the longest time of a
    /// request.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            requests: 0,
            head_begun: true,
            idle_ticks: 0,
            busy_ticks: 0,
            max_busy_ticks: timeout.as_secs() / TICK.as_secs() + LATE_TICKS,
        }
    }

    fn may_stay(&mut self, requests: u64, busy: bool, head_begun: bool) -> bool {
        let is_same = requests == self.requests;
        let quiet = is_same && !busy;
        let slow_head = quiet && head_begun && self.head_begun;
        self.idle_ticks = if quiet { self.idle_ticks + 1 } else { 0 };
        // Whose caller reads hardly anything of its answer does not end by itself: nobody asks for
        // more of it, and so nobody sees that it is late.
        self.busy_ticks = if is_same && busy {
            self.busy_ticks + 1
        } else {
            0
        };
        self.requests = requests;
        self.head_begun = head_begun;
        !slow_head && self.idle_ticks < IDLE_TICKS && self.busy_ticks < self.max_busy_ticks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience() -> Patience {
        Patience::new(Duration::from_secs(86_400))
    }

    #[test]
    fn a_first_head_that_does_not_end_has_one_tick() {
        assert!(!patience().may_stay(0, false, true));
        assert!(patience().may_stay(1, false, false));
    }

    #[test]
    fn a_later_head_is_given_a_whole_tick() {
        let mut patience = patience();
        assert!(patience.may_stay(3, false, false));
        assert!(patience.may_stay(3, false, true), "it has only just begun");
        assert!(!patience.may_stay(3, false, true));
    }

    #[test]
    fn a_request_that_lasts_is_not_idle() {
        let mut patience = patience();
        assert!((0..10 * IDLE_TICKS).all(|_| patience.may_stay(1, true, false)));
    }

    #[test]
    fn a_request_that_lasts_longer_than_it_may_ends_with_its_connection() {
        let mut patience = Patience::new(Duration::from_secs(300));
        assert!(patience.may_stay(1, true, false));
        let stays = (0..1000).take_while(|_| patience.may_stay(1, true, false));
        assert_eq!(stays.count(), 7, "five minutes, and three ticks at most");
        let mut patience = Patience::new(Duration::from_secs(300));
        assert!((0..1000).all(|requests| patience.may_stay(requests, true, false)));
    }

    #[test]
    fn an_idle_connection_stays_longer_than_envoys_hour() {
        let mut patience = patience();
        assert!(patience.may_stay(1, false, false));
        let stays = (1..1000).take_while(|_| patience.may_stay(1, false, false));
        assert_eq!(stays.count(), 64);
    }
}
