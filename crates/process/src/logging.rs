//! Log lines on standard error, by a filter that can be changed while the process runs.

use std::{fmt, str::FromStr, sync::OnceLock};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt as lines,
    layer::SubscriberExt,
    reload::{self, Handle},
    util::SubscriberInitExt,
};

const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// What is logged: a level, and others for single modules, as in `info,kube=warn`. Where no level
/// stands alone, errors of all other modules are logged.
#[derive(Clone, PartialEq)]
pub struct LogFilter {
    text: String,
    targets: Targets,
}

/// The text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("log filter {0:?} {allowed}", allowed = LogFilter::ALLOWED)]
pub struct LogFilterError(String);

/// The filter of a process can't be changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// [`init`] has not been called, or another subscriber was there first.
    #[error("this process does not log by a filter of ours")]
    NotOurs,
    /// The subscriber is gone.
    #[error("the log filter can't be changed: {0}")]
    Gone(#[source] reload::Error),
}

struct Running {
    filter: Mutex<LogFilter>,
    handle: Handle<Targets, Registry>,
}

/// One subscriber takes the events of a whole process, so there is one filter, too.
static RUNNING: OnceLock<Running> = OnceLock::new();

/// Sends log lines to standard error, as JSON where `json` is set. A second call in one process
/// changes nothing.
pub fn init(filter: &LogFilter, json: bool) {
    let (layer, handle) = reload::Layer::new(filter.targets.clone());
    let lines = lines::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines = if json {
        lines.json().boxed()
    } else {
        lines.boxed()
    };
    let subscriber = tracing_subscriber::registry().with(layer).with(lines);
    // An error says that a subscriber is there already, as in tests.
    if subscriber.try_init().is_ok() {
        let filter = Mutex::new(filter.clone());
        // Nobody was before us, or the subscriber had not been taken.
        let _ = RUNNING.set(Running { filter, handle });
    }
}

/// The filter in effect; `None` before [`init`].
#[must_use]
pub fn filter() -> Option<LogFilter> {
    RUNNING.get().map(|running| running.filter.lock().clone())
}

/// Logs by `filter` from now on.
///
/// # Errors
/// Where this process does not log by [`init`].
pub fn set_filter(filter: LogFilter) -> Result<(), LogError> {
    let running = RUNNING.get().ok_or(LogError::NotOurs)?;
    let mut current = running.filter.lock();
    let targets = filter.targets.clone();
    running.handle.reload(targets).map_err(LogError::Gone)?;
    *current = filter;
    Ok(())
}

// === impl LogFilter ===

impl LogFilter {
    /// What a filter may be, as the end of a sentence.
    pub const ALLOWED: &'static str = "must be off, error, warn, info, debug or trace, and may \
         list other levels of single modules behind, as in info,queue_proxy=debug";

    /// Levels of info and above.
    #[must_use]
    pub fn info() -> Self {
        Self {
            text: "info".to_owned(),
            targets: Targets::new().with_default(LevelFilter::INFO),
        }
    }
}

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        let targets = parse(text).ok_or_else(|| LogFilterError(text.to_owned()))?;
        Ok(Self {
            text: text.to_owned(),
            targets,
        })
    }
}

/// tracing-subscriber's own parsers take any word for the name of a module: a mistyped level would
/// silence everything.
fn parse(text: &str) -> Option<Targets> {
    let mut default = None;
    let mut targets = Targets::new();
    for part in text.split(',').map(|part| part.trim_matches(' ')) {
        if let Some((module, name)) = part.split_once('=') {
            let is_module = !module.is_empty() && module.bytes().all(is_of_module);
            targets = targets.with_target(module, level(name).filter(|_| is_module)?);
        } else if default.replace(level(part)?).is_some() {
            return None;
        }
    }
    Some(targets.with_default(default.unwrap_or(LevelFilter::ERROR)))
}

fn level(name: &str) -> Option<LevelFilter> {
    let named = LEVELS.iter().find(|(known, _)| *known == name);
    named.map(|(_, level)| *level)
}

fn is_of_module(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-')
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Serialize for LogFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_is_a_level_and_levels_of_modules() {
        let filter: LogFilter = "info, queue_proxy=debug,h2::codec=off".parse().unwrap();
        let logs = |module: &str, level| filter.targets.would_enable(module, &level);
        assert!(logs("hyper", Level::INFO) && !logs("hyper", Level::DEBUG));
        assert!(logs("queue_proxy::request", Level::DEBUG));
        assert!(!logs("h2::codec", Level::ERROR) && logs("h2", Level::INFO));
        assert_eq!(filter.to_string(), "info, queue_proxy=debug,h2::codec=off");
    }

    #[test]
    fn without_a_level_of_its_own_the_rest_logs_errors() {
        let filter: LogFilter = "queue_proxy=trace".parse().unwrap();
        assert!(filter.targets.would_enable("hyper", &Level::ERROR));
        assert!(!filter.targets.would_enable("hyper", &Level::WARN));
    }

    #[test]
    fn what_is_no_filter_is_refused_with_what_is_allowed() {
        for wrong in [
            "",
            "loud",
            "info,",
            "INFO",
            "3",
            "info,debug",
            "info\n",
            "queue_proxy",
            "queue_proxy=loud",
            "=debug",
            "a b=debug",
            "x[span]=debug",
        ] {
            let error = wrong.parse::<LogFilter>().unwrap_err().to_string();
            assert!(error.contains(LogFilter::ALLOWED), "{wrong}: {error}");
        }
    }

    #[test]
    fn every_level_has_its_name() {
        for (name, level) in LEVELS {
            let filter: LogFilter = name.parse().unwrap();
            assert_eq!(filter.targets.default_level(), Some(level), "{name}");
        }
    }
}
