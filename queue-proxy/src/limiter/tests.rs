use std::{
    collections::VecDeque, future::Future, pin::Pin, task::Context, task::Poll, task::Waker,
    time::Duration,
};

use lull_contract::settings::QUEUE_DEPTH_PER_SLOT;
use proptest::prelude::*;

use super::*;

type Waiting = Pin<Box<dyn Future<Output = Result<Permit, QueueFull>>>>;

fn start(limiter: &Limiter) -> Waiting {
    start_at(limiter, Instant::now())
}

fn start_at(limiter: &Limiter, now: Instant) -> Waiting {
    let limiter = limiter.clone();
    Box::pin(async move { limiter.acquire(now).await })
}

/// With the same depth at all times.
fn limiter(limit: u32, depth: u32) -> Limiter {
    Limiter::new(limit, Depth::fixed(depth))
}

fn poll(waiting: &mut Waiting) -> Poll<Result<Permit, QueueFull>> {
    waiting
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

fn permit(limiter: &Limiter) -> Permit {
    permit_at(limiter, Instant::now())
}

fn permit_at(limiter: &Limiter, now: Instant) -> Permit {
    match poll(&mut start_at(limiter, now)) {
        Poll::Ready(Ok(permit)) => permit,
        other => panic!("no slot: {other:?}"),
    }
}

#[test]
fn without_a_limit_everyone_gets_in() {
    let limiter = limiter(0, 0);
    let _permits: Vec<Permit> = (0..1000).map(|_| permit(&limiter)).collect();
    assert_eq!(limiter.queued(), 0);
}

#[test]
fn over_slots_and_queue_a_request_is_refused_at_once() {
    let limiter = limiter(2, 1);
    let (_a, _b) = (permit(&limiter), permit(&limiter));
    let mut c = start(&limiter);
    assert!(poll(&mut c).is_pending());
    assert_eq!(limiter.queued(), 1);
    assert!(matches!(
        poll(&mut start(&limiter)),
        Poll::Ready(Err(QueueFull))
    ));
}

/// Section 10 of `KPA numeric test vectors`. That a fresh pod lets more wait is Lull's own.
#[test]
fn of_so_many_that_come_at_once_the_rest_is_refused() {
    // (row, limit, depth, admitted)
    let rows = [
        ("concurrency 1, depth 1", 1, 1, 2),
        ("CC 1", 1, QUEUE_DEPTH_PER_SLOT, 11),
        ("CC 2", 2, 2 * QUEUE_DEPTH_PER_SLOT, 22),
        ("CC 10", 10, 10 * QUEUE_DEPTH_PER_SLOT, 110),
    ];
    for (row, limit, depth, admitted) in rows {
        let limiter = limiter(limit, depth);
        let mut all: Vec<Waiting> = (0..=admitted).map(|_| start(&limiter)).collect();
        let polled: Vec<_> = all.iter_mut().map(poll).collect();
        let served = polled
            .iter()
            .filter(|polled| matches!(polled, Poll::Ready(Ok(_))));
        assert_eq!(u32::try_from(served.count()).unwrap(), limit, "10, {row}");
        let refused = polled
            .iter()
            .filter(|polled| matches!(polled, Poll::Ready(Err(_))));
        assert_eq!(refused.count(), 1, "10, {row}");
        let is_last = matches!(polled.last(), Some(Poll::Ready(Err(QueueFull))));
        assert!(is_last, "10, {row}: the last one is");
    }
}

#[test]
fn a_depth_of_zero_means_no_queue() {
    let limiter = limiter(1, 0);
    let _a = permit(&limiter);
    assert!(matches!(
        poll(&mut start(&limiter)),
        Poll::Ready(Err(QueueFull))
    ));
}

#[test]
fn who_waits_longest_goes_first_and_nobody_overtakes() {
    let limiter = limiter(1, 10);
    let a = permit(&limiter);
    let (mut b, mut c) = (start(&limiter), start(&limiter));
    assert!(poll(&mut b).is_pending() && poll(&mut c).is_pending());
    drop(a);
    let mut late = start(&limiter);
    assert!(poll(&mut late).is_pending(), "overtook");
    assert!(poll(&mut c).is_pending(), "c came after b");
    assert!(poll(&mut b).is_ready());
}

#[test]
fn who_leaves_frees_the_place_and_the_slot_goes_on() {
    let limiter = limiter(1, 2);
    let a = permit(&limiter);
    let (mut b, mut c) = (start(&limiter), start(&limiter));
    assert!(poll(&mut b).is_pending() && poll(&mut c).is_pending());
    // b has been given the slot when it leaves without ever having been polled again.
    drop(a);
    drop(b);
    assert_eq!(limiter.queued(), 1);
    assert!(poll(&mut c).is_ready());
    assert_eq!(limiter.queued(), 0);
}

#[test]
fn what_a_fresh_pod_lets_wait_stays_when_it_is_fresh_no_more() {
    let limiter = Limiter::new(1, Depth::of(1, 10, None));
    let begun = Instant::now();
    let slot = permit_at(&limiter, begun);
    let mut waiting: Vec<Waiting> = (0..500).map(|_| start_at(&limiter, begun)).collect();
    assert!(waiting.iter_mut().all(|waiting| poll(waiting).is_pending()));
    let later = begun + Duration::from_secs(3600);
    let refused = poll(&mut start_at(&limiter, later));
    assert!(matches!(refused, Poll::Ready(Err(QueueFull))));
    assert_eq!(limiter.queued(), 500);
    // As they go, the usual ones take over.
    drop(slot);
    assert!(poll(&mut waiting[0]).is_ready());
    waiting.truncate(9);
    assert!(poll(&mut start_at(&limiter, later)).is_pending());
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Arrive,
    Leave(usize),
    Finish(usize),
    Poll(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Arrive),
        1 => any::<usize>().prop_map(Step::Leave),
        3 => any::<usize>().prop_map(Step::Finish),
        3 => any::<usize>().prop_map(Step::Poll),
    ]
}

