//! Durations as people write them: `60s`, `1m30s`, `500ms`, `1h`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration that reads and writes as Go's and Kubernetes' duration strings, whole milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// What an API server takes for one in a ScaledWorkload: nothing that can't be read. Every duration that is
/// written there, which has two units at most, fits.
#[cfg(feature = "crd")]
const PATTERN: &str = "^(0|([0-9]{1,9}(ms|s|m|h)){1,4})$";

/// The text was not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write for instance 90s, 1m30s, 500ms or 1h")]
pub struct DurationError(String);

// === impl HumanDuration ===

impl HumanDuration {
    /// `secs` seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl FromStr for HumanDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text)
            .map(Self)
            .ok_or_else(|| DurationError(text.to_owned()))
    }
}

/// Sums number-unit pairs; `0` may stand alone.
fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_len = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit_ms = match &rest[..unit_len] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total_ms = total_ms.checked_add(number.checked_mul(unit_ms)?)?;
        rest = &rest[unit_len..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(total_ms))
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, ms) = (self.0.as_secs(), self.0.subsec_millis());
        match (secs, ms) {
            (0, 0) => write!(f, "0s"),
            (0, ms) => write!(f, "{ms}ms"),
            (secs, 0) => write!(f, "{secs}s"),
            (secs, ms) => write!(f, "{secs}s{ms}ms"),
        }
    }
}

impl fmt::Debug for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(feature = "crd")]
impl schemars::JsonSchema for HumanDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let read = |text: &str| text.parse::<HumanDuration>().map(|d| d.0.as_millis()).ok();
        assert_eq!(read("60s"), Some(60_000));
        assert_eq!(read("1m30s"), Some(90_000));
        assert_eq!(read("500ms"), Some(500));
        assert_eq!(read("1h"), Some(3_600_000));
        assert_eq!(read("0"), Some(0));
        for wrong in [
            "",
            "60",
            "s",
            "1.5s",
            "-1s",
            "1x",
            "1s ",
            "99999999999999999999s",
            "é",
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn display_parses_back(ms in 0u64..10_000_000_000) {
            let duration = HumanDuration(Duration::from_millis(ms));
            prop_assert_eq!(duration.to_string().parse::<HumanDuration>(), Ok(duration));
        }

        #[test]
        fn any_text_is_answered_without_a_panic(text in ".{0,20}") {
            let _ = text.parse::<HumanDuration>();
        }
    }
}
