//! The autoscaler's report, as a long poll.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use lull_contract::report::{ActivatorReport, SEEN_PARAM, SINCE_PARAM, VERSION, WAIT_PARAM};
use lull_process::server::{self, Answer};

use crate::{
    directory::{Directory, Gathered},
    hub::Hub,
};

/// Longest wait of one poll, whatever the reader asks for.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Answers polls.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) hub: Arc<Hub>,
    pub(crate) directory: Directory,
    pub(crate) boot: u64,
}

/// What a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Query {
    seen: Option<u64>,
    wait: Duration,
    since: Option<u64>,
}

// === impl Reporter ===

impl Reporter {
    /// Report port.
    pub(crate) async fn answer(&self, method: &Method, path: &str, query: &str) -> Answer {
        if method != Method::GET {
            return server::text(
                StatusCode::METHOD_NOT_ALLOWED,
                "this port only answers GET\n",
            );
        }
        if path != "/report" {
            return server::text(StatusCode::NOT_FOUND, "here is /report\n");
        }
        let Some(query) = Query::parse(query) else {
            let text =
                format!("{SEEN_PARAM}, {WAIT_PARAM} and {SINCE_PARAM} must be whole numbers\n");
            return server::text(StatusCode::BAD_REQUEST, text);
        };
        server::json(&self.report(query).await)
    }

    async fn report(&self, query: Query) -> ActivatorReport {
        if let Some(seen) = query.seen {
            let mut edge = self.hub.edge();
            // Not in time is an answer, too; the sender lives as long as the hub.
            // Another edge than the one seen, not only a higher: after a restart it is lower.
            let _ = tokio::time::timeout(query.wait, edge.wait_for(|edge| *edge != seen)).await;
        }
        // The edge is read first: what is raised while the rest is gathered is told again.
        let edge = *self.hub.edge().borrow();
        let Gathered {
            sequence,
            partial,
            workloads,
        } = self.directory.report(query.since);
        ActivatorReport {
            v: VERSION,
            pod: self.hub.config.pod_name.clone(),
            boot: self.boot,
            workloads,
            now_us: self.hub.now_us(),
            edge,
            sequence,
            partial,
        }
    }
}

// === impl Query ===

impl Query {
    fn parse(text: &str) -> Option<Self> {
        let mut query = Self {
            seen: None,
            wait: Duration::ZERO,
            since: None,
        };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=')? {
                (SEEN_PARAM, value) => query.seen = Some(value.parse().ok()?),
                (SINCE_PARAM, value) => query.since = Some(value.parse().ok()?),
                (WAIT_PARAM, value) => {
                    query.wait = Duration::from_millis(value.parse().ok()?).min(MAX_WAIT);
                }
                _ => {}
            }
        }
        Some(query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_and_its_wait_is_capped() {
        let query = Query::parse("seen=7&wait_ms=1500&x=y").unwrap();
        assert_eq!((query.seen, query.wait.as_millis()), (Some(7), 1500));
        let query = Query::parse("wait_ms=600000").unwrap();
        assert_eq!((query.seen, query.wait), (None, MAX_WAIT));
        assert_eq!(Query::parse("").unwrap().seen, None);
        assert!(Query::parse("seen=x").is_none());
    }
}
