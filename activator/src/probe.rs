//! Asks a pod's queue-proxy whether it takes traffic, often: the pod is used the moment it does.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use lull_process::backoff::doubled;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};

/// Time between two tries.
const EVERY: Duration = Duration::from_millis(10);
/// Between two tries of all together: a try costs some 40 us of CPU here and at the pod, and where
/// hundreds of pods start at once, those would be short of it.
const EVERY_OF_ALL: Duration = Duration::from_micros(250);
/// Longest time of an answer, and of any connect.
const TRY: Duration = Duration::from_millis(200);
/// Longest time of the first connect, which the pod's kernel answers by itself. The first packets to a new
/// address may be lost until its node has the routes and the policies for it, and our kernel would send
/// another one only after a second.
const CONNECT: Duration = Duration::from_millis(25);
/// After this time without success something is wrong, and we ask less often.
const HOPE: Duration = Duration::from_secs(30);
/// Time between two tries then.
const EVERY_WITHOUT_HOPE: Duration = Duration::from_millis(250);
/// Enough for the status line.
const HEAD: usize = 12;

/// How many pods are being asked, each of them often.
#[derive(Debug, Default)]
pub(crate) struct Probes(AtomicU32);

/// One of [`Probes`], for as long as there is hope.
#[derive(Debug)]
struct Hope<'a>(&'a Probes);

/// Returns when `/ready` at `admin` has answered 200; the first try is after `delay`. With each connection
/// that is taken there, `listens` is told.
pub(crate) async fn until_ready(
    admin: SocketAddr,
    delay: Duration,
    probes: &Probes,
    mut listens: impl FnMut() + Send,
) {
    let start = Instant::now();
    let mut next = start + delay;
    let mut hope = Some(probes.one_more());
    // Connects of which nothing was heard: what they teach of the way to the pod is kept.
    let mut unheard = 0;
    loop {
        // A timer takes its millisecond even where its time is over, as at the first try.
        if next > Instant::now() {
            sleep_until(next).await;
        }
        next = Instant::now() + hope.as_ref().map_or(EVERY_WITHOUT_HOPE, Hope::pause);
        match connect(admin, unheard).await {
            Some(Ok(stream)) => {
                listens();
                match timeout(TRY, is_ready(stream, admin)).await {
                    Ok(Ok(true)) => return,
                    Ok(Ok(false)) => tracing::trace!(%admin, "pod is not ready"),
                    Ok(Err(error)) => tracing::trace!(%admin, %error, "pod does not answer"),
                    Err(_) => tracing::trace!(%admin, "pod does not answer in time"),
                }
            }
            Some(Err(error)) => tracing::trace!(%admin, %error, "pod can't be reached"),
            None => {
                unheard += 1;
                tracing::trace!(%admin, unheard, "nothing is heard of the pod");
            }
        }
        if start.elapsed() > HOPE {
            hope = None;
        }
    }
}

/// `None` where nothing was heard in time, as of the `unheard` connects before it.
async fn connect(admin: SocketAddr, unheard: u32) -> Option<io::Result<TcpStream>> {
    let connecting = TcpStream::connect(admin);
    timeout(connect_limit(unheard), connecting).await.ok()
}

/// Longest time of a connect after so many `unheard` ones: a pod that is far away is reached, too.
fn connect_limit(unheard: u32) -> Duration {
    doubled(CONNECT, unheard, TRY)
}

async fn is_ready(mut stream: TcpStream, admin: SocketAddr) -> io::Result<bool> {
    let request = format!("GET /ready HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    Ok(head.starts_with(b"HTTP/1.") && head.ends_with(b" 200"))
}

// === impl Probes ===

impl Probes {
    fn one_more(&self) -> Hope<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Hope(self)
    }
}

// === impl Hope ===

impl Hope<'_> {
    /// Time between two tries of one, with as many as there are.
    fn pause(&self) -> Duration {
        EVERY.max(EVERY_OF_ALL.saturating_mul(self.0.0.load(Ordering::Relaxed)))
    }
}

impl Drop for Hope<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use lull_process::server;
    use std::sync::Arc;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn many_are_asked_less_often_and_those_that_are_done_do_not_count() {
        let probes = Probes::default();
        for (count, pause_ms) in [(1, 10), (40, 10), (400, 100), (1_000, 250)] {
            let all: Vec<Hope<'_>> = (0..count).map(|_| probes.one_more()).collect();
            assert_eq!(all[0].pause().as_millis(), pause_ms, "{count}");
        }
        assert_eq!(probes.one_more().pause(), EVERY);
    }

    #[test]
    fn a_packet_that_was_lost_costs_little_and_a_pod_that_is_far_away_is_reached() {
        let limits = [0, 1, 2, 3, u32::MAX].map(|unheard| connect_limit(unheard).as_millis());
        assert_eq!(limits, [25, 50, 100, 200, 200]);
    }

    #[tokio::test]
    async fn it_asks_until_the_answer_is_200() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(server::serve(
            listener,
            CancellationToken::new(),
            move |request| {
                let number = count.fetch_add(1, Ordering::Relaxed);
                async move {
                    assert_eq!(request.uri().path(), "/ready");
                    match number {
                        0..3 => server::text(StatusCode::SERVICE_UNAVAILABLE, "no"),
                        _ => server::text(StatusCode::OK, "yes"),
                    }
                }
            },
        ));
        let (probes, mut taken) = (Probes::default(), 0);
        let ready = until_ready(address, Duration::ZERO, &probes, || taken += 1);
        timeout(Duration::from_secs(20), ready).await.unwrap();
        assert_eq!((taken, asked.load(Ordering::Relaxed)), (4, 4));
    }
}
