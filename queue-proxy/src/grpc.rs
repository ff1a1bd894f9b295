//! Our own errors as gRPC clients read them (<https://github.com/grpc/grpc>,
//! `doc/PROTOCOL-HTTP2.md`): trailers only, HTTP 200, the status in `grpc-status`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use crate::body::Outgoing;

const CONTENT_TYPE: &str = "application/grpc";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The codes that we answer (`doc/statuscodes.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// 3.
    InvalidArgument,
    /// 4.
    DeadlineExceeded,
    /// 12.
    Unimplemented,
    /// 14.
    Unavailable,
}

/// Whether the content type is gRPC's own, with a message format (`+proto`) or not.
///
/// `application/grpc-web` is another protocol, whose clients understand HTTP statuses.
pub(crate) fn is_request(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    let value = value.as_bytes();
    let Some((head, rest)) = value.split_at_checked(CONTENT_TYPE.len()) else {
        return false;
    };
    head.eq_ignore_ascii_case(CONTENT_TYPE.as_bytes())
        && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// An answer of headers only, which over HTTP/2 are trailers, too.
pub(crate) fn refusal(code: Code, message: &str) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::text(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(STATUS, code.value());
    if let Ok(message) = HeaderValue::try_from(percent_encoded(message)) {
        headers.insert(MESSAGE, message);
    }
    response
}

/// UTF-8 in which only printable ASCII other than `%` stands for itself.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

// === impl Code ===

impl Code {
    fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::InvalidArgument => "3",
            Self::DeadlineExceeded => "4",
            Self::Unimplemented => "12",
            Self::Unavailable => "14",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn grpcs_content_types_are_told_from_others() {
        let is = |value: &str| {
            let value = HeaderValue::try_from(value).unwrap();
            is_request(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
        };
        for grpc in [
            "application/grpc",
            "application/grpc+proto",
            "Application/GRPC;charset=utf-8",
        ] {
            assert!(is(grpc), "{grpc}");
        }
        for other in [
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grp",
            "application/json",
            "",
        ] {
            assert!(!is(other), "{other}");
        }
        assert!(!is_request(&HeaderMap::new()));
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(percent_encoded("a b~/"), "a b~/");
        assert_eq!(percent_encoded("100 %\n"), "100 %25%0A");
        assert_eq!(percent_encoded("größer"), "gr%C3%B6%C3%9Fer");
        assert_eq!(percent_encoded("\u{7f}"), "%7F");
    }

    proptest! {
        #[test]
        fn any_message_is_a_header_that_decodes_to_it(message in ".{0,40}") {
            let response = refusal(Code::Unavailable, &message);
            let mut encoded = response.headers()[MESSAGE].to_str().unwrap().bytes();
            let mut decoded = Vec::new();
            while let Some(byte) = encoded.next() {
                decoded.push(if byte == b'%' {
                    let hex = [encoded.next().unwrap(), encoded.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
                } else {
                    byte
                });
            }
            prop_assert_eq!(String::from_utf8(decoded).unwrap(), message);
        }
    }
}
