//! How often a test does what it repeats.

/// In the shortest suite: enough for what goes wrong every other time.
const FEWEST: u32 = 3;

/// Whether the full suite was asked for: `E2E_FULL` is set.
#[must_use]
pub fn is_full() -> bool {
    is_set("E2E_FULL")
}

/// `full` in the full suite, else `short`; three at most in the shortest one (`E2E_SHORT`), which may be
/// a part of a full run.
#[must_use]
pub fn rounds(short: u32, full: u32) -> u32 {
    if is_set("E2E_SHORT") {
        short.min(FEWEST)
    } else if is_full() {
        full
    } else {
        short
    }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}
