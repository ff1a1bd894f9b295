//! By which proxy the API server is reached: as kubectl does it. Pure.
//!
//! The kubeconfig's own `proxy-url` always counts. Else `HTTPS_PROXY` does, but not for this machine and
//! for what `NO_PROXY` names. The Kubernetes client compares `NO_PROXY` with the proxy itself instead.

use std::net::IpAddr;

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::Kubeconfig;

/// Port of an address that has none.
const HTTPS: u16 = 443;

/// What the environment says of proxies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// `HTTPS_PROXY`.
    pub(crate) https_proxy: Option<String>,
    /// `NO_PROXY`.
    pub(crate) no_proxy: Option<String>,
}

/// The address of the proxy by which `server` is reached; `None`: it is reached without.
pub(crate) fn proxy_for(
    server: &Uri,
    in_kubeconfig: Option<String>,
    environment: &Environment,
) -> Option<String> {
    if in_kubeconfig.is_some() {
        return in_kubeconfig;
    }
    let proxy = environment.https_proxy.as_deref()?;
    let port = server.port_u16().unwrap_or(HTTPS);
    let no_proxy = environment.no_proxy.as_deref().unwrap_or_default();
    let no_proxy = hosts_at(no_proxy, port);
    let rules = Matcher::builder().https(proxy).no(no_proxy).build();
    if is_own(server.host()?) || rules.intercept(server).is_none() {
        return None;
    }
    Some(if proxy.contains("://") {
        proxy.to_owned()
    } else {
        format!("http://{proxy}")
    })
}

/// The `proxy-url` of the cluster of `context`, or else of the current one.
pub(crate) fn in_kubeconfig(file: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let wanted = context.or(file.current_context.as_deref())?;
    let context = file.contexts.iter().find(|one| one.name == wanted)?;
    let wanted = &context.context.as_ref()?.cluster;
    let cluster = file.clusters.iter().find(|one| one.name == *wanted)?;
    let proxy = cluster.cluster.as_ref()?.proxy_url.clone();
    proxy.filter(|proxy| !proxy.is_empty())
}

/// What `NO_PROXY` names of servers at `port`, as the matcher reads it: kubectl (Go's `httpproxy`) also knows
/// `*.corp`, and `api.corp:6443`.
fn hosts_at(no_proxy: &str, port: u16) -> String {
    let entries = no_proxy.split(',').map(str::trim);
    let hosts = entries.filter_map(|entry| match with_port(entry) {
        Some((host, its)) => (its == port).then(|| host.trim_matches(['[', ']'])),
        None => Some(entry),
    });
    // With a dot before it, a domain stands for all below it.
    let hosts = hosts.map(|host| match host.strip_prefix('*') {
        Some(below) if below.starts_with('.') => below,
        _ => host,
    });
    hosts.collect::<Vec<_>>().join(",")
}

/// Host and port of an entry that has both; not of an address or a network of IPv6.
fn with_port(entry: &str) -> Option<(&str, u16)> {
    if entry.parse::<IpAddr>().is_ok() {
        return None;
    }
    let (host, port) = entry.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// Whether it is this machine.
fn is_own(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PROXY: &str = "http://proxy.corp:3128";

    fn by(server: &str, in_kubeconfig: Option<&str>, no_proxy: &str) -> Option<String> {
        let environment = Environment {
            https_proxy: Some(PROXY.to_owned()),
            no_proxy: Some(no_proxy.to_owned()),
        };
        let server = server.parse().unwrap();
        proxy_for(&server, in_kubeconfig.map(str::to_owned), &environment)
    }

    #[test]
    fn what_no_proxy_names_is_reached_without() {
        let rows = [
            ("https://api.corp:6443", "", false),
            ("https://api.corp:6443", "proxy.corp", false),
            ("https://api.corp:6443", "other, api.corp", true),
            ("https://api.corp:6443", "corp,", true),
            ("https://api.corp:6443", ".corp", true),
            ("https://apicorp:6443", "corp", false),
            ("https://api.corp:6443", "*.corp", true),
            ("https://apicorp:6443", "*.corp", false),
            ("https://api.corp:6443", "other, api.corp:6443", true),
            ("https://api.corp:6443", "api.corp:443", false),
            ("https://api.corp", "*.corp:443", true),
            ("https://10.1.2.3:6443", "10.1.2.3:6443", true),
            ("https://[fd00::1]:6443", "[fd00::1]:6443", true),
            ("https://api.corp:6443", "*", true),
            ("https://10.1.2.3:6443", "10.0.0.0/8", true),
            ("https://10.1.2.3:6443", "10.2.0.0/16", false),
            ("https://10.1.2.3:6443", "10.1.2.3", true),
            ("https://[fd00::1]:6443", "fd00::/8", true),
            ("https://[fd00::1]:6443", "fd00::2", false),
        ];
        for (server, no_proxy, is_left_out) in rows {
            let expected = (!is_left_out).then(|| PROXY.to_owned());
            assert_eq!(by(server, None, no_proxy), expected, "{server} {no_proxy}");
        }
    }

    #[test]
    fn a_cluster_of_this_machine_is_reached_without() {
        for server in [
            "https://127.0.0.1:6443",
            "https://localhost:6443",
            "https://[::1]:6443",
            "http://10.0.0.1:8080",
        ] {
            assert_eq!(by(server, None, ""), None, "{server}");
        }
        let none = Environment::default();
        let server = "https://api.corp".parse().unwrap();
        assert_eq!(proxy_for(&server, None, &none), None);
    }

    #[test]
    fn the_kubeconfig_s_own_proxy_always_counts() {
        let own = "socks5://localhost:1080";
        for server in ["https://api.corp", "https://127.0.0.1:6443"] {
            assert_eq!(by(server, Some(own), "*").as_deref(), Some(own), "{server}");
        }
    }

    #[test]
    fn a_proxy_without_a_scheme_speaks_http() {
        let environment = Environment {
            https_proxy: Some("proxy.corp:3128".to_owned()),
            no_proxy: None,
        };
        let server = "https://api.corp".parse().unwrap();
        let proxy = proxy_for(&server, None, &environment);
        assert_eq!(proxy.as_deref(), Some(PROXY));
    }

    #[test]
    fn the_proxy_is_that_of_the_context() {
        let file: Kubeconfig = serde_json::from_value(json!({
            "current-context": "plain",
            "contexts": [
                { "name": "plain", "context": { "cluster": "near", "user": "me" } },
                { "name": "other", "context": { "cluster": "far", "user": "me" } },
            ],
            "clusters": [
                { "name": "near", "cluster": { "server": "https://near" } },
                { "name": "far", "cluster": { "server": "https://far", "proxy-url": PROXY } },
            ],
        }))
        .unwrap();
        assert_eq!(in_kubeconfig(&file, None), None);
        assert_eq!(in_kubeconfig(&file, Some("other")).as_deref(), Some(PROXY));
        assert_eq!(in_kubeconfig(&file, Some("none")), None);
    }
}
