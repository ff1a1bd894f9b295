//! Response headers in which Lull says what it did; on answers of its own only.

/// Why the answer is not the app's: a word of a closed list, the same as the label `reason` of the
/// component's metric of rejected requests.
pub const REASON_HEADER: &str = "lull-reason";
/// Who caused the error: an [`ErrorSource`].
pub const ERROR_SOURCE_HEADER: &str = "lull-error-source";

/// Who caused an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorSource {
    /// The app, or what must happen until one of its pods can be used: without Lull the caller
    /// would have had an error, too.
    App,
    /// The queue-proxy, by a limit that the workload's owner has set.
    QueueProxy,
    /// The activator, by a bound of its own, or because nothing is to be woken.
    Activator,
    /// The caller.
    Client,
}

impl ErrorSource {
    /// As [`ERROR_SOURCE_HEADER`] and the metrics' label `source` say it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::QueueProxy => "queue-proxy",
            Self::Activator => "activator",
            Self::Client => "client",
        }
    }
}
