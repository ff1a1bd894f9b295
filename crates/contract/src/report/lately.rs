//! Who has called a pod lately, and for what: told by its queue-proxy, added up by the autoscaler.

use serde::{Deserialize, Serialize};

use super::{ReportError, within};

/// Most callers that a queue-proxy names.
pub const MAX_LATELY: usize = 8;
/// Longest text of such a caller, bytes.
pub const MAX_CALLER_BYTES: usize = 96;
/// Most classes of requests that it names of each.
pub const MAX_CLASSES: usize = 2;
/// Longest text of a class, bytes.
pub const MAX_CLASS_BYTES: usize = 64;

/// Who has called in the last one or two minutes in which anybody did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lately {
    /// When the last of them called, microseconds since the process started.
    pub last_us: u64,
    /// Requests and byte streams of all of them.
    pub requests: u64,
    /// The busiest first; at most [`MAX_LATELY`] are told, the others are the rest of `requests`.
    pub callers: Vec<CallerRequests>,
}

/// How much a caller has called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerRequests {
    /// Its address, without the port; or `namespace/account` of the certificate that the pod's own
    /// Envoy has seen.
    pub caller: String,
    /// Requests and byte streams of it.
    pub requests: u64,
    /// Method and class of path, and how many of the requests were of it, the most frequent first; at
    /// most [`MAX_CLASSES`] are told. None of byte streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<(String, u64)>,
}

// === impl Lately ===

impl Lately {
    /// Whether nobody has called.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// Adds what others tell of the same clock.
    pub fn add(&mut self, other: &Self) {
        self.last_us = self.last_us.max(other.last_us);
        self.requests = self.requests.saturating_add(other.requests);
        for told in &other.callers {
            let mut known = self.callers.iter_mut();
            match known.find(|known| known.caller == told.caller) {
                Some(known) => known.add(told),
                None => self.callers.push(told.clone()),
            }
        }
    }

    /// The busiest first, and no more of them than `most`.
    pub fn keep(&mut self, most: usize) {
        self.callers.sort_by(|a, b| {
            let by_requests = b.requests.cmp(&a.requests);
            by_requests.then_with(|| a.caller.cmp(&b.caller))
        });
        self.callers.truncate(most);
        for caller in &mut self.callers {
            caller.keep();
        }
    }

    /// Nothing of it is larger than any honest reporter makes it, nor of another alphabet.
    pub(super) fn check(&self) -> Result<(), ReportError> {
        let texts = || self.callers.iter().map(|told| told.caller.as_str());
        let all_asked = || self.callers.iter().flat_map(|told| &told.asked);
        let classes = || all_asked().map(|(class, _)| class.as_str());
        let most_asked = self.callers.iter().map(|told| told.asked.len()).max();
        let odd = |c: &char| !is_told(*c);
        let odd = texts().chain(classes()).flat_map(str::chars).filter(odd);
        within([
            ("callers", self.callers.len(), MAX_LATELY),
            ("bytes of a caller", longest(texts()), MAX_CALLER_BYTES),
            ("classes of requests", most_asked.unwrap_or(0), MAX_CLASSES),
            ("bytes of a class", longest(classes()), MAX_CLASS_BYTES),
            ("characters of no caller", odd.count(), 0),
        ])
    }
}

// === impl CallerRequests ===

impl CallerRequests {
    /// Adds what was told of the same caller elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        for (class, requests) in &other.asked {
            match self.asked.iter_mut().find(|(known, _)| known == class) {
                Some((_, known)) => *known = known.saturating_add(*requests),
                None => self.asked.push((class.clone(), *requests)),
            }
        }
    }

    /// The most frequent classes first, and no more of them than are told.
    pub fn keep(&mut self) {
        let by_requests = |(a, of_a): &(String, u64), (b, of_b): &(String, u64)| {
            of_b.cmp(of_a).then_with(|| a.cmp(b))
        };
        self.asked.sort_by(by_requests);
        self.asked.truncate(MAX_CLASSES);
    }
}

fn longest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(str::len).max().unwrap_or(0)
}

/// Whether `c` may be in the name of a caller or of a class: what is shown needs no care then.
fn is_told(c: char) -> bool {
    c.is_ascii_alphanumeric() || " /.:*_~-".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(caller: &str, requests: u64, asked: &[(&str, u64)]) -> CallerRequests {
        let asked = asked.iter().map(|(class, of)| ((*class).to_owned(), *of));
        CallerRequests {
            caller: caller.to_owned(),
            requests,
            asked: asked.collect(),
        }
    }

    fn lately(callers: &[CallerRequests]) -> Lately {
        Lately {
            last_us: 1,
            requests: callers.iter().map(|told| told.requests).sum(),
            callers: callers.to_vec(),
        }
    }

    #[test]
    fn what_two_tell_of_a_caller_is_one_and_the_busiest_are_kept() {
        let mut sum = lately(&[
            told("10.0.0.1", 3, &[("GET /a", 2), ("GET /b", 1)]),
            told("web/shop", 1, &[]),
        ]);
        sum.add(&lately(&[
            told("web/shop", 9, &[("POST /pay", 9)]),
            told("10.0.0.1", 4, &[("GET /c", 4)]),
            told("10.0.0.2", 1, &[]),
        ]));
        sum.keep(2);
        let expected = [
            told("web/shop", 10, &[("POST /pay", 9)]),
            told("10.0.0.1", 7, &[("GET /c", 4), ("GET /a", 2)]),
        ];
        assert_eq!((sum.requests, sum.callers), (18, expected.to_vec()));
    }

    #[test]
    fn callers_beyond_the_bounds_or_of_another_alphabet_are_no_queue_proxys() {
        let of = |caller: &str, class: &str| lately(&[told(caller, 1, &[(class, 1)])]);
        let long = |length: usize| "x".repeat(length);
        let many = |count: usize| lately(&vec![told("fd00::7", 1, &[]); count]);
        let rows = [
            (of("web/shop", "GET /api/*"), true),
            (of(&long(MAX_CALLER_BYTES), &long(MAX_CLASS_BYTES)), true),
            (of(&long(MAX_CALLER_BYTES + 1), ""), false),
            (of("", &long(MAX_CLASS_BYTES + 1)), false),
            (of("web/shop\u{1b}[31m", ""), false),
            (of("web/shop", "GET /<script>"), false),
            (of("web/sh\u{f6}p", ""), false),
            (many(MAX_LATELY), true),
            (many(MAX_LATELY + 1), false),
            (lately(&[told("a", 1, &[("b", 1); 3])]), false),
        ];
        for (lately, is_taken) in rows {
            assert_eq!(lately.check().is_ok(), is_taken, "{lately:?}");
        }
    }
}
