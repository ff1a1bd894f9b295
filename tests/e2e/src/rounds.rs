//! How often a test does what it repeats.

/// Whether the full suite was asked for: `E2E_FULL` is set.
#[must_use]
pub fn is_full() -> bool {
    std::env::var_os("E2E_FULL").is_some_and(|value| !value.is_empty())
}

/// `full` in the full suite, else `short`.
#[must_use]
pub fn rounds(short: u32, full: u32) -> u32 {
    if is_full() { full } else { short }
}
