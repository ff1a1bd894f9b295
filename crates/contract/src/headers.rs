//! Response headers in which Lull says what it did; on answers of its own only.

/// Why the answer is not the app's: a word of a closed list, the same as the label `reason` of the
/// component's metric of rejected requests.
pub const REASON_HEADER: &str = "lull-reason";
/// Who caused the error: `app`, `queue-proxy`, `activator` or `client`.
pub const ERROR_SOURCE_HEADER: &str = "lull-error-source";
