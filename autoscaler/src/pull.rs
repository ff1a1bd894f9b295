//! Fetching reports over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

/// Longest wait for a connection to a pod.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Idle connections are dropped after this; a pull comes about every second.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps connections to reporters open.
#[derive(Debug, Clone)]
pub struct Puller {
    client: Client<HttpConnector, Empty<Bytes>>,
}

/// Why a report was not had.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// Not an address.
    #[error("{0:?} is not an address")]
    Address(String),
    /// No connection, or it broke.
    #[error("no answer: {0}")]
    Request(#[source] hyper_util::client::legacy::Error),
    /// Longer than allowed.
    #[error("longer than the {0} bytes allowed")]
    TooLong(usize),
    /// Cut.
    #[error("body: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another status than 200.
    #[error("answered {0}")]
    Status(StatusCode),
    /// Took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

// === impl Puller ===

impl Puller {
    /// A puller without connections.
    #[must_use]
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(1)
            .build(connector);
        Self { client }
    }

    /// The body that `ip:port` answers to `GET path` within `limit`, at most `max` bytes.
    ///
    /// # Errors
    /// [`PullError`] for anything but a 200 with a body that fits.
    pub async fn get(
        &self,
        (ip, port): (&str, u16),
        path: &str,
        (limit, max): (Duration, usize),
    ) -> Result<Bytes, PullError> {
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        };
        let address = format!("http://{host}:{port}{path}");
        let uri: Uri = address.parse().map_err(|_| PullError::Address(address))?;
        let fetch = async {
            let response = self.client.get(uri).await.map_err(PullError::Request)?;
            if response.status() != StatusCode::OK {
                return Err(PullError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), max).collect().await;
            let body = body.map_err(|source| {
                if source.is::<LengthLimitError>() {
                    PullError::TooLong(max)
                } else {
                    PullError::Body(source)
                }
            });
            Ok(body?.to_bytes())
        };
        tokio::time::timeout(limit, fetch)
            .await
            .map_err(|_| PullError::Timeout(limit))?
    }
}

impl Default for Puller {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use lull_process::server;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn a_body_is_had_where_it_is_no_longer_than_allowed() {
        const BODY: &str = "twelve bytes";
        let listener = server::bind(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let _stopped = stop.clone().drop_guard();
        let answer = |_| async { server::text(StatusCode::OK, BODY) };
        tokio::spawn(server::serve(listener, stop, answer));
        let puller = Puller::new();
        let get = async |ip, max| {
            let limits = (Duration::from_secs(10), max);
            puller.get((ip, port), "/report", limits).await
        };
        for ip in ["127.0.0.1", "::1"] {
            assert_eq!(get(ip, BODY.len()).await.unwrap(), BODY, "{ip}");
        }
        let longer = get("127.0.0.1", BODY.len() - 1).await;
        assert!(matches!(longer, Err(PullError::TooLong(11))), "{longer:?}");
    }
}
