//! Headers that belong to one hop, and the one that we may add.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use crate::error::Error;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Where Envoy tells of the certificate of whoever has called it.
pub(crate) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const ENVOY_PREFIX: &str = "x-envoy-";

const FORWARDED_PREFIX: &str = "x-forwarded-";

/// Longest head of a message, bytes; also what HTTP/1 keeps in memory of a body that waits. Envoy
/// takes heads of up to 60 KiB.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// The same as HTTP/2 counts it: 32 bytes more for each header (RFC 9113, 6.5.2).
pub(crate) const MAX_HEAD_LIST: u32 = 80 * 1024;

/// What belongs to one connection (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
];

/// Refuses what two readers could take for two different requests; `has_body` where one follows.
/// To be asked before [`clean_request`].
pub(crate) fn check_request(
    version: Version,
    headers: &HeaderMap,
    has_body: bool,
) -> Result<(), Error> {
    if version == Version::HTTP_2 {
        return Ok(());
    }
    let hosts = headers.get_all(header::HOST).iter().count();
    // HTTP/1.0 knows no Host (RFC 9112, 3.2).
    if hosts > 1 || (hosts == 0 && version == Version::HTTP_11) {
        return Err(Error::Hosts(hosts));
    }
    if !has_body {
        return Ok(());
    }
    // Hyper has only looked whether the last one is chunked, and the app would not be told of the
    // others (RFC 9112, 6.1).
    let mut codings = headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .flat_map(tokens);
    let first = codings.next();
    if codings.next().is_some() || first.is_some_and(|it| !it.eq_ignore_ascii_case("chunked")) {
        return Err(Error::Coding);
    }
    Ok(())
}

