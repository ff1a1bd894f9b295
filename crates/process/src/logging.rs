//! Log lines on standard error.

use tracing_subscriber::{EnvFilter, fmt};

/// Sends log lines to standard error, as JSON where `json` is set.
///
/// `filter` is a `tracing` filter such as `info` or `info,kube=warn`; one that can't be read
/// becomes `info`. A second call in one process changes nothing.
pub fn init(filter: &str, json: bool) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // An error says that a subscriber is there already, as in tests.
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
}
