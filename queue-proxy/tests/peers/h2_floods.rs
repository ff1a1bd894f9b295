//! HTTP/2 callers that mean harm by sending much of what is allowed in little: each is bounded or
//! ended, and nobody beside feels it.

use tokio::io::AsyncWriteExt;

use crate::{
    beside::Hello,
    floods::{self, Flood},
    frames::{self, HEADERS, RST_STREAM},
    h2_faults,
};

/// What the proxy may have at most while others do harm.
const MEMORY_MIB: u64 = 40;

/// Floods, and fails where an end is none that is expected or somebody else felt it.
async fn check(floods: Vec<Flood>) {
    for flood in floods {
        let hello = Hello::start(&[]).await;
        for reads in [true, false] {
            let beside = hello.beside();
            let end = flood.run(hello.traffic(), reads).await;
            let asked = beside.unharmed().await;
            assert!(flood.ends.contains(&end), "{}: {end:?}", flood.name);
            assert!(
                hello.seen() < asked + 1_000,
                "{}: {} reached the app",
                flood.name,
                hello.seen()
            );
            hello.proxy.in_flight(0).await;
        }
        hello.assert_peak_below(MEMORY_MIB);
    }
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_are_opened() {
    check(floods::resets()).await;
}

#[tokio::test]
async fn streams_that_the_proxy_is_made_to_reset() {
    check(floods::made_resets()).await;
}

#[tokio::test]
async fn more_streams_than_are_allowed() {
    check(floods::streams()).await;
}

#[tokio::test]
async fn heads_without_end() {
    check(floods::heads()).await;
}

#[tokio::test]
async fn trailers_without_end() {
    check(floods::trailers()).await;
}

#[tokio::test]
async fn data_frames_without_data() {
    check(floods::empty_data()).await;
}

#[tokio::test]
async fn frames_that_want_an_answer() {
    check(floods::questions()).await;
}

#[tokio::test]
async fn frames_that_nobody_waits_for() {
    check(floods::noise()).await;
}

#[tokio::test]
async fn a_head_that_is_large_when_unpacked() {
    let hello = Hello::start(&[]).await;
    let beside = hello.beside();
    let mut caller = frames::connect(hello.traffic()).await;
    let [first, second] = h2_faults::large_when_unpacked();
    caller.write_all(&first).await.unwrap();
    let answer = frames::read_until(&mut caller, |frame| frame.stream == 1).await;
    let (kind, status) = (answer.kind, answer.payload[0]);
    assert_eq!((kind, status), (HEADERS, frames::STATUS_200[0]));
    caller.write_all(&second).await.unwrap();
    while let Some(answer) = frames::read(&mut caller).await {
        // Status as literal, its name from the table.
        let refused = answer.kind == RST_STREAM || answer.payload.ends_with(b"431");
        if answer.stream == 3 {
            assert!(refused, "{answer:?}");
            break;
        }
    }
    let asked = beside.unharmed().await;
    assert_eq!(hello.seen(), asked + 1);
    hello.assert_peak_below(MEMORY_MIB);
}
