//! Envoy.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::process::Command;

use super::Setup;
use crate::Protocol;

const HTTP_FILTER: &str = r#"      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: AUTO
          use_remote_address: true
          generate_request_id: false
          common_http_protocol_options: { idle_timeout: 3900s }
          route_config:
            virtual_hosts:
            - name: app
              domains: ["*"]
              routes:
              - match: { prefix: "/" }
                route: { cluster: app, timeout: 300s }
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"#;
const TCP_FILTER: &str = r#"      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: app"#;

pub(super) fn command(setup: &Setup<'_>, listen: SocketAddr) -> anyhow::Result<Command> {
    let path = setup
        .bench
        .scratch
        .path()
        .join(format!("envoy-{}.yaml", listen.port()));
    std::fs::write(&path, configuration(setup, listen))
        .with_context(|| format!("write {}", path.display()))?;
    let mut command = Command::new(&setup.bench.programs.envoy);
    command
        .args(["--concurrency", "1", "--disable-hot-restart"])
        .args(["--log-level", "error", "-c"])
        .arg(path);
    Ok(command)
}

/// Statistics as they are by default; no access log, no admin port, and no request ids, which
/// neither of the others makes.
fn configuration(setup: &Setup<'_>, listen: SocketAddr) -> String {
    let options = match setup.protocol {
        Protocol::Http1 | Protocol::Bytes => "http_protocol_options: {}",
        // Envoy opens streams before it knows how many the app allows, and answers 503 for those
        // that are too many. HAProxy keeps to 100 by itself.
        Protocol::H2c => "http2_protocol_options: { max_concurrent_streams: 100 }",
    };
    format!(
        r#"static_resources:
  listeners:
  - address: {listen}
    filter_chains:
    - filters:
{filter}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {app} }}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ {options} }}
"#,
        filter = match setup.protocol {
            Protocol::Http1 | Protocol::H2c => HTTP_FILTER,
            Protocol::Bytes => TCP_FILTER,
        },
        listen = socket_address(listen),
        app = socket_address(setup.app),
    )
}

fn socket_address(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!("{{ socket_address: {{ address: {ip}, port_value: {port} }} }}")
}
