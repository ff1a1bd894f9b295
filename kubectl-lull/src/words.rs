//! Times, durations and counts as people read them.

use std::time::Duration;

pub(crate) use autoscaler::words::{count, some_of};
use jiff::Timestamp;

/// What stands where nothing is known.
pub(crate) const UNKNOWN: &str = "-";

/// A duration in at most two units, as kubectl writes ages: `42s`, `5m`, `2h5m`, `3d4h`.
pub(crate) fn span(duration: Duration) -> String {
    let secs = duration.as_secs();
    let (mins, hours, days) = (secs / 60, secs / 3600, secs / 86_400);
    let two = |first: u64, unit: &str, rest: u64, rest_unit: &str| match rest {
        0 => format!("{first}{unit}"),
        rest => format!("{first}{unit}{rest}{rest_unit}"),
    };
    match secs {
        0..120 => format!("{secs}s"),
        120..600 => two(mins, "m", secs % 60, "s"),
        600..10_800 => format!("{mins}m"),
        10_800..28_800 => two(hours, "h", mins % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        _ => format!("{days}d"),
    }
}

/// Time since `at`, an RFC 3339 time; none where it can't be read.
pub(crate) fn since(at: Option<&str>, now: Timestamp) -> Option<Duration> {
    let at: Timestamp = at?.parse().ok()?;
    // A clock that goes ahead of ours has nothing to say of the past.
    Duration::try_from(now.duration_since(at))
        .ok()
        .or(Some(Duration::ZERO))
}

/// [`since`] in words, or [`UNKNOWN`].
pub(crate) fn ago(at: Option<&str>, now: Timestamp) -> String {
    since(at, now).map_or_else(|| UNKNOWN.to_owned(), span)
}

/// Milliseconds: `612 ms`, `1.3 s`, `2m5s`.
pub(crate) fn millis(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => span(Duration::from_millis(ms)),
    }
}

/// Pod-seconds as pod-hours with one digit behind the point: `1.5`.
pub(crate) fn hours(pod_seconds: u64) -> String {
    let tenths = pod_seconds / 360;
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let rows = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (3600, "60m"),
            (11_100, "3h5m"),
            (86_400, "24h"),
            (187_200, "2d4h"),
            (864_000, "10d"),
        ];
        for (secs, expected) in rows {
            assert_eq!(span(Duration::from_secs(secs)), expected, "{secs}");
        }
    }

    #[test]
    fn a_time_that_cannot_be_read_is_not_guessed() {
        let now: Timestamp = "2026-01-01T00:01:30Z".parse().unwrap();
        assert_eq!(ago(Some("2026-01-01T00:00:00Z"), now), "90s");
        assert_eq!(ago(Some("2026-01-01T00:02:00Z"), now), "0s");
        assert_eq!(ago(Some("yesterday"), now), UNKNOWN);
        assert_eq!(ago(None, now), UNKNOWN);
    }

    #[test]
    fn small_things_are_said_shortly() {
        let said: Vec<String> = [0, 612, 1312, 125_000].into_iter().map(millis).collect();
        assert_eq!(said, ["0 ms", "612 ms", "1.3 s", "2m5s"]);
        assert_eq!(
            (count(1, "pod"), count(0, "pod")),
            ("1 pod".into(), "0 pods".into())
        );
        assert_eq!(hours(5400), "1.5");
    }
}
