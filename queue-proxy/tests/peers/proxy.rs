//! The queue-proxy's binary, as in a pod: told everything by its environment.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use lull_contract::report::QueueProxyReport;
use tokio::net::TcpStream;

use crate::{
    client,
    process::{self, Process, until},
};

/// Listeners beside those for traffic: admin, report, metrics.
const OWN_PORTS: usize = 3;
/// The readiness check would be the first to connect: let it look elsewhere.
pub(crate) const UNPROBED: (&str, &str) = ("QP_APP_PROBES", r#"[{"port":1}]"#);

pub(crate) struct Proxy {
    pub(crate) process: Process,
    ports: Vec<u16>,
}

// === impl Proxy ===

impl Proxy {
    /// A proxy before `app`, with one HTTP port.
    pub(crate) async fn start(app: SocketAddr, overrides: &[(&str, &str)]) -> Self {
        Self::with_ports(app.ip(), &[(app.port(), "http")], overrides).await
    }

    pub(crate) async fn with_ports(
        pod_ip: IpAddr,
        ports: &[(u16, &str)],
        overrides: &[(&str, &str)],
    ) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_queue-proxy"));
        let proxy = Self::spawn(command, pod_ip, ports, overrides).await;
        // Shows that the ports are the ones that they are taken for.
        let live = client::get(proxy.admin(), "/live").await;
        assert_eq!(live.body, "live\n", "{live:?}");
        proxy
    }

    /// Starts `command`, which ends up as a queue-proxy.
    pub(crate) async fn spawn(
        mut command: Command,
        pod_ip: IpAddr,
        ports: &[(u16, &str)],
        overrides: &[(&str, &str)],
    ) -> Self {
        let listed: Vec<String> = ports
            .iter()
            .map(|(port, protocol)| format!("0={port}/{protocol}"))
            .collect();
        let socket = format!("lull-peers-{}-{}", std::process::id(), process::unique());
        command.env_clear().envs([
            ("QP_PORTS", listed.join(",").as_str()),
            ("QP_POD_IP", &pod_ip.to_string()),
            ("QP_POD_NAME", "shop-1"),
            ("QP_POD_NAMESPACE", "default"),
            ("QP_ADMIN_PORT", "0"),
            ("QP_REPORT_PORT", "0"),
            ("QP_METRICS_PORT", "0"),
            ("QP_DRAIN_SOCKET", &socket),
            ("QP_LOG", "error"),
        ]);
        command.envs(overrides.iter().copied());
        let mut process = Process::spawn(&mut command);
        let ports = process.listens(ports.len() + OWN_PORTS).await;
        Self { process, ports }
    }

    /// Where callers of the first port connect.
    pub(crate) fn traffic(&self) -> SocketAddr {
        self.port(0)
    }

    /// Where callers of the given port connect.
    pub(crate) fn port(&self, index: usize) -> SocketAddr {
        assert!(index + OWN_PORTS < self.ports.len(), "no such port");
        local(self.ports[index])
    }

    fn admin(&self) -> SocketAddr {
        local(self.ports[self.ports.len() - OWN_PORTS])
    }

    /// `http://` and the first port, then `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.traffic())
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.traffic()).await.unwrap()
    }

    pub(crate) async fn report(&self) -> QueueProxyReport {
        let address = local(self.ports[self.ports.len() - 2]);
        let raw = client::get(address, "/report").await;
        QueueProxyReport::parse(raw.body.as_bytes()).unwrap()
    }

    pub(crate) async fn metrics(&self) -> String {
        let address = local(self.ports[self.ports.len() - 1]);
        client::get(address, "/metrics").await.body
    }

    /// Waits until so many requests and byte streams are in flight.
    pub(crate) async fn in_flight(&self, wanted: u64) {
        until(|| async { self.report().await.load.in_flight == wanted }).await;
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