/// Removes what belongs to the caller's connection; returns the protocol to which it wants to
/// switch, which stays in the headers.
///
/// A switch to h2c is not passed on: Java's client asks for it by default, and in the tunnel
/// behind it we would see one request that never ends.
pub(crate) fn clean_request(headers: &mut HeaderMap) -> Option<HeaderValue> {
    if !has_hop_by_hop(headers) {
        return None;
    }
    let upgrade =
        upgrade(headers).filter(|to| !tokens(to).any(|to| to.eq_ignore_ascii_case("h2c")));
    let trailers = headers
        .get_all(header::TE)
        .iter()
        .flat_map(tokens)
        .any(|token| token.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(to) = &upgrade {
        set_upgrade(headers, to.clone());
    } else {
        headers.remove(HTTP2_SETTINGS);
    }
    upgrade
}

/// Removes what belongs to the app's connection; `keep_upgrade` where the status is about one.
pub(crate) fn clean_response(headers: &mut HeaderMap, keep_upgrade: bool) {
    if !has_hop_by_hop(headers) {
        return;
    }
    let upgrade = keep_upgrade.then(|| upgrade(headers)).flatten();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // It is not the length of what the app sends (RFC 9112, 6.3), and would become ours.
        headers.remove(header::CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
    if let Some(to) = upgrade {
        set_upgrade(headers, to);
    }
}

/// How `X-Forwarded-For` names `peer`.
pub(crate) fn forwarded_for(peer: IpAddr) -> HeaderValue {
    HeaderValue::try_from(peer.to_canonical().to_string())
        .unwrap_or(HeaderValue::from_static("unknown"))
}

/// Adds `X-Forwarded-For: caller` where no Envoy and no other proxy came before us.
pub(crate) fn add_forwarded_for(headers: &mut HeaderMap, caller: &HeaderValue) {
    let proxied = headers.keys().any(|name| {
        let name = name.as_str();
        name.starts_with("x-")
            && (name == FORWARDED_FOR.as_str()
                || name == CLIENT_CERT.as_str()
                || name.starts_with(ENVOY_PREFIX))
    });
    if !proxied {
        headers.insert(FORWARDED_FOR, caller.clone());
    }
}

/// Most messages have none, and one look at all names is cheaper than a search for each.
fn has_hop_by_hop(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .any(|name| HOP_BY_HOP.contains(name) || *name == HTTP2_SETTINGS)
}

fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let named = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(tokens)
        .any(|token| token.eq_ignore_ascii_case("upgrade"));
    named
        .then(|| headers.get(header::UPGRADE).cloned())
        .flatten()
}

fn set_upgrade(headers: &mut HeaderMap, to: HeaderValue) {
    headers.insert(header::UPGRADE, to);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(tokens)
        .filter_map(|token| token.parse().ok())
        .filter(|name| !is_protected(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// What a `Connection` header must not take away: the message would be another one without, or a
/// caller would be rid of what proxies before us have said of it.
fn is_protected(name: &HeaderName) -> bool {
    let text = name.as_str();
    [header::HOST, header::CONTENT_LENGTH, header::FORWARDED].contains(name)
        || text.starts_with(FORWARDED_PREFIX)
        || text.starts_with(ENVOY_PREFIX)
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value
        .to_str()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let parsed = |(k, v): &(&str, &str)| (k.parse::<HeaderName>().unwrap(), v.parse().unwrap());
        pairs.iter().map(parsed).collect()
    }

    #[test]
    fn hop_by_hop_headers_and_those_named_by_connection_go() {
        let mut map = headers(&[
            ("host", "shop"),
            ("connection", "keep-alive, X-Secret, Host, Content-Length"),
            ("keep-alive", "5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip, trailers"),
            ("x-secret", "1"),
            ("content-length", "3"),
            ("x-kept", "1"),
        ]);
        assert_eq!(clean_request(&mut map), None);
        let expected = headers(&[
            ("host", "shop"),
            ("content-length", "3"),
            ("te", "trailers"),
            ("x-kept", "1"),
        ]);
        assert_eq!(map, expected);
    }

    #[test]
    fn a_caller_is_not_rid_of_what_proxies_have_said_of_it() {
        let said = [
            ("forwarded", "for=1.2.3.4"),
            ("x-envoy-external-address", "1.2.3.4"),
            ("x-forwarded-client-cert", "By=x"),
            ("x-forwarded-for", "1.2.3.4"),
        ];
        let named = said.map(|(name, _)| name).join(", ");
        let mut map = headers(&said);
        map.insert(header::CONNECTION, named.parse().unwrap());
        clean_request(&mut map);
        assert_eq!(map, headers(&said));
    }

    #[test]
    fn a_websocket_upgrade_stays_and_h2c_goes() {
        let mut map = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(clean_request(&mut map).unwrap(), "websocket");
        assert_eq!(
            map,
            headers(&[("connection", "upgrade"), ("upgrade", "websocket")])
        );

        let mut map = headers(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMA"),
        ]);
        assert_eq!(clean_request(&mut map), None);
        assert!(map.is_empty(), "{map:?}");

        let mut map = headers(&[("connection", "upgrade"), ("upgrade", "websocket, H2C")]);
        assert_eq!(clean_request(&mut map), None);
        assert!(map.is_empty(), "{map:?}");
    }

    #[test]
    fn a_length_beside_a_transfer_encoding_is_not_passed_on() {
        let mut map = headers(&[("transfer-encoding", "chunked"), ("content-length", "1")]);
        clean_response(&mut map, false);
        assert!(map.is_empty(), "{map:?}");
    }

    #[test]
    fn an_upgrade_that_connection_does_not_name_is_none() {
        let mut map = headers(&[("upgrade", "websocket")]);
        assert_eq!(clean_request(&mut map), None);
        assert!(map.is_empty());
    }

    #[test]
    fn the_first_lull_hop_names_the_peer_and_later_ones_do_not() {
        let peer = forwarded_for("::ffff:10.0.0.9".parse().unwrap());
        let mut map = HeaderMap::new();
        add_forwarded_for(&mut map, &peer);
        assert_eq!(map["x-forwarded-for"], "10.0.0.9");
        for (name, value) in [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-client-cert", "By=x"),
            ("x-envoy-attempt-count", "1"),
        ] {
            let before = headers(&[(name, value)]);
            let mut map = before.clone();
            add_forwarded_for(&mut map, &peer);
            assert_eq!(map, before);
        }
    }
}