/// What is to hold after every step, whatever came before.
struct Model {
    limiter: Limiter,
    limit: usize,
    depth: usize,
    inside: Vec<Permit>,
    /// Waiting requests in order of arrival.
    waiting: VecDeque<(u32, Waiting)>,
    next: u32,
    last_admitted: Option<u32>,
}

impl Model {
    fn new(limit: u32, depth: u32) -> Self {
        Self {
            limiter: limiter(limit, depth),
            limit: limit as usize,
            depth: depth as usize,
            inside: Vec::new(),
            waiting: VecDeque::new(),
            next: 0,
            last_admitted: None,
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Arrive => self.arrive(),
            Step::Leave(n) if !self.waiting.is_empty() => {
                let n = n % self.waiting.len();
                drop(self.waiting.remove(n));
            }
            Step::Finish(n) if !self.inside.is_empty() => {
                let n = n % self.inside.len();
                drop(self.inside.swap_remove(n));
            }
            Step::Poll(n) if !self.waiting.is_empty() => {
                let n = n % self.waiting.len();
                self.poll(n);
            }
            _ => {}
        }
        self.check();
    }

    fn arrive(&mut self) {
        let mut request = start(&self.limiter);
        let (id, idle) = (self.next, self.inside.len() < self.limit);
        self.next += 1;
        match poll(&mut request) {
            Poll::Ready(Ok(permit)) => {
                // Whoever waits has been given a slot already and only hasn't been polled.
                let given = self.inside.len() + self.waiting.len();
                assert!(given < self.limit, "overtook");
                self.inside.push(permit);
            }
            Poll::Ready(Err(QueueFull)) => {
                assert!(self.waiting.len() >= self.depth, "refused with places free");
                assert!(
                    !(idle && self.waiting.is_empty()),
                    "refused with slots free"
                );
            }
            Poll::Pending => self.waiting.push_back((id, request)),
        }
    }

    fn poll(&mut self, n: usize) {
        if let Poll::Ready(result) = poll(&mut self.waiting[n].1) {
            let (id, _) = self.waiting.remove(n).unwrap();
            self.inside.push(result.expect("who waits is not refused"));
            // Slots go out in order; who was given one may be polled later than the next.
            let ahead = self.waiting.iter().filter(|(other, _)| *other < id).count();
            assert!(ahead + self.inside.len() <= self.limit, "overtook {ahead}");
            self.last_admitted = Some(id);
        }
    }

    fn check(&self) {
        assert!(
            self.inside.len() <= self.limit,
            "more in the app than allowed"
        );
        assert!(
            self.waiting.len() <= self.depth,
            "more waiting than allowed"
        );
        assert_eq!(self.limiter.queued(), self.waiting.len());
    }
}

proptest! {
    #[test]
    fn the_limit_holds_in_any_interleaving(
        limit in 1u32..5,
        depth in 0u32..6,
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut model = Model::new(limit, depth);
        for step in steps {
            model.apply(step);
        }
        // Nothing is stuck: as slots come free, everyone who waits gets in, in order.
        while let Some((_, mut first)) = model.waiting.pop_front() {
            model.inside.clear();
            prop_assert!(poll(&mut first).is_ready());
        }
    }
}
