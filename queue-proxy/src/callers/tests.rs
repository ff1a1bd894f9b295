//! Calls in, shares out.

use http::Method;

use super::*;

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn get(path: &str) -> Option<Asked<'_>> {
    Some(Asked::of(&Method::GET, path))
}

/// Callers and counts of what is told.
fn told(callers: &Callers) -> Vec<(String, u64)> {
    let lately = callers.told(|_| 0);
    let callers = lately.callers.into_iter();
    callers.map(|told| (told.caller, told.requests)).collect()
}

#[test]
fn a_sample_stands_for_all_requests_of_a_connection_and_for_no_more() {
    for requests in [1, 16, 17, 32, 33, 50, 10_000] {
        let counted: u64 = (1..=requests).map(weight).sum();
        assert!(counted <= requests, "{counted} of {requests}");
        assert!(requests - counted < STRIDE, "{counted} of {requests}");
    }
    let looked_at = (1..=10_000).filter(|number| weight(*number) > 0).count();
    assert!(looked_at < 10_000 / 16, "{looked_at}");
}

#[tokio::test(start_paused = true)]
async fn callers_are_told_with_what_they_asked_for_the_busiest_first() {
    let (callers, now) = (Callers::new(true), Instant::now());
    callers.note(now, Who::Address(address(1)), get("/a"), 1);
    callers.note(now, Who::Account("prod/sa/checkout"), get("/api/7"), 17);
    callers.note(now, Who::Account("prod/sa/checkout"), get("/b"), 1);
    callers.note(now, Who::Account("prod/sa/checkout"), get("/c"), 2);
    callers.note_stream(now, "::ffff:10.0.0.1".parse().unwrap());
    let lately = callers.told(|_| 7);
    assert_eq!((lately.last_us, lately.requests), (7, 22));
    let expected = [("prod/checkout".to_owned(), 20), ("10.0.0.1".to_owned(), 2)];
    assert_eq!(told(&callers), expected);
    let asked = [("GET /api/*".to_owned(), 17), ("GET /c".to_owned(), 2)];
    assert_eq!(lately.callers[0].asked, asked);
}

#[tokio::test(start_paused = true)]
async fn the_last_times_in_which_anybody_called_are_told_however_long_ago_they_are() {
    let callers = Callers::new(true);
    let note = |last: u8| callers.note_stream(Instant::now(), address(last));
    assert!(callers.told(|_| 7).is_empty());
    note(1);
    tokio::time::advance(100 * EPOCH).await;
    assert_eq!(told(&callers), [("10.0.0.1".to_owned(), 1)]);
    note(2);
    let both = [("10.0.0.1".to_owned(), 1), ("10.0.0.2".to_owned(), 1)];
    assert_eq!(told(&callers), both);
    tokio::time::advance(EPOCH).await;
    note(2);
    assert_eq!(
        told(&callers),
        [("10.0.0.2".to_owned(), 2)],
        "of both times"
    );
}

#[tokio::test(start_paused = true)]
async fn a_crowd_takes_no_more_memory_and_hides_nobody_who_calls_much() {
    let (callers, now) = (Callers::new(true), Instant::now());
    for number in 0..=u8::MAX {
        let path = format!("/p{}", number % 100);
        let stranger = IpAddr::from([192, 168, number, 1]);
        callers.note(now, Who::Address(stranger), get(&path), 1);
        callers.note(now, Who::Address(address(1)), get(&path), 2);
    }
    let table = callers.table.lock();
    assert_eq!(table.now.callers.0.len(), MAX_CALLERS);
    let most_asked = table
        .now
        .callers
        .0
        .iter()
        .map(|(called, _)| called.asked.0.len());
    assert_eq!(most_asked.max(), Some(MAX_CLASSES));
    drop(table);
    let lately = callers.told(|_| 0);
    assert_eq!(lately.callers.len(), MAX_LATELY);
    assert_eq!((lately.requests, lately.callers[0].requests), (768, 512));
    assert_eq!(lately.callers[0].caller, "10.0.0.1");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_of_where_that_is_turned_off() {
    let callers = Callers::new(false);
    callers.note(Instant::now(), Who::Address(address(1)), get("/a"), 1);
    callers.note_stream(Instant::now(), address(1));
    assert!(callers.told(|_| 7).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_is_told_of_as_it_began() {
    let callers = Callers::new(true);
    let asked = Asked::of(&Method::GET, "/socket/7");
    let known = Known::of(Who::Account("prod/sa/front"), asked);
    for _ in 0..10 {
        callers.note_again(Instant::now(), &known);
        tokio::time::advance(EPOCH).await;
    }
    let lately = callers.told(|_| 0);
    assert_eq!(told(&callers), [("prod/front".to_owned(), 2)]);
    assert_eq!(lately.callers[0].asked, [("GET /socket/*".to_owned(), 2)]);
}
