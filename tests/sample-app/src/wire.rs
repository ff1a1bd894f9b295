//! What the load client takes and answers, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Longest run, seconds: an hour of the race suite, and its end.
pub const MAX_SECONDS: f64 = 4_000.0;
/// Longest time before a run's first request, milliseconds.
pub const MAX_DELAY_MS: u64 = 60_000;
/// Most requests of one run.
pub const MAX_REQUESTS: u64 = 5_000_000;
/// Most connections of one run.
pub const MAX_CONNECTIONS: u32 = 2_000;
/// Response header in which the app says which pod answered.
pub const POD_HEADER: &str = "x-pod";
/// Response header in which an activator says that it was in the path.
pub const ACTIVATOR_HEADER: &str = "server-timing";
/// What stands in [`ACTIVATOR_HEADER`] then.
pub const ACTIVATOR_MARK: &str = "lull";

/// A load to run; at least one of `requests` and `seconds` must be given.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSpec {
    /// `http://host:port/path`; the host is resolved once per run.
    pub url: String,
    /// Method of each request.
    pub method: String,
    /// Path and query; where absent those of `url`.
    pub path: Option<String>,
    /// Further request headers; `host` takes the place of the URL's.
    pub headers: BTreeMap<String, String>,
    /// Connections used at once, each with at most `streams` requests in flight.
    pub connections: u32,
    /// Requests in flight at once on each connection; more than one takes `h2c` and `keep_alive`.
    pub streams: u32,
    /// Requests to send in all.
    pub requests: Option<u64>,
    /// Time after which no new request is sent.
    pub seconds: Option<f64>,
    /// Time before the first request; everything else counts from its end.
    pub delay_ms: u64,
    /// Requests per second over all connections; as fast as answers come where absent.
    pub rate: Option<f64>,
    /// Use a connection for many requests; else a new one for each.
    pub keep_alive: bool,
    /// Speak HTTP/2 without TLS.
    pub h2c: bool,
    /// Call as gRPC does, with an empty message: a POST, and its answer counts by `grpc-status`. Takes
    /// `h2c`.
    pub grpc: bool,
    /// Longest time of one request, connecting included.
    pub timeout_ms: u64,
}

/// Answer to a started run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunId {
    /// What to ask for.
    pub id: u64,
}

/// What has come of a run so far. Every request sent counts exactly once in `ok` or `failed`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunResult {
    /// Nothing is in flight any more and nothing will be sent.
    pub done: bool,
    /// Requests begun.
    pub sent: u64,
    /// Answers with 2xx or 3xx, read to the end; of gRPC those with status 0.
    pub ok: u64,
    /// Other answers, errors and timeouts.
    pub failed: u64,
    /// Answers by status code.
    pub by_status: BTreeMap<u16, u64>,
    /// Failures by text; at most 32 different ones, the rest as `other`.
    pub errors: BTreeMap<String, u64>,
    /// Answers by the pod that gave them; at most 1000 pods.
    pub by_pod: BTreeMap<String, u64>,
    /// Times of successful requests, connecting included.
    pub latency_ms: Latency,
    /// First success, from the run's start.
    pub first_ok_ms: Option<f64>,
    /// First failure, from the run's start.
    pub first_failed_ms: Option<f64>,
    /// Last failure, from the run's start.
    pub last_failed_ms: Option<f64>,
    /// Failures by the second in which they ended, counted from 1970, and by what became of them; at most
    /// 1000 different seconds, the rest as second 0.
    pub failed_by_second: BTreeMap<u64, BTreeMap<Failure, u64>>,
    /// The run's start.
    pub started_at_unix_ms: u64,
    /// From the run's start until now or its end.
    pub elapsed_ms: f64,
    /// Answers that came through an activator.
    pub via_activator: u64,
    /// The last of them, from the run's start.
    pub last_via_activator_ms: Option<f64>,
    /// Connections opened.
    pub connections_opened: u64,
    /// Requests given to a reused connection that turned out closed before a byte of them was
    /// written, or to one of HTTP/2 that went away before it saw them, and sent on a new one: the
    /// race of every client that keeps connections, not a failure.
    pub reused_connection_retries: u64,
}

/// What became of a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Failure {
    /// There was no connection for it: refused, for instance.
    Unconnected,
    /// Its connection ended before its answer did.
    Cut,
    /// Its answer was a 502: who was to answer it broke.
    BadGateway,
    /// Its answer was another one that is no success.
    Answered,
    /// It had no answer in time.
    Late,
}

