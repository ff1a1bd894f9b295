//! What a connection carries, by its first bytes.

use crate::metrics::Kind;

/// First byte of a TLS record with a handshake, as a ClientHello is (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Beginning of HTTP/2's preface; no HTTP/1 method begins like this (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8; ENOUGH] = b"PRI";

/// So many bytes always decide.
pub(crate) const ENOUGH: usize = 3;

/// What the connection carries that begins with `seen`; `None` = more bytes must come.
pub(crate) fn kind(seen: &[u8]) -> Option<Kind> {
    match seen {
        [] => None,
        [TLS_HANDSHAKE, ..] => Some(Kind::Tls),
        _ if seen.starts_with(HTTP2_PREFACE) => Some(Kind::H2c),
        _ if HTTP2_PREFACE.starts_with(seen) => None,
        _ => Some(Kind::Http1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every beginning there is.
    #[test]
    fn three_bytes_decide_and_what_is_decided_stays() {
        let bytes = || 0..=u8::MAX;
        for first in bytes() {
            let one = kind(&[first]);
            for second in bytes() {
                let two = kind(&[first, second]);
                assert!(one.is_none() || two == one, "{first} {second}");
                for third in bytes() {
                    let seen = [first, second, third];
                    let expected = match &seen {
                        b"PRI" => Kind::H2c,
                        [0x16, ..] => Kind::Tls,
                        _ => Kind::Http1,
                    };
                    let three = kind(&seen);
                    assert_eq!(three, Some(expected), "{seen:?}");
                    assert!(two.is_none() || three == two, "{seen:?}");
                }
            }
        }
        assert_eq!(kind(b""), None);
        assert_eq!((kind(b"P"), kind(b"PR")), (None, None));
        assert_eq!(kind(b"PUT / HTTP/1.1"), Some(Kind::Http1));
        assert_eq!(kind(b"PRI * HTTP/2.0"), Some(Kind::H2c));
    }
}
