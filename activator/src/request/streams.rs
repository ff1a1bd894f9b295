//! What is under way on an HTTP/2 connection, and how it ends.
//!
//! Pingora has a limit for idle ones, too. It would cut them without a word, and keep a timer for each
//! request until that would have ended.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use super::IDLE;

/// Who has been told to go, and is quiet, is cut off after so long.
const LEAVES: Duration = Duration::from_secs(5);

/// The requests on a connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    begun: AtomicUsize,
    ended: AtomicUsize,
    /// To end by GOAWAY: what is under way is answered, nothing new comes.
    goodbye: watch::Sender<bool>,
}

// === impl Streams ===

impl Streams {
    pub(super) fn begins(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Becomes true when the connection is to end.
    pub(super) fn goodbye(&self) -> watch::Receiver<bool> {
        self.goodbye.subscribe()
    }

    /// What is under way is answered first.
    pub(super) fn say_goodbye(&self) {
        self.goodbye
            .send_if_modified(|said| !std::mem::replace(said, true));
    }

    /// Returns when the connection can be cut: nobody has asked for too long, and its caller has been
    /// told.
    pub(super) async fn idle(&self) {
        self.quiet(IDLE).await;
        self.say_goodbye();
        self.quiet(LEAVES).await;
    }

    /// Returns when nothing has been under way for `time`, and at the latest when it has been so for
    /// twice that: one timer does for a connection, however much comes.
    async fn quiet(&self, time: Duration) {
        let seen = || {
            let ended = self.ended.load(Ordering::Relaxed);
            (self.begun.load(Ordering::Relaxed), ended)
        };
        let (mut before, mut now) = (None, seen());
        while before != Some(now) || now.0 != now.1 {
            before = Some(now);
            sleep(time).await;
            now = seen();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::{Instant, timeout};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_nothing_is_told_to_go_and_then_cut_off() {
        let (streams, begin) = (Streams::default(), Instant::now());
        let told = streams.goodbye();
        let mut idle = pin!(streams.idle());
        assert!(timeout(64 * MINUTE, idle.as_mut()).await.is_err());
        assert!(!*told.borrow());
        let little_more = MINUTE + Duration::from_secs(1);
        assert!(timeout(little_more, idle.as_mut()).await.is_err());
        assert!(*told.borrow());
        idle.await;
        assert_eq!(begin.elapsed().as_secs(), 65 * 60 + 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_once_the_last_request_has_ended_for_long_enough() {
        let (streams, begin) = (Streams::default(), Instant::now());
        let told = streams.goodbye();
        let mut idle = pin!(streams.idle());
        streams.begins();
        assert!(timeout(600 * MINUTE, idle.as_mut()).await.is_err());
        // Another one begins and ends between two looks.
        streams.begins();
        streams.ended();
        streams.ended();
        assert!(timeout(66 * MINUTE, idle.as_mut()).await.is_err());
        assert!(!*told.borrow());
        idle.await;
        assert!(*told.borrow());
        let minutes = begin.elapsed().as_secs() / 60;
        assert!((665..=730).contains(&minutes), "{minutes}");
    }
}
