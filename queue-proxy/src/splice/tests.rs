use lull_contract::report::Load;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::traffic::Traffic;

/// The far ends of a stream, caller's and app's, and what passes bytes between them.
fn stream() -> (DuplexStream, DuplexStream, JoinHandle<()>) {
    let (caller, ours) = duplex(64);
    let (app, theirs) = duplex(64);
    (caller, app, tokio::spawn(copy(ours, theirs, None)))
}

/// A stream that nobody has meant yet.
fn count<'a>(traffic: &Traffic, callers: &'a Callers) -> Count<'a> {
    Count {
        ticket: Mutex::new(traffic.enter(Instant::now(), false)),
        callers,
        peer: IpAddr::from([10, 0, 0, 7]),
    }
}

fn load(traffic: &Traffic) -> Load {
    traffic.load().0
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_keeps_what_the_app_has_closed_is_not_in_flight_for_ever() {
    let (_caller, app, passing) = stream();
    drop(app);
    let began = Instant::now();
    timeout(2 * FAREWELL, passing).await.unwrap().unwrap();
    assert!(began.elapsed() >= FAREWELL, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_on_to_speak_is_heard_after_the_app_has_ended_its_side() {
    let (mut caller, mut app, passing) = stream();
    app.shutdown().await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(FAREWELL * 9 / 10).await;
        caller.write_all(b"x").await.unwrap();
        assert_eq!(app.read_u8().await.unwrap(), b'x');
    }
    drop(caller);
    passing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_app_may_think_for_as_long_as_it_likes_about_what_an_ended_caller_has_said() {
    let (mut caller, mut app, passing) = stream();
    caller.write_all(b"all").await.unwrap();
    caller.shutdown().await.unwrap();
    tokio::time::sleep(10 * FAREWELL).await;
    app.write_all(b"answer").await.unwrap();
    drop(app);
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
    passing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_traffic_once_it_is_meant_and_no_check_before() {
    let (traffic, callers) = (Traffic::new(), Callers::new(true));
    for (open, requests) in [(MEANT / 2, 0), (2 * MEANT, 1)] {
        let count = count(&traffic, &callers);
        assert!(timeout(open, count.once_meant()).await.is_err());
        let load = load(&traffic);
        assert_eq!((load.requests, load.in_flight), (requests, requests));
        assert_eq!(callers.told(|_| 0).requests, requests);
        assert_eq!(traffic.activity().active, 1, "a drain waits for either");
    }
    let (load, activity) = (load(&traffic), traffic.activity());
    assert_eq!((load.requests, load.in_flight), (1, 0));
    assert_eq!(activity.active, 0);
    assert!(activity.last_arrival.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_traffic_from_its_first_byte_on() {
    let (traffic, callers) = (Traffic::new(), Callers::new(true));
    let count = count(&traffic, &callers);
    let (mut caller, ours) = duplex(64);
    let mut heard = CallerSide::new(ours, Some(&count));
    assert_eq!(load(&traffic).requests, 0);
    for _ in 0..2 {
        caller.write_all(b"x").await.unwrap();
        heard.read_u8().await.unwrap();
        assert_eq!((load(&traffic).requests, load(&traffic).in_flight), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stays_open_is_told_of_for_as_long() {
    let (traffic, callers) = (Traffic::new(), Callers::new(true));
    let count = count(&traffic, &callers);
    let open = 10 * callers::EPOCH;
    assert!(timeout(open, count.once_meant()).await.is_err());
    let lately = callers.told(|at| traffic.micros(at));
    let told = lately.callers.iter().map(|told| told.caller.as_str());
    assert_eq!(told.collect::<Vec<_>>(), ["10.0.0.7"]);
    let ago = u128::from(traffic.micros(Instant::now()) - lately.last_us);
    assert!(ago <= callers::EPOCH.as_micros(), "{ago}");
    assert_eq!(load(&traffic).requests, 1, "it is one");
}
