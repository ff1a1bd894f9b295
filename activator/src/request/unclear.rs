//! What Pingora lets through although it has two meanings, or none: a pod's side refuses it or reads it
//! in its own way, and nobody is woken for that.

use http::{HeaderMap, HeaderName, Method, Version, header};
use pingora_http::RequestHeader;

/// Names that nobody may take out of a request by naming them in `Connection`.
const KEPT_NAMES: [&str; 4] = [
    "host",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];
/// Names in `Connection` that are looked at; Pingora refuses as many.
const MOST_NAMED: usize = 10;

/// Whether the head of a request is to be refused.
pub(super) fn is_unclear(request: &RequestHeader) -> bool {
    let headers = &request.headers;
    !is_target(&request.method, request.raw_path())
        || (request.version == Version::HTTP_11 && !headers.contains_key(header::HOST))
        || !has_one_length(headers)
        || !is_plainly_coded(headers)
        || names_what_is_kept(headers)
}

/// Origin form, asterisk form or absolute form (RFC 9112, 3.2).
fn is_target(method: &Method, target: &[u8]) -> bool {
    let schemes = [&b"http://"[..], b"https://"];
    target.starts_with(b"/")
        || (target == b"*" && method == Method::OPTIONS)
        || schemes.iter().any(|scheme| {
            let beginning = target.get(..scheme.len());
            beginning.is_some_and(|it| it.eq_ignore_ascii_case(scheme))
        })
}

/// Pingora passes on as many as it has got (RFC 9112, 6.3).
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    lengths
        .next()
        .is_none_or(|length| length.as_bytes().iter().all(u8::is_ascii_digit))
        && lengths.next().is_none()
}

/// Any other coding stays on the content, and Pingora takes its name away (RFC 9112, 6.1).
fn is_plainly_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| {
        let coding = coding.as_bytes().trim_ascii();
        coding.eq_ignore_ascii_case(b"chunked")
    }) && codings.next().is_none()
}

/// Pingora refuses such a request, but only once there is a pod for it.
fn names_what_is_kept(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let names = names.map(<[u8]>::trim_ascii).filter(|it| !it.is_empty());
    names.enumerate().any(|(before, name)| {
        let name = HeaderName::from_bytes(name);
        let is_kept = name.map_or(true, |name| KEPT_NAMES.contains(&name.as_str()));
        is_kept || before + 1 >= MOST_NAMED
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method, target and headers beside Host.
    type Case<'a> = (&'a str, &'a str, &'a [(&'static str, &'a str)]);

    fn request(method: &str, target: &str, headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, target.as_bytes(), None).unwrap();
        request.insert_header(header::HOST, "shop").unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    #[test]
    fn what_callers_send_is_clear() {
        let cases: [Case<'_>; 7] = [
            ("GET", "/", &[]),
            ("OPTIONS", "*", &[]),
            ("GET", "http://shop/a?b", &[]),
            ("POST", "/", &[("content-length", "05")]),
            ("POST", "/", &[("transfer-encoding", " Chunked ")]),
            ("GET", "/", &[("connection", "keep-alive, Upgrade")]),
            ("GET", "/", &[("connection", ""), ("connection", "close")]),
        ];
        for (method, target, headers) in cases {
            let request = request(method, target, headers);
            assert!(!is_unclear(&request), "{request:?}");
        }
    }

    #[test]
    fn what_may_mean_two_things_is_unclear() {
        let many = "a, ".repeat(MOST_NAMED);
        let cases: [Case<'_>; 11] = [
            ("GET", "*", &[]),
            ("GET", "ftp://shop/", &[]),
            ("GET", "shop", &[]),
            ("POST", "/", &[("content-length", "5, 5")]),
            ("POST", "/", &[("content-length", "+5")]),
            (
                "POST",
                "/",
                &[("content-length", "5"), ("content-length", "5")],
            ),
            ("POST", "/", &[("transfer-encoding", "gzip, chunked")]),
            (
                "POST",
                "/",
                &[
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
            ),
            ("GET", "/", &[("connection", "close, HOST")]),
            ("GET", "/", &[("connection", "\"x\"")]),
            ("GET", "/", &[("connection", many.as_str())]),
        ];
        for (method, target, headers) in cases {
            let request = request(method, target, headers);
            assert!(is_unclear(&request), "{request:?}");
        }
    }

    #[test]
    fn of_http_1_1_alone_a_host_is_asked() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.set_version(Version::HTTP_11);
        assert!(is_unclear(&request));
        for version in [Version::HTTP_10, Version::HTTP_2] {
            request.set_version(version);
            assert!(!is_unclear(&request), "{version:?}");
        }
    }
}
