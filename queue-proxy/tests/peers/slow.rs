//! What takes longer than a developer waits: `make test-full`.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Duration, Instant},
};

use crate::beside::Hello;

/// Between two bytes of a caller that wants to stay.
const DRIP: Duration = Duration::from_secs(1);
/// About how long a first head may take.
const HEAD: std::ops::Range<Duration> = Duration::from_secs(55)..Duration::from_secs(70);
/// The same for a later head.
const LATER_HEAD: std::ops::Range<Duration> = Duration::from_secs(55)..Duration::from_secs(125);

/// Sends `begin` and then byte after byte; returns after what time the connection ended.
async fn drip(hello: &Hello, begin: &str, byte: &[u8]) -> Duration {
    let stream = hello.proxy.connect().await;
    let (mut reader, mut writer) = stream.into_split();
    let started = Instant::now();
    let writing = async {
        let mut written = writer.write_all(begin.as_bytes()).await;
        while written.is_ok() {
            tokio::time::sleep(DRIP).await;
            written = writer.write_all(byte).await;
        }
    };
    let mut answer = Vec::new();
    let limit = tokio::time::sleep(LATER_HEAD.end + DRIP);
    tokio::select! {
        _ = reader.read_to_end(&mut answer) => {}
        () = writing => {}
        () = limit => {}
    }
    started.elapsed()
}

#[tokio::test]
#[ignore = "slow: make test-full"]
async fn a_first_head_that_does_not_end_is_given_up() {
    let hello = Hello::start(&[]).await;
    let beside = hello.beside();
    let head = "GET / HTTP/1.1\r\nHost: shop\r\n";
    let ends = tokio::join!(
        drip(&hello, "G", b"E"),
        drip(&hello, head, b"x"),
        drip(&hello, "PR", b""),
    );
    for end in [ends.0, ends.1, ends.2] {
        assert!(HEAD.contains(&end), "{end:?}");
    }
    beside.unharmed().await;
}

#[tokio::test]
#[ignore = "slow: make test-full"]
async fn a_later_head_that_does_not_end_is_given_up() {
    let hello = Hello::start(&[]).await;
    let begin = "GET / HTTP/1.1\r\nHost: shop\r\n\r\nGET / HTTP/1.1\r\nHost: shop\r\nX: ";
    let end = drip(&hello, begin, b"x").await;
    assert!(LATER_HEAD.contains(&end), "{end:?}");
}
