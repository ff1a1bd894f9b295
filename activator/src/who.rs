//! Who is held, and who is held most often: pure.

use std::net::{IpAddr, SocketAddr};

use http::{Method, Uri};
use lull_contract::report::{CallerCount, MAX_ASKED_BYTES, MAX_CALLERS, SeenCaller};

/// One who is held, as far as it can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    address: IpAddr,
    /// At most [`MAX_ASKED_BYTES`].
    asked: Box<str>,
}

/// Who was held most often, in as many places as are told ("space-saving", Metwally et al. 2005): a
/// new caller takes the place of the least one, with its count, so that no count is too low.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    most: Vec<(IpAddr, u64)>,
}

// === impl Who ===

impl Who {
    /// A connection, with the server name that its ClientHello asks for.
    pub(crate) fn connected(peer: SocketAddr, server_name: Option<&str>) -> Self {
        Self {
            address: peer.ip().to_canonical(),
            asked: bounded(server_name.unwrap_or_default()).into_boxed_str(),
        }
    }

    /// A plain request; `host` = its Host header, where the target has none.
    pub(crate) fn requested(
        peer: SocketAddr,
        (method, uri): (&Method, &Uri),
        host: Option<&str>,
    ) -> Self {
        let host = uri.authority().map(http::uri::Authority::as_str).or(host);
        let (host, path) = (host.unwrap_or_default(), uri.path());
        // What comes behind the path may be secret, and is never looked at; nor is a password, which
        // some write before the host (RFC 3986, 3.2.1).
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let asked = format!("{method} {host}{path}");
        Self {
            address: peer.ip().to_canonical(),
            asked: bounded(&asked).into_boxed_str(),
        }
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// For the autoscaler.
    pub(crate) fn seen(&self) -> SeenCaller {
        SeenCaller {
            address: self.address.to_string(),
            asked: self.asked.to_string(),
        }
    }
}

/// The beginning of `text`, without what could not be shown.
fn bounded(text: &str) -> String {
    let shown = text.chars().filter(|c| !c.is_control() && !is_unseen(*c));
    let mut bytes = 0;
    let fits = |c: &char| {
        bytes += c.len_utf8();
        bytes <= MAX_ASKED_BYTES
    };
    shown.take_while(fits).collect()
}

/// Whether it is not seen itself and may change how what is around it is: no line break, and nothing
/// that turns the direction of a text (Unicode's UAX 9), in a status, an Event or a terminal.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

// === impl Counts ===

impl Counts {
    /// Counts one more hold of `caller`.
    pub(crate) fn note(&mut self, caller: IpAddr) {
        if let Some((_, holds)) = self.most.iter_mut().find(|(other, _)| *other == caller) {
            *holds = holds.saturating_add(1);
            return;
        }
        if self.most.len() < MAX_CALLERS {
            self.most.push((caller, 1));
            return;
        }
        if let Some(least) = self.most.iter_mut().min_by_key(|(_, holds)| *holds) {
            *least = (caller, least.1.saturating_add(1));
        }
    }

    /// For the autoscaler.
    pub(crate) fn told(&self) -> Vec<CallerCount> {
        let told = self.most.iter().map(|(address, holds)| CallerCount {
            address: address.to_string(),
            holds: *holds,
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 40_000))
    }

    #[test]
    fn a_request_is_told_by_method_host_and_path_without_its_query() {
        let target = |text: &str| text.parse::<Uri>().unwrap();
        let plain = (&Method::GET, &target("/cart/7?token=secret"));
        let seen = Who::requested(peer(1), plain, Some("shop.default")).seen();
        assert_eq!(seen.address, "10.0.0.1");
        assert_eq!(seen.asked, "GET shop.default/cart/7");
        let whole = (&Method::POST, &target("http://shop/pay?x=y"));
        let seen = Who::requested(peer(1), whole, Some("other")).seen();
        assert_eq!(seen.asked, "POST shop/pay");
        let whole = (&Method::GET, &target("http://me:secret@shop:80/pay"));
        let seen = Who::requested(peer(1), whole, None).seen();
        assert_eq!(seen.asked, "GET shop:80/pay");
        let seen = Who::requested(peer(1), plain, Some("me:secret@shop")).seen();
        assert_eq!(seen.asked, "GET shop/cart/7");
    }

    #[test]
    fn what_is_told_of_a_connection_is_short_and_can_be_shown() {
        let seen = Who::connected(peer(1), None).seen();
        assert_eq!(seen.asked, "");
        let long = format!("a\n\u{1b}{}", "\u{e9}".repeat(MAX_ASKED_BYTES));
        let seen = Who::connected("[::ffff:10.0.0.9]:1".parse().unwrap(), Some(&long)).seen();
        assert_eq!(seen.address, "10.0.0.9");
        assert!(seen.asked.starts_with("a\u{e9}"), "{}", seen.asked);
        assert!(seen.asked.len() <= MAX_ASKED_BYTES);
    }

    #[test]
    fn a_server_name_can_not_turn_what_is_shown_beside_it() {
        for unseen in [
            '\u{200b}', '\u{202e}', '\u{2028}', '\u{2066}', '\u{61c}', '\u{feff}',
        ] {
            let seen = Who::connected(peer(1), Some(&format!("a{unseen}\u{e9}b"))).seen();
            assert_eq!(seen.asked, "a\u{e9}b", "{}", unseen.escape_unicode());
        }
    }

    #[test]
    fn the_busiest_callers_keep_their_places() {
        let mut counts = Counts::default();
        for _ in 0..10 {
            counts.note(peer(1).ip());
            counts.note(peer(2).ip());
        }
        for other in 3..60 {
            counts.note(peer(other).ip());
            counts.note(peer(1).ip());
            counts.note(peer(2).ip());
        }
        let told = counts.told();
        assert_eq!(told.len(), MAX_CALLERS);
        for busy in ["10.0.0.1", "10.0.0.2"] {
            let holds = told.iter().find(|caller| caller.address == busy);
            assert!(holds.is_some_and(|caller| caller.holds >= 67), "{told:?}");
        }
    }
}
