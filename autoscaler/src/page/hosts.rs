//! By which names the page may be asked for.
//!
//! A page of anybody's, open in a browser that reaches this port, could give its own name our address
//! (DNS rebinding) and then read the answers as its own. Such a request names that page's host, so only
//! addresses and names of our own are answered.

use std::net::IpAddr;

use http::{Request, header, uri::Authority};

/// The autoscaler's Service, as the chart calls it.
const SERVICE: &str = "lull-autoscaler";
/// Where the API server's proxy says what it was asked for.
const FORWARDED_URI: &str = "x-forwarded-uri";

/// The names that the page answers to.
#[derive(Debug)]
pub(super) struct Hosts {
    /// In lower case, without a dot at the end.
    names: Vec<String>,
    /// Where the API server's proxy has what is in our namespace.
    proxied: String,
}

// === impl Hosts ===

impl Hosts {
    /// Names of the pod `replica` and of its Service in `namespace`, and `more`.
    pub(super) fn new(namespace: &str, replica: &str, more: &[String]) -> Self {
        let own = ["localhost", replica, SERVICE].map(str::to_owned);
        let in_cluster = ["", ".svc", ".svc.cluster.local"];
        let in_cluster = in_cluster.map(|domain| format!("{SERVICE}.{namespace}{domain}"));
        let names = own.into_iter().chain(in_cluster);
        let more = more.iter().filter(|name| !name.is_empty());
        let names = names.chain(more.cloned());
        Self {
            names: names.map(|name| plain(&name)).collect(),
            proxied: format!("/api/v1/namespaces/{namespace}/"),
        }
    }

    /// Whether `request`, from `peer`, is answered.
    pub(super) fn admit<B>(&self, request: &Request<B>, peer: Option<IpAddr>) -> bool {
        let named = request.uri().authority().map(Authority::as_str);
        let fields = request.headers().get_all(header::HOST);
        // One that can't be read is nobody's name.
        let fields = fields
            .iter()
            .map(|field| field.to_str().unwrap_or_default());
        let mut hosts = named.into_iter().chain(fields).peekable();
        let is_named = hosts.peek().is_some();
        (is_named && hosts.all(|host| self.is_known(host))) || self.is_proxied(request, peer)
    }

    /// `host` as a request has it, with a port or without. No address is looked up by a browser.
    fn is_known(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else {
            return false;
        };
        let name = authority.host();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok() || self.names.contains(&plain(name))
    }

    /// The API server's proxy hands on the name that it was itself asked by, which may be any, and
    /// says for what. A page in a browser could say so, too. So it counts for nothing from where
    /// rebinding gets its hands on: a forwarded port ends on our own loopback; and from a browser that
    /// reaches pods by their addresses, which shows by its `Connection`. Browsers send one with every
    /// request of HTTP/1.1, and no script can keep them from it (for Fetch it is a forbidden name);
    /// the API server's proxy takes it out (Go's `httputil.ReverseProxy`) and sends none of its own.
    fn is_proxied<B>(&self, request: &Request<B>, peer: Option<IpAddr>) -> bool {
        let is_far = peer.is_some_and(|peer| !peer.is_loopback());
        let is_direct = request.headers().contains_key(header::CONNECTION);
        let asked = request.headers().get(FORWARDED_URI);
        let asked = asked.and_then(|asked| asked.to_str().ok());
        is_far && !is_direct && asked.is_some_and(|asked| asked.starts_with(&self.proxied))
    }
}

fn plain(name: &str) -> String {
    name.trim().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        Hosts::new(
            "lull-system",
            "lull-autoscaler-7c5d-x2x4z",
            &["Lull.example.org".to_owned()],
        )
    }

    fn request(fields: &[(&str, &str)]) -> Request<()> {
        let request = Request::get("/workloads");
        let with = fields.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        with.body(()).unwrap()
    }

    #[test]
    fn addresses_and_names_of_our_own_are_answered_and_no_others() {
        let rows = [
            ("127.0.0.1:8023", true),
            ("10.244.1.7", true),
            ("[::1]:8023", true),
            ("[fd00::7]", true),
            ("localhost:44321", true),
            ("LOCALHOST", true),
            ("lull-autoscaler:8023", true),
            ("lull-autoscaler.lull-system:8023", true),
            ("lull-autoscaler.lull-system.svc", true),
            ("lull-autoscaler.lull-system.svc.cluster.local.:8023", true),
            ("lull-autoscaler-7c5d-x2x4z", true),
            ("lull.example.org", true),
            ("example.org", false),
            ("evil.example.org:8023", false),
            ("lull-autoscaler.lull-system.svc.example.org", false),
            ("lull-autoscaler.other.svc", false),
            ("localhost.example.org", false),
            ("127.0.0.1.example.org", false),
            ("", false),
            ("a b", false),
        ];
        for (host, expected) in rows {
            let request = request(&[("host", host)]);
            assert_eq!(hosts().admit(&request, None), expected, "{host:?}");
        }
        assert!(!hosts().admit(&request(&[]), None), "no name at all");
        let two = request(&[("host", "localhost"), ("host", "example.org")]);
        assert!(!hosts().admit(&two, None), "one of two");
        let whole = Request::get("http://example.org/").header("host", "localhost");
        assert!(
            !hosts().admit(&whole.body(()).unwrap(), None),
            "named twice"
        );
    }

    #[test]
    fn the_api_server_s_proxy_may_have_any_name_but_for_a_forwarded_port() {
        let far = Some(IpAddr::from([10, 0, 0, 1]));
        let near = Some(IpAddr::from([127, 0, 0, 1]));
        let own = "/api/v1/namespaces/lull-system/pods/lull-autoscaler-7c5d-x2x4z:8023/proxy/";
        let rows = [
            (own, far, true),
            (own, near, false),
            (own, None, false),
            ("/api/v1/namespaces/other/pods/x/proxy/", far, false),
            ("/workloads", far, false),
        ];
        for (asked, peer, expected) in rows {
            let request = request(&[("host", "k8s.example.org:6443"), (FORWARDED_URI, asked)]);
            assert_eq!(hosts().admit(&request, peer), expected, "{asked} {peer:?}");
        }
    }

    #[test]
    fn a_browser_that_reaches_the_pod_itself_is_not_the_api_server_s_proxy() {
        let far = Some(IpAddr::from([10, 0, 0, 1]));
        let own = "/api/v1/namespaces/lull-system/services/lull-autoscaler:8023/proxy/";
        let rows = [
            ("evil.example.org:8023", "keep-alive", false),
            ("evil.example.org:8023", "close", false),
            ("evil.example.org:8023", "", false),
            // By a name of ours it needs nobody's word.
            ("10.244.1.7:8023", "keep-alive", true),
        ];
        for (host, connection, expected) in rows {
            let said = [
                ("host", host),
                ("connection", connection),
                (FORWARDED_URI, own),
            ];
            let admitted = hosts().admit(&request(&said), far);
            assert_eq!(admitted, expected, "{host} {connection:?}");
        }
    }
}
