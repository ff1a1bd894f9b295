//! The header `traceparent` (<https://www.w3.org/TR/trace-context/>).

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{SpanId, TraceFlags, TraceId};

/// The header that carries a trace from one process to the next.
pub const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// `version-trace-parent-flags`, two, 32, 16 and two digits.
const LENGTH: usize = 55;
/// Sampled, and (from level 2 of the specification on) that the trace's id is random.
const KNOWN_FLAGS: u8 = 0b11;

/// One span, as it is told to whom it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: TraceId,
    span: SpanId,
    flags: TraceFlags,
}

// === impl TraceParent ===

impl TraceParent {
    /// A span whose trace is to be kept.
    pub(crate) fn sampled(trace: TraceId, span: SpanId) -> Self {
        Self {
            trace,
            span,
            flags: TraceFlags::SAMPLED,
        }
    }

    /// Another span of the same trace.
    pub(crate) fn with_span(self, span: SpanId) -> Self {
        Self { span, ..self }
    }

    /// What `headers` say; `None` where they say nothing valid, or more than one thing.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACE_PARENT).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        Self::parse(value.as_bytes())
    }

    /// Reads a header's value, in lower hex digits; versions later than ours may go on behind.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, later) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            hex(part)
        };
        let (version, trace, span, flags) = (number(2)?, number(32)?, number(16)?, number(2)?);
        let ends_well = match version {
            0 => later.is_empty(),
            0xff => false,
            _ => later.first().is_none_or(|byte| *byte == b'-'),
        };
        let flags = u8::try_from(flags).ok()? & KNOWN_FLAGS;
        (ends_well && trace != 0 && span != 0).then_some(Self {
            trace: TraceId::from(trace),
            span: SpanId::from(u64::try_from(span).ok()?),
            flags: TraceFlags::new(flags),
        })
    }

    /// Whether whoever began the trace wants it kept.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags.is_sampled()
    }

    /// The trace, 32 hex digits as text.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.trace
    }

    pub(crate) fn span_id(&self) -> SpanId {
        self.span
    }

    pub(crate) fn flags(&self) -> TraceFlags {
        self.flags
    }

    /// The header's value.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("it is hex digits and dashes")
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{}-{}-{:02x}",
            self.trace,
            self.span,
            self.flags.to_u8()
        )
    }
}

/// At most 32 digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(values: &[&str]) -> HeaderMap {
        let pair = |value: &&str| (TRACE_PARENT, value.parse().unwrap());
        values.iter().map(pair).collect()
    }

    #[test]
    fn a_valid_header_is_read_and_written_alike() {
        let parent = TraceParent::of(&headers(&[VALID])).unwrap();
        assert!(parent.is_sampled());
        assert_eq!(
            parent.trace_id().to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(parent.header(), VALID);
    }

    #[test]
    fn a_later_version_goes_on_as_ours() {
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-what-comes";
        let parent = TraceParent::parse(later.as_bytes()).unwrap();
        let known = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
        assert_eq!(parent.to_string(), known);
    }

    #[test]
    fn who_does_not_want_the_trace_kept_is_heard() {
        let not = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02";
        assert!(!TraceParent::parse(not.as_bytes()).unwrap().is_sampled());
    }

    #[test]
    fn what_is_not_valid_is_none() {
        for wrong in [
            "",
            "00",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-001",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01later",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ] {
            assert_eq!(TraceParent::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(TraceParent::of(&headers(&[])), None);
        assert_eq!(TraceParent::of(&headers(&[VALID, VALID])), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_none_or_can_be_passed_on(
            text in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[ -~]{0,9})?",
            at in 0_usize..70,
            byte in any::<u8>(),
        ) {
            let mut text = text.into_bytes();
            if let Some(place) = text.get_mut(at) {
                *place = byte;
            }
            if let Some(parent) = TraceParent::parse(&text) {
                let header = parent.header();
                prop_assert_eq!(TraceParent::parse(header.as_bytes()), Some(parent));
            }
        }
    }
}