/// Percentiles, milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// Half of the requests took no longer.
    pub p50: f64,
    /// 90 % of the requests took no longer.
    pub p90: f64,
    /// 99 % of the requests took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// One request and its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProbeSpec {
    /// `http://host:port/path`, or `tcp://host:port` for a server that speaks first.
    pub url: String,
    /// Method of the request.
    pub method: String,
    /// Further request headers; `host` takes the place of the URL's.
    pub headers: BTreeMap<String, String>,
    /// Speak HTTP/2 without TLS.
    pub h2c: bool,
    /// Longest time of one attempt, connecting included.
    pub timeout_ms: u64,
    /// Try again every 5 ms until an attempt succeeds or this time is over.
    pub until_ok_ms: Option<u64>,
    /// Ask for an upgrade, send `send` and read the same number of bytes back.
    pub upgrade: bool,
    /// Do so again and again on the upgraded stream, for so long.
    pub hold_ms: u64,
    /// The request's body; for `upgrade` and `tcp://` what is sent once connected.
    pub send: Option<String>,
}

/// The answer to a probe.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeAnswer {
    /// 2xx or 3xx; for an upgrade 101 and the echo; for TCP the greeting and the echo.
    pub ok: bool,
    /// Status, where one came.
    pub status: Option<u16>,
    /// Response headers.
    pub headers: BTreeMap<String, String>,
    /// First 4 KiB of the body; for upgrades and TCP what came back.
    pub body: String,
    /// Which pod answered, where it said so.
    pub pod: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// From the first attempt's start to the end of the last.
    pub ms: f64,
    /// Attempts made.
    pub attempts: u32,
    /// Start of the first attempt, on the agent's clock.
    pub started_at_unix_us: u64,
    /// End of the last attempt, on the agent's clock.
    pub answered_at_unix_us: u64,
}

/// The agent's clock.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Now {
    /// Microseconds since 1970.
    pub unix_us: u64,
}

/// What the app has done since it started (`GET /stats`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppStats {
    /// Name of the pod.
    pub pod: String,
    /// Requests answered, probes and this page left out.
    pub requests: u64,
    /// Requests in flight now.
    pub in_flight: u64,
    /// Most requests seen in flight at once.
    pub max_in_flight: u64,
}

/// What the app says to any request (`GET /`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// Name of the pod.
    pub pod: String,
    /// Port on which the request came.
    pub port: u16,
    /// Requests in flight, this one included.
    pub in_flight: u64,
    /// HTTP version of the request as the app saw it.
    pub version: String,
    /// Bytes of the request's body.
    pub received_bytes: u64,
    /// Request headers, where `?headers` asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
}

// === impl RunSpec ===

impl Default for RunSpec {
    fn default() -> Self {
        Self {
            url: String::new(),
            method: "GET".to_owned(),
            path: None,
            headers: BTreeMap::new(),
            connections: 1,
            streams: 1,
            requests: None,
            seconds: None,
            delay_ms: 0,
            rate: None,
            keep_alive: true,
            h2c: false,
            grpc: false,
            timeout_ms: 30_000,
        }
    }
}

impl RunSpec {
    /// Whether the run is within bounds.
    ///
    /// # Errors
    /// What is wrong with it, with what is allowed.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            return Err(format!(
                "connections={}: must be 1 to {MAX_CONNECTIONS}",
                self.connections
            ));
        }
        let at_once = self.connections.saturating_mul(self.streams);
        if !(1..=MAX_CONNECTIONS).contains(&at_once) {
            return Err(format!(
                "streams={}: with {} connections 1 to {MAX_CONNECTIONS} together are allowed",
                self.streams, self.connections
            ));
        }
        if self.streams > 1 && !(self.h2c && self.keep_alive) {
            return Err(format!(
                "streams={}: more than 1 takes h2c and keep_alive",
                self.streams
            ));
        }
        if self.grpc && !self.h2c {
            return Err("grpc: takes h2c".to_owned());
        }
        if self.requests.is_none() && self.seconds.is_none() {
            return Err("requests or seconds must be given".to_owned());
        }
        if self.delay_ms > MAX_DELAY_MS {
            return Err(format!(
                "delay_ms={}: must be at most {MAX_DELAY_MS}",
                self.delay_ms
            ));
        }
        if let Some(requests) = self.requests.filter(|n| !(1..=MAX_REQUESTS).contains(n)) {
            return Err(format!("requests={requests}: must be 1 to {MAX_REQUESTS}"));
        }
        if let Some(seconds) = self.seconds.filter(|s| !(*s > 0.0 && *s <= MAX_SECONDS)) {
            return Err(format!(
                "seconds={seconds}: must be over 0 and at most {MAX_SECONDS}"
            ));
        }
        if let Some(rate) = self.rate.filter(|r| !(*r >= 0.01 && *r <= 1e6)) {
            return Err(format!(
                "rate={rate}: must be 0.01 to 1000000 requests per second"
            ));
        }
        Ok(())
    }
}

// === impl ProbeSpec ===

impl Default for ProbeSpec {
    fn default() -> Self {
        Self {
            url: String::new(),
            method: "GET".to_owned(),
            headers: BTreeMap::new(),
            h2c: false,
            timeout_ms: 30_000,
            until_ok_ms: None,
            upgrade: false,
            hold_ms: 0,
            send: None,
        }
    }
}
