//! The API server: a client, and a way to watch, that hear when nobody answers any more.
//!
//! A connection may die without a word, as when a node is lost or a firewall forgets it. TCP by itself
//! notices that after a quarter of an hour, and kube's watches after five minutes; until then who
//! watches knows nothing of new pods and gone activators.

use std::time::Duration;

use kube::{
    Client, Config, Error,
    runtime::{
        utils::Backoff,
        watcher::{self, DefaultBackoff},
    },
};

/// A watch is begun anew this often, seconds; it goes on where the last one has ended. kube gives one
/// that tells nothing 5 s more.
const WATCH: u32 = 60;
/// Longest silence of the API server on any call: a watch that is alive ends sooner.
const SILENCE: Duration = Duration::from_secs(75);
/// Longest pause of a watch that has failed. By kube's own, which doubles up to a minute, pods would be seen
/// that much later than the API server is back, and who is held waits for them.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// kube's pauses, up to [`LONGEST_PAUSE`].
struct Pauses(DefaultBackoff);

/// A client of the API server at the address that the environment knows: kubeconfig, or service account.
///
/// # Errors
/// Where there is no such address, or what it says can't be used.
pub async fn connect() -> Result<Client, Error> {
    client(Config::infer().await.map_err(Error::InferConfig)?)
}

/// A client of the API server that `config` names. To be made on the runtime that uses it.
///
/// # Errors
/// Where `config` can't be used.
pub fn client(mut config: Config) -> Result<Client, Error> {
    config.read_timeout = Some(SILENCE);
    // Else the time counts in which a connection was not used.
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

/// How everything is watched; what is watched is for the caller to add.
#[must_use]
pub fn watched() -> watcher::Config {
    watcher::Config::default().timeout(WATCH)
}

/// The pauses of a watch that callers wait for, each after one more failure.
#[must_use]
pub fn pauses() -> impl Backoff {
    Pauses(DefaultBackoff::default())
}

// === impl Pauses ===

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST_PAUSE))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        net::TcpListener,
        time::{Instant, timeout},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_nobody_answers_ends_and_a_watch_that_is_alive_ends_before() {
        // It takes connections, by its backlog, and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let mut config = Config::new(url.parse().unwrap());
        // The clock may jump while it connects.
        config.connect_timeout = None;
        // No look at this machine's own authorities.
        config.root_cert = Some(Vec::new());
        let client = client(config).unwrap();
        let began = Instant::now();
        let answer = timeout(4 * SILENCE, client.apiserver_version()).await;
        answer.expect("the client gives up by itself").unwrap_err();
        let watch = Duration::from_secs(watched().timeout.unwrap().into());
        assert!(began.elapsed() > watch + Duration::from_secs(5));
    }

    #[test]
    fn a_watch_is_begun_again_in_seconds_however_long_it_has_failed() {
        let pauses: Vec<Duration> = pauses().take(20).collect();
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
        assert!(pauses.first() < pauses.last(), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
    }
}
