//! What the autoscaler pulls: a long poll that returns at once when somebody starts to wait.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, StatusCode};
use lull_contract::report::{ActivatorReport, SEEN_PARAM, VERSION, WAIT_PARAM};
use lull_process::server::{Answer, json, text};
use parking_lot::RwLock;

use crate::directory::Directory;

/// Longest poll.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How often workloads that wait in vain are looked for.
const TELL_AGAIN_EVERY: Duration = Duration::from_millis(250);

/// Makes reports.
#[derive(Debug, Clone)]
pub struct Reporter {
    pod: String,
    boot: u64,
    directory: Arc<Directory>,
    bound: Arc<RwLock<HashSet<u16>>>,
}

/// What a poll asks for.
#[derive(Debug, PartialEq, Eq)]
struct Poll {
    seen: Option<u64>,
    wait: Duration,
}

// === impl Reporter ===

impl Reporter {
    /// Reports of the pod `pod`, which listens on `bound`.
    #[must_use]
    pub fn new(pod: &str, directory: Arc<Directory>, bound: Arc<RwLock<HashSet<u16>>>) -> Self {
        Self {
            pod: pod.to_owned(),
            boot: lull_process::boot_id(),
            directory,
            bound,
        }
    }

    /// Answers `GET /report?seen=<edge>&wait_ms=<n>`.
    pub async fn answer<B>(self, request: Request<B>) -> Answer {
        if request.uri().path() != "/report" {
            return text(StatusCode::NOT_FOUND, "pages: /report\n");
        }
        let poll = match parse(request.uri().query().unwrap_or_default()) {
            Ok(poll) => poll,
            Err(fault) => return text(StatusCode::BAD_REQUEST, fault),
        };
        let edge = &self.directory.shared().edge;
        if let Some(seen) = poll.seen {
            // In time or not, the answer is the report as it is then.
            let _ = tokio::time::timeout(poll.wait, edge.above(seen)).await;
        }
        json(&self.report())
    }

    fn report(&self) -> ActivatorReport {
        let shared = self.directory.shared();
        // The edge goes first: what comes after it makes the next poll return at once.
        let edge = shared.edge.now();
        let bound = self.bound.read();
        let workloads = self
            .directory
            .workloads()
            .into_iter()
            .map(|(workload, ports)| {
                workload.report(
                    ports
                        .into_iter()
                        .filter(|port| bound.contains(port))
                        .collect(),
                )
            })
            .collect();
        ActivatorReport {
            v: VERSION,
            pod: self.pod.clone(),
            boot: self.boot,
            now_us: shared.now_us(),
            edge,
            workloads,
        }
    }

    /// Bumps the edge again for workloads that hold in vain, with backoff, for ever.
    pub async fn tell_again(self) {
        let mut every = tokio::time::interval(TELL_AGAIN_EVERY);
        loop {
            every.tick().await;
            let now = Instant::now();
            let again = self
                .directory
                .workloads()
                .iter()
                .filter(|(workload, _)| workload.should_tell_again(now))
                .count();
            if again > 0 {
                self.directory.shared().edge.bump();
            }
        }
    }
}

fn parse(query: &str) -> Result<Poll, String> {
    let mut poll = Poll {
        seen: None,
        wait: Duration::ZERO,
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{key}={value:?}: must be a whole number\n"))
        };
        match key {
            SEEN_PARAM => poll.seen = Some(number()?),
            WAIT_PARAM => poll.wait = Duration::from_millis(number()?).min(MAX_WAIT),
            _ => return Err(format!("{key}: known are {SEEN_PARAM} and {WAIT_PARAM}\n")),
        }
    }
    Ok(poll)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_read_and_faults_named() {
        let poll = parse("seen=7&wait_ms=90000").unwrap();
        assert_eq!(
            poll,
            Poll {
                seen: Some(7),
                wait: MAX_WAIT
            }
        );
        assert_eq!(parse("").unwrap().seen, None);
        assert!(parse("seen=x").unwrap_err().contains("seen=\"x\""));
        assert!(parse("other=1").unwrap_err().contains("known are"));
    }
}
