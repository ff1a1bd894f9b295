//! Who keeps a workload awake.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::Caller;

/// Whose requests the pods of a workload have had in the last one or two minutes in which any came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct KeptAwake {
    /// When the last of them came; empty where nobody's are known.
    pub at: String,
    /// The busiest first.
    pub by: Vec<AwakeShare>,
    /// Share of all others together, percent.
    pub others_percent: u8,
}

/// How much of the requests is a caller's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct AwakeShare {
    /// Who; what it asked for is the most frequent classes of its requests, as in `GET /api/*`.
    pub caller: Caller,
    /// Share of its requests in those of all, percent, without fractions.
    pub percent: u8,
}

// === impl KeptAwake ===

impl KeptAwake {
    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    /// No more callers than `most`; the others' shares are those of all others.
    #[must_use]
    pub fn at_most(mut self, most: usize) -> Self {
        for cut in self.by.drain(most.min(self.by.len())..) {
            self.others_percent = self.others_percent.saturating_add(cut.percent);
        }
        self
    }
}

/// In one line, for instance `prod/checkout 82 % (GET /api/*), 10.1.2.3 11 %, others 7 %`.
impl fmt::Display for KeptAwake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shares: Vec<String> = self.by.iter().map(AwakeShare::text).collect();
        if self.others_percent > 0 {
            shares.push(format!("others {} %", self.others_percent));
        }
        f.write_str(&shares.join(", "))
    }
}

// === impl AwakeShare ===

impl AwakeShare {
    fn text(&self) -> String {
        let mut text = match self.percent {
            0 => format!("{} below 1 %", self.caller.name()),
            percent => format!("{} {percent} %", self.caller.name()),
        };
        if !self.caller.asked.is_empty() {
            // Writing to a String can't fail.
            let _ = write!(text, " ({})", self.caller.asked);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(address: &str, percent: u8) -> AwakeShare {
        let caller = Caller {
            address: address.to_owned(),
            ..Caller::default()
        };
        AwakeShare { caller, percent }
    }

    fn kept() -> KeptAwake {
        let checkout = AwakeShare {
            caller: Caller {
                workload: Some("prod/checkout".to_owned()),
                asked: "GET /api/*".to_owned(),
                ..share("10.0.0.7", 0).caller
            },
            percent: 82,
        };
        KeptAwake {
            at: "2026-01-01T00:00:00Z".to_owned(),
            by: vec![checkout, share("10.1.2.3", 11), share("10.1.2.4", 0)],
            others_percent: 7,
        }
    }

    #[test]
    fn who_keeps_it_awake_is_told_in_one_line() {
        let text = "prod/checkout 82 % (GET /api/*), 10.1.2.3 11 %, 10.1.2.4 below 1 %, others 7 %";
        assert_eq!(kept().to_string(), text);
        assert_eq!(KeptAwake::default().to_string(), "");
    }

    #[test]
    fn who_is_not_named_is_among_the_others() {
        let one = kept().at_most(1);
        assert_eq!((one.by.len(), one.others_percent), (1, 18));
        assert_eq!(kept().at_most(9), kept());
    }
}
