//! Who calls and what for, as far as a request's head tells it and as far as it may be told. Pure, and
//! nothing is copied: most of what is seen is known already.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, Method};
use lull_contract::report::MAX_CALLER_BYTES;

use crate::headers::CLIENT_CERT;

/// From where Istio's Envoy calls within a pod, where addresses are of IPv6. (With IPv4 it is one of
/// loopback's.)
const ENVOY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));
/// Between namespace and account in a SPIFFE id of Kubernetes' accounts.
const ACCOUNT: &str = "/sa/";
/// What is told of a segment that may be an id, a name of somebody or a secret.
const MASKED: &str = "*";
/// Longest word of a path, bytes.
const MAX_WORD: usize = 20;
/// The same with a dot in it, as gRPC's services have.
const MAX_DOTTED: usize = 48;
/// Most digits of a word, as in `v2` and `oauth2`.
const MAX_DIGITS: usize = 3;

/// One who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who<'a> {
    /// Of whom nothing but the address is known.
    Address(IpAddr),
    /// `NAMESPACE/sa/ACCOUNT` of the certificate that the pod's own Envoy has seen.
    Account(&'a str),
}

/// What a request is for: method, and the first segment of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked<'a> {
    method: &'static str,
    segment: &'a str,
    /// The path goes on.
    has_more: bool,
}

/// The same, kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Address(IpAddr),
    Account(Box<str>),
}

/// The same, kept.
#[derive(Debug)]
pub(super) struct Class {
    method: &'static str,
    segment: Box<str>,
    has_more: bool,
}

// === impl Who ===

impl<'a> Who<'a> {
    /// Who has sent a request with these `headers` on a connection of `peer`.
    ///
    /// Anybody may write the header in which Envoy tells whose certificate it has seen, so it counts
    /// only from within the pod: Envoy lets nobody else's through to there.
    pub(crate) fn of(peer: IpAddr, headers: &'a HeaderMap) -> Self {
        let is_of_pod = peer.is_loopback() || peer == ENVOY_V6;
        let account = is_of_pod.then(|| account(headers)).flatten();
        account.map_or(Self::Address(peer), Self::Account)
    }
}

/// The account of whoever called the pod's Envoy: of several proxies the last one adds its caller.
fn account(headers: &HeaderMap) -> Option<&str> {
    let told = headers.get_all(CLIENT_CERT).iter().next_back()?;
    let (_, rest) = told.to_str().ok()?.rsplit_once("URI=")?;
    // What stands before the last proxy's own part may have come from the caller.
    if rest.contains(",By=") {
        return None;
    }
    let uri = rest.split([';', ',']).next()?.strip_prefix("spiffe://")?;
    let (_, account) = uri.split_once("/ns/")?;
    let (namespace, name) = account.split_once(ACCOUNT)?;
    let is_told = account.len() <= MAX_CALLER_BYTES && is_name(namespace) && is_name(name);
    is_told.then_some(account)
}

/// Whether Kubernetes gives such names.
fn is_name(text: &str) -> bool {
    let is_of_names = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-')
    };
    !text.is_empty() && text.bytes().all(is_of_names)
}

// === impl Asked ===

impl<'a> Asked<'a> {
    /// What a request of `method` for `path` is for.
    pub(crate) fn of(method: &Method, path: &'a str) -> Self {
        let path = path.strip_prefix('/').unwrap_or_default();
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        Self {
            method: name_of(method),
            segment: if first.is_empty() || is_word(first) {
                first
            } else {
                MASKED
            },
            has_more: !rest.is_empty(),
        }
    }
}

fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// Whether it is what somebody has called a part of an API, rather than what callers put into paths.
fn is_word(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let longest = if bytes.contains(&b'.') {
        MAX_DOTTED
    } else {
        MAX_WORD
    };
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._~-".contains(byte);
    bytes.len() <= longest
        && digits <= MAX_DIGITS
        && bytes.iter().any(u8::is_ascii_alphabetic)
        && bytes.iter().all(is_plain)
}

// === impl Name ===

impl Name {
    pub(super) fn of(who: Who<'_>) -> Self {
        match who {
            Who::Address(address) => Self::Address(address),
            Who::Account(account) => Self::Account(account.into()),
        }
    }

    pub(super) fn who(&self) -> Who<'_> {
        match self {
            Self::Address(address) => Who::Address(*address),
            Self::Account(account) => Who::Account(account),
        }
    }

    pub(super) fn is(&self, who: Who<'_>) -> bool {
        self.who() == who
    }

    /// For the autoscaler.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Account(account) => account.replacen(ACCOUNT, "/", 1),
        }
    }
}

