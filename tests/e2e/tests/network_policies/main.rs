//! NetworkPolicies that are enforced: on the users' pods, on callers, and on Lull's own.
//!
//! Lull is installed with `networkPolicy.enabled`, with `callersFrom` namespaces of the suite and with
//! `metricsFrom` those that are labelled for it (scripts/network-policies.sh). Policies of users are those
//! of docs/network-policies.md, word for word.

mod own;
mod policies;
mod requests;
mod users;

use std::time::Duration;

/// Longest wait for a state that must come.
const FOLLOW: Duration = Duration::from_secs(60);
/// Longest time of one test: it falls asleep several times.
const TEST: Duration = Duration::from_secs(600);
