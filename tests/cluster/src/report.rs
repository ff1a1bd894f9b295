//! What the user sees: progress on stderr, results on stdout.
//!
//! Write errors are ignored on purpose: a closed pipe must not stop a half-built cluster.

use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Prints one result line to stdout, for scripts to read.
pub fn line(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints one line about progress to stderr.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Runs one named step and prints how long it took.
pub(crate) fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work();
    done(name, start.elapsed(), result.is_ok());
    result
}

fn done(name: &str, took: Duration, ok: bool) {
    let word = if ok { "ok  " } else { "FAIL" };
    note(format_args!(
        "  {word}  {name:<26} {:>5.1} s",
        took.as_secs_f64()
    ));
}
