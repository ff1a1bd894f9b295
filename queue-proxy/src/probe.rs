//! Asks the app whether it is ready: often until it answers, then now and then. What tells only that it
//! has started is asked until it has passed once, as the kubelet does it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{sync::watch, time::Instant};

use crate::{
    config::{AppProbe, Config},
    loopback, upstream,
};

/// While the app starts, each try later is time that a held request waits.
const FAST: Duration = Duration::from_millis(10);
/// An app that has not come up for this long is broken rather than starting.
const STARTING: Duration = Duration::from_secs(60);
/// Between tries at an app that is broken.
const SLOW: Duration = Duration::from_millis(100);
/// Between tries at an app that is up (Kubernetes probes every 10 s by default).
const RELAXED: Duration = Duration::from_secs(1);
/// Tries that fail in a row before an app that was up is not (Kubernetes' `failureThreshold`).
const FAILURES: u32 = 3;
/// Apps that treat the kubelet's probes in a special way should treat ours so.
const USER_AGENT: &str = "kube-probe/lull";

/// What the last tries said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AppState {
    /// The app answers.
    Up,
    /// It does not, because of this.
    Down(Arc<str>),
}

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("port {0} refuses connections")]
    Refused(u16),
    #[error(
        "port {0} refuses connections at the pod's address, where the app is called: it listens on it \
         at 127.0.0.1 alone; let it listen on all addresses (0.0.0.0, or ::)"
    )]
    LoopbackOnly(u16),
    #[error("port {0} can't be reached: {1}")]
    Unreachable(u16, #[source] std::io::Error),
    #[error("port {0} did not answer within {1:?}")]
    Timeout(u16, Duration),
    #[error("port {0} did not answer in HTTP: {1}")]
    Http(u16, #[source] hyper::Error),
    #[error("port {0} answered {1}")]
    Status(u16, http::StatusCode),
    #[error("the probe of port {0} can't be sent: {1}")]
    Request(u16, #[source] http::Error),
}

/// How the state follows from one try after the other.
#[derive(Debug)]
struct Judge {
    up: bool,
    failed: u32,
    down_since: Instant,
}

/// Tries the app for ever and keeps `state` right.
pub(crate) async fn run(config: Arc<Config>, state: watch::Sender<AppState>) {
    let mut judge = Judge::new(Instant::now());
    let mut has_started = false;
    let mut loopback = loopback::Seen::new(Instant::now());
    let mut is_told = false;
    loop {
        let mut result = ask(&config, &mut has_started).await;
        let now = Instant::now();
        if let Err(ProbeError::Refused(port)) = result
            && loopback.explains(port, &config, now)
        {
            result = Err(ProbeError::LoopbackOnly(port));
        }
        if let Err(why @ ProbeError::LoopbackOnly(_)) = &result
            && !is_told
        {
            tracing::warn!(%why, "the app is not ready");
            is_told = true;
        }
        if judge.hear(now, &result) {
            let new = match &result {
                Ok(()) => AppState::Up,
                Err(error) => AppState::Down(error.to_string().into()),
            };
            state.send_if_modified(|old| {
                let changed = *old != new;
                if changed {
                    report(old, &new);
                    *old = new;
                }
                changed
            });
        }
        tokio::time::sleep(judge.pause(now)).await;
    }
}

/// Says when the app comes and goes; that the reason changes is for the admin page only.
fn report(old: &AppState, new: &AppState) {
    match (old, new) {
        (AppState::Down(_), AppState::Up) => tracing::info!("the app is ready"),
        (AppState::Up, AppState::Down(why)) => tracing::warn!(%why, "the app is not ready"),
        _ => {}
    }
}

/// One try.
async fn ask(config: &Config, has_started: &mut bool) -> Result<(), ProbeError> {
    if !*has_started {
        all(config.pod_ip, &config.startup_probes).await?;
        *has_started = true;
    }
    all(config.pod_ip, &config.app_probes).await
}

/// Every probe passes, one after the other.
async fn all(pod_ip: IpAddr, probes: &[AppProbe]) -> Result<(), ProbeError> {
    for probe in probes {
        let limit = Duration::from_millis(probe.timeout_ms);
        tokio::time::timeout(limit, one(pod_ip, probe))
            .await
            .unwrap_or(Err(ProbeError::Timeout(probe.port, limit)))?;
    }
    Ok(())
}

async fn one(pod_ip: IpAddr, probe: &AppProbe) -> Result<(), ProbeError> {
    let port = probe.port;
    let address = SocketAddr::new(pod_ip, port);
    let stream = upstream::connect(address).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::ConnectionRefused {
            ProbeError::Refused(port)
        } else {
            ProbeError::Unreachable(port, error)
        }
    })?;
    let Some(path) = &probe.path else {
        return Ok(());
    };
    let request =
        request(address, probe, path).map_err(|error| ProbeError::Request(port, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ProbeError::Http(port, error))?;
    // The connection is driven here and not in a task: it ends with the try.
    tokio::pin!(connection);
    let answer = async {
        let answer = sender.send_request(request);
        tokio::pin!(answer);
        tokio::select! {
            biased; // an answer that has come counts, though the app may have closed right after
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    };
    let status = answer
        .await
        .map_err(|error| ProbeError::Http(port, error))?
        .status();
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(ProbeError::Status(port, status))
    }
}

fn request(
    address: SocketAddr,
    probe: &AppProbe,
    path: &str,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut builder = Request::get(target(path));
    for (name, value) in &probe.headers {
        builder = builder.header(name, value);
    }
    let set = |name: header::HeaderName| {
        let same = |(other, _): &(String, String)| other.eq_ignore_ascii_case(name.as_str());
        probe.headers.iter().any(same)
    };
    if !set(header::HOST) {
        let host = probe.host.clone().unwrap_or_else(|| address.to_string());
        builder = builder.header(header::HOST, host);
    }
    if !set(header::USER_AGENT) {
        builder = builder.header(header::USER_AGENT, USER_AGENT);
    }
    builder
        .header(header::CONNECTION, "close")
        .body(Empty::new())
}

/// The target for a probe's path, which may lack the first slash and have in it what no target may;
/// kubelet takes such paths, too.
fn target(path: &str) -> String {
    let mut target = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    for byte in path.bytes() {
        match byte {
            b'!'..=b'~' if !b"\"<>`".contains(&byte) => target.push(char::from(byte)),
            _ => target.push_str(&format!("%{byte:02X}")),
        }
    }
    target
}

// === impl Judge ===

impl Judge {
    fn new(now: Instant) -> Self {
        Self {
            up: false,
            failed: 0,
            down_since: now,
        }
    }

    /// Takes in one try; says whether the state is what this try said.
    fn hear(&mut self, now: Instant, result: &Result<(), ProbeError>) -> bool {
        match result {
            Ok(()) => {
                self.up = true;
                self.failed = 0;
                return true;
            }
            // Nobody listens: the app is gone, not slow.
            Err(ProbeError::Refused(_) | ProbeError::LoopbackOnly(_)) => self.failed = FAILURES,
            Err(_) => self.failed = self.failed.saturating_add(1),
        }
        if self.up && self.failed < FAILURES {
            return false;
        }
        if self.up {
            self.up = false;
            self.down_since = now;
        }
        true
    }

    fn pause(&self, now: Instant) -> Duration {
        if self.up {
            RELAXED
        } else if now.saturating_duration_since(self.down_since) < STARTING {
            FAST
        } else {
            SLOW
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    fn slow() -> Result<(), ProbeError> {
        Err(ProbeError::Timeout(1, FAST))
    }

    #[test]
    fn tries_are_fast_while_the_app_starts_and_relaxed_when_it_is_up() {
        let start = Instant::now();
        let mut judge = Judge::new(start);
        assert!(judge.hear(start, &Err(ProbeError::Refused(1))));
        assert_eq!(judge.pause(start), FAST);
        assert_eq!(judge.pause(start + STARTING), SLOW);
        assert!(judge.hear(start, &Ok(())));
        assert_eq!(judge.pause(start), RELAXED);
    }

    #[test]
    fn an_app_that_is_up_may_miss_two_tries_but_not_a_connection() {
        let now = Instant::now();
        let mut judge = Judge::new(now);
        judge.hear(now, &Ok(()));
        assert!(!judge.hear(now, &slow()));
        assert!(!judge.hear(now, &slow()));
        assert!(judge.hear(now, &slow()));
        judge.hear(now, &Ok(()));
        assert!(!judge.hear(now, &slow()), "successes start the count again");
        assert!(judge.hear(now, &Err(ProbeError::Refused(1))));
    }

    /// An app on `port` that has started when `startup` takes connections.
    fn config(port: u16, startup: u16) -> Config {
        let vars = [
            ("QP_PORTS", format!("0={port}/http")),
            ("QP_POD_IP", "127.0.0.1".to_owned()),
            ("QP_POD_NAME", "shop-1".to_owned()),
            ("QP_POD_NAMESPACE", "default".to_owned()),
            ("QP_STARTUP_PROBES", format!(r#"[{{"port":{startup}}}]"#)),
        ];
        let vars = vars.map(|(key, value)| (key.to_owned(), value));
        Config::read(&BTreeMap::from(vars)).unwrap()
    }

    #[tokio::test]
    async fn a_startup_probe_counts_until_it_has_passed_once() {
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // Nobody else gets the port, and nobody listens there yet.
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let startup = reserved.local_addr().unwrap().port();
        let config = config(app.local_addr().unwrap().port(), startup);
        let mut has_started = false;
        let refused = ask(&config, &mut has_started).await;
        assert!(matches!(refused, Err(ProbeError::Refused(port)) if port == startup));

        let listener = reserved.listen(8).unwrap();
        ask(&config, &mut has_started).await.unwrap();
        drop(listener);
        ask(&config, &mut has_started).await.unwrap();
    }

    #[test]
    fn a_probe_asks_for_what_kubelet_would_ask_for() {
        let address: SocketAddr = "10.0.0.7:8080".parse().unwrap();
        for (path, target) in [
            ("/", "/"),
            ("/healthz?full=1&x=%20", "/healthz?full=1&x=%20"),
            ("healthz", "/healthz"),
            ("health/ready:now", "/health/ready:now"),
            ("?full=1", "/?full=1"),
            ("/are you <up>", "/are%20you%20%3Cup%3E"),
            ("/größe", "/gr%C3%B6%C3%9Fe"),
        ] {
            let probe = AppProbe::connect(8080);
            let request = request(address, &probe, path).unwrap();
            assert_eq!(request.uri().path_and_query().unwrap(), target, "{path}");
        }
    }

    #[test]
    fn a_probe_carries_the_users_headers_and_ours_where_there_are_none() {
        let address: SocketAddr = "10.0.0.7:8080".parse().unwrap();
        let mut probe = AppProbe::connect(8080);
        let plain = request(address, &probe, "/x").unwrap();
        assert_eq!(plain.headers()[header::HOST], "10.0.0.7:8080");
        assert_eq!(plain.headers()[header::USER_AGENT], USER_AGENT);
        probe.headers = vec![("HOST".into(), "shop".into())];
        let own = request(address, &probe, "/x").unwrap();
        let hosts: Vec<_> = own.headers().get_all(header::HOST).iter().collect();
        assert_eq!(hosts, ["shop"]);
    }
}
