//! What the access log says about one request.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use lull_traces::TraceParent;
use serde::{Serialize, Serializer};

use crate::metrics::{Kind, Reason};

/// Longest path, bytes; with everything else and twice as long by escapes, a line stays below the
/// 4096 bytes that a pipe takes whole.
const MAX_PATH: usize = 1024;
/// Longest text of a header, bytes.
const MAX_TEXT: usize = 256;
const REQUEST_ID: &str = "x-request-id";

/// One request or byte stream, as far as it is known.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    /// The end.
    #[serde(serialize_with = "as_rfc3339")]
    time: SystemTime,
    peer: String,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(rename = "duration_ms", serialize_with = "as_ms")]
    duration: Duration,
    #[serde(
        rename = "queue_ms",
        serialize_with = "some_as_ms",
        skip_serializing_if = "Option::is_none"
    )]
    queued: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
}

// === impl Record ===

impl Record {
    /// Copies what it keeps: a queue of records must not hold the buffers of their connections.
    pub(super) fn of_request<B>(request: &Request<B>, peer: &HeaderValue) -> Self {
        let kind = if request.version() == Version::HTTP_2 {
            Kind::H2c
        } else {
            Kind::Http1
        };
        let headers = request.headers();
        Self {
            method: Some(shortened(request.method().as_str(), MAX_TEXT)),
            path: Some(shortened(request.uri().path(), MAX_PATH)),
            bytes: Some(0),
            user_agent: text(headers, header::USER_AGENT.as_str()),
            request_id: text(headers, REQUEST_ID),
            trace_id: TraceParent::of(headers).map(|parent| parent.trace_id().to_string()),
            ..Self::of_stream(kind, peer)
        }
    }

    pub(super) fn of_stream(kind: Kind, peer: &HeaderValue) -> Self {
        Self {
            time: SystemTime::UNIX_EPOCH,
            peer: lossy(peer, MAX_TEXT),
            protocol: kind.as_str(),
            method: None,
            path: None,
            status: None,
            duration: Duration::ZERO,
            queued: None,
            bytes: None,
            user_agent: None,
            request_id: None,
            trace_id: None,
            reason: None,
            source: None,
        }
    }

    /// It has waited in the queue for `time`.
    pub(crate) fn queued(&mut self, time: Duration) {
        self.queued = Some(time);
    }

    /// The head of the answer goes to the caller.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status.as_u16());
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.bytes = None;
        }
    }

    /// So many bytes of the app's answer go to the caller.
    pub(crate) fn sent(&mut self, bytes: usize) {
        if let Some(sum) = &mut self.bytes {
            *sum = sum.saturating_add(bytes as u64);
        }
    }

    /// The app did not answer, or not to the end.
    pub(crate) fn rejected(&mut self, reason: Reason) {
        self.reason = Some(reason.as_str());
        self.source = Some(reason.source().as_str());
    }

    pub(super) fn end(&mut self, duration: Duration) {
        self.time = SystemTime::now();
        self.duration = duration;
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| lossy(value, MAX_TEXT))
}

fn lossy(value: &HeaderValue, max: usize) -> String {
    shortened(&String::from_utf8_lossy(value.as_bytes()), max)
}

/// At most `max` bytes of `text`, whole characters.
fn shortened(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

fn as_ms<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_micros() as f64 / 1_000.0)
}

fn some_as_ms<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    as_ms(&duration.unwrap_or_default(), serializer)
}

fn as_rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&rfc3339(*time))
}

/// UTC with milliseconds.
fn rfc3339(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let ms = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of the `days`-th day after 1970-01-01.
///
/// Counts in eras of 400 years that begin on a 1st of March, so that a leap day is the last of its
/// year (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(record: &Record) -> String {
        serde_json::to_string(record).unwrap()
    }

    fn request(path: &str, pairs: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::get(path);
        for (name, value) in pairs {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    const PEER: HeaderValue = HeaderValue::from_static("10.0.0.9");

    #[test]
    fn a_line_has_what_is_known_in_a_fixed_order() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = [
            ("user-agent", "curl/8"),
            ("x-request-id", "r-1"),
            ("traceparent", parent),
        ];
        let mut record = Record::of_request(&request("/cart?secret=1", &headers), &PEER);
        record.queued(Duration::from_micros(1_500));
        record.answered(StatusCode::OK);
        record.sent(3);
        record.sent(4);
        record.rejected(Reason::Timeout);
        record.end(Duration::from_millis(2_000));
        record.time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_515_296_007);
        assert_eq!(
            line(&record),
            r#"{"time":"2026-11-24T10:14:56.007Z","peer":"10.0.0.9","protocol":"http1","method":"GET","#
                .to_owned()
                + r#""path":"/cart","status":200,"duration_ms":2000.0,"queue_ms":1.5,"bytes":7,"#
                + r#""user_agent":"curl/8","request_id":"r-1","#
                + r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","reason":"timeout","source":"app"}"#
        );
    }

    #[test]
    fn a_stream_has_no_http_in_it() {
        let record = Record::of_stream(Kind::Tls, &PEER);
        assert_eq!(
            line(&record),
            r#"{"time":"1970-01-01T00:00:00.000Z","peer":"10.0.0.9","protocol":"tls","duration_ms":0.0}"#
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |secs| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59.000Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.000Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000Z");
    }

    proptest! {
        #[test]
        fn a_line_fits_into_a_pipe_whatever_the_caller_sends(
            path in proptest::collection::vec(any::<u8>(), 0..3_000),
            agent in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let mut request = request("/", &[]);
            let path = [b"/", &path[..]].concat();
            if let Ok(uri) = http::Uri::try_from(path) {
                *request.uri_mut() = uri;
            }
            if let Ok(agent) = HeaderValue::from_bytes(&agent) {
                request.headers_mut().insert(header::USER_AGENT, agent.clone());
                request.headers_mut().insert(REQUEST_ID, agent);
            }
            let line = line(&Record::of_request(&request, &PEER));
            prop_assert!(line.len() < 4096, "{}", line.len());
            prop_assert!(!line.contains('\n'));
        }
    }
}