// === impl Class ===

impl Class {
    pub(super) fn of(asked: Asked<'_>) -> Self {
        Self {
            method: asked.method,
            segment: asked.segment.into(),
            has_more: asked.has_more,
        }
    }

    pub(super) fn asked(&self) -> Asked<'_> {
        Asked {
            method: self.method,
            segment: &self.segment,
            has_more: self.has_more,
        }
    }

    pub(super) fn is(&self, asked: Asked<'_>) -> bool {
        self.asked() == asked
    }

    /// For the autoscaler.
    pub(super) fn text(&self) -> String {
        let more = if self.has_more { "/*" } else { "" };
        format!("{} /{}{more}", self.method, self.segment)
    }
}

#[cfg(test)]
mod tests {
    use lull_contract::report::MAX_CLASS_BYTES;

    use super::*;

    fn class(method: &Method, path: &str) -> String {
        Class::of(Asked::of(method, path)).text()
    }

    #[test]
    fn a_path_is_told_by_its_first_word() {
        for (path, expected) in [
            ("/", "GET /"),
            ("/cart", "GET /cart"),
            ("/cart/", "GET /cart"),
            ("/api/v1/users/7", "GET /api/*"),
            ("/v2/users", "GET /v2/*"),
            ("//x", "GET //*"),
            ("*", "GET /"),
            ("", "GET /"),
            ("/.well-known/jwks.json", "GET /.well-known/*"),
            (
                "/hipstershop.ProductCatalogService/List",
                "GET /hipstershop.ProductCatalogService/*",
            ),
        ] {
            assert_eq!(class(&Method::GET, path), expected, "{path}");
        }
    }

    #[test]
    fn what_may_be_an_id_or_a_secret_is_not_told() {
        for path in [
            "/42",
            "/order-12345",
            "/3f2504e0-4f89-11d3-9a0c-0305e82c3301",
            "/bot123456:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw",
            "/alice@example.com",
            "/page;jsessionid=A",
            "/%2e%2e",
            "/averyveryverylongsegment",
            "/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.dBjftJeZ4CVPmB92K27uhbUJU1p1r",
        ] {
            assert_eq!(class(&Method::GET, path), "GET /*", "{path}");
        }
        let odd = Method::from_bytes(b"X-\x7eSECRET").unwrap();
        assert_eq!(class(&odd, "/cart"), "OTHER /cart");
    }

    #[test]
    fn the_longest_class_fits_into_a_report() {
        let longest = format!("/{}.{}/x", "a".repeat(24), "b".repeat(MAX_DOTTED - 25));
        let class = class(&Method::OPTIONS, &longest);
        assert!(
            class.len() > MAX_DOTTED && class.len() <= MAX_CLASS_BYTES,
            "{class}"
        );
    }

    #[test]
    fn a_certificate_names_its_account_to_the_pod_s_own_envoy_alone() {
        let (envoy, other) = ([127, 0, 0, 6].into(), [10, 0, 0, 7].into());
        let one = "By=spiffe://cluster.local/ns/web/sa/shop;Hash=1;Subject=\"\";\
                   URI=spiffe://cluster.local/ns/prod/sa/checkout";
        let gateway = format!("{one},By=x;URI=spiffe://td/ns/edge/sa/gateway;DNS=a");
        let nameless = format!("{one},By=spiffe://td/ns/web/sa/shop;Hash=2");
        let text = |peer: IpAddr, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CLIENT_CERT, value.parse().unwrap());
            Name::of(Who::of(peer, &headers)).text()
        };
        let long = format!("URI=spiffe://td/ns/web/sa/{}", "a".repeat(MAX_CALLER_BYTES));
        for (peer, value, expected) in [
            (envoy, one, "prod/checkout"),
            (ENVOY_V6, one, "prod/checkout"),
            (envoy, gateway.as_str(), "edge/gateway"),
            (envoy, nameless.as_str(), "127.0.0.6"),
            (other, one, "10.0.0.7"),
            (envoy, "By=spiffe://td/ns/web/sa/shop;Hash=1", "127.0.0.6"),
            (envoy, "URI=spiffe://td/ns/web/sa/<b>", "127.0.0.6"),
            (envoy, "URI=spiffe://td/ns//sa/shop", "127.0.0.6"),
            (envoy, "URI=https://elsewhere/ns/web/sa/shop", "127.0.0.6"),
            (envoy, long.as_str(), "127.0.0.6"),
        ] {
            assert_eq!(text(peer, value), expected, "{value}");
        }
        let none = HeaderMap::new();
        assert_eq!(Who::of(envoy, &none), Who::Address(envoy));
    }
}
