//! Instructions per request that are committed, and whether new ones keep them.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;

/// How much more is no regression, per thousand. Equal runs differ by 5 at most; another machine's
/// memcpy is another one.
pub const TOLERANCE_PERMILLE: u64 = 30;

/// Instructions per request, by scenario.
pub type Counts = BTreeMap<String, u64>;

/// Reads what is committed.
///
/// # Errors
/// Where the file can't be read.
pub fn read(path: &Path) -> anyhow::Result<Counts> {
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))
}

/// Writes what shall be committed.
///
/// # Errors
/// Where the file can't be written.
pub fn write(path: &Path, counts: &Counts) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(counts)? + "\n";
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// How a count is to the one that is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Within the tolerance.
    Kept,
    /// So much less that the next regression could hide in it.
    Better,
    /// More.
    Worse,
    /// None is committed.
    Unknown,
}

/// Compares `now` with what is `committed`.
#[must_use]
pub fn compare(now: u64, committed: Option<u64>) -> Verdict {
    let Some(committed) = committed else {
        return Verdict::Unknown;
    };
    match (now * 1000, committed * 1000, committed * TOLERANCE_PERMILLE) {
        (now, was, tolerated) if now > was + tolerated => Verdict::Worse,
        (now, was, tolerated) if now + tolerated < was => Verdict::Better,
        _ => Verdict::Kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_percent_are_tolerated_both_ways() {
        let verdicts = [969, 970, 1030, 1031].map(|now| compare(now, Some(1000)));
        let expected = [
            Verdict::Better,
            Verdict::Kept,
            Verdict::Kept,
            Verdict::Worse,
        ];
        assert_eq!(verdicts, expected);
        assert_eq!(compare(1, None), Verdict::Unknown);
    }
}
