//! Values by key: the workload's own first, then the cluster-wide ones, with every fault noted.

use std::{cmp::Ordering, fmt::Display};

use super::{AnnotationError, Annotations, PREFIX};
use crate::HumanDuration;

/// Longest value that is looked at, bytes.
const MAX_VALUE: usize = 4096;

/// Where a setting has its value from. Where two settings clash, the one of the lower origin gives
/// way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// Nobody has said anything.
    BuiltIn,
    /// The cluster-wide defaults.
    ClusterWide,
    /// The values that are being read.
    Own,
}

/// Reads values and collects faults of the own ones; ask [`Reader::finish`] at the end.
pub(super) struct Reader<'a> {
    own: &'a Annotations,
    /// Values for what is not among `own`; valid by themselves.
    cluster_wide: &'a Annotations,
    errors: Vec<AnnotationError>,
    known: Vec<&'static str>,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(own: &'a Annotations, cluster_wide: &'a Annotations) -> Self {
        Self {
            own,
            cluster_wide,
            errors: Vec::new(),
            known: Vec::new(),
        }
    }

    /// The value of `key` if it is there and right; a wrong one is kept as an error.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let Some(value) = self.own.get(key) else {
            return parse(self.cluster_wide(key)?);
        };
        let parsed = if value.len() <= MAX_VALUE {
            parse(value)
        } else {
            None
        };
        if parsed.is_none() {
            self.fail(key, value, allowed);
        }
        parsed
    }

    pub(super) fn read_or<T>(
        &mut self,
        key: &'static str,
        default: T,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        self.read(key, allowed, parse).unwrap_or(default)
    }

    pub(super) fn count(&mut self, key: &'static str, default: u32, min: u32) -> u32 {
        let allowed = format!("must be a whole number from {min} to {}", i32::MAX);
        self.read_or(key, default, &allowed, |v| {
            whole(v).filter(|n| (min..=i32::MAX.unsigned_abs()).contains(n))
        })
    }

    pub(super) fn duration(
        &mut self,
        key: &'static str,
        min: u64,
        max: u64,
    ) -> Option<HumanDuration> {
        let (low, high) = (HumanDuration::from_secs(min), HumanDuration::from_secs(max));
        let allowed = format!("must be a duration from {low} to {high}, for instance \"90s\"");
        self.read(key, &allowed, |v| {
            v.parse::<HumanDuration>()
                .ok()
                .filter(|d| (low..=high).contains(d))
        })
    }

    pub(super) fn percentage(
        &mut self,
        key: &'static str,
        default: f64,
        min: f64,
        max: f64,
    ) -> f64 {
        let allowed = format!("must be a number from {min} to {max} (percent, without the sign)");
        self.read_or(key, default, &allowed, |v| {
            number(v).filter(|n| (min..=max).contains(n))
        })
    }

    /// The cluster-wide value of `key`, whether or not there is an own one.
    pub(super) fn cluster_wide(&self, key: &str) -> Option<&'a str> {
        self.cluster_wide.get(key).map(String::as_str)
    }

    /// Where the value that [`Self::read`] gave for `key` is from.
    pub(super) fn origin(&self, key: &str) -> Origin {
        if self.own.contains_key(key) {
            let is_wrong = self.errors.iter().any(|error| error.key == key);
            if is_wrong {
                Origin::BuiltIn
            } else {
                Origin::Own
            }
        } else if self.cluster_wide.contains_key(key) {
            Origin::ClusterWide
        } else {
            Origin::BuiltIn
        }
    }

    /// Sees to it that `low` is not more than `high`: where it is, the one of the lower origin takes
    /// the other's value. Two of one origin are a fault.
    pub(super) fn keep_order<T: Clone + Display>(
        &mut self,
        (low_key, low): (&str, &mut T),
        (high_key, high): (&str, &mut T),
        amount: impl Fn(&T) -> f64,
    ) {
        if amount(low) <= amount(high) {
            return;
        }
        match self.origin(low_key).cmp(&self.origin(high_key)) {
            Ordering::Less => low.clone_from(high),
            Ordering::Greater => high.clone_from(low),
            Ordering::Equal => {
                let allowed = format!("must not be more than {high_key}, which is {high}");
                self.fail(low_key, &low.to_string(), &allowed);
            }
        }
    }

    /// Refuses every own key with our prefix that was not read and is none of `others`; `why` comes
    /// before the list of those that were.
    pub(super) fn refuse_unread(&mut self, others: &[&str], why: &str) {
        let mut names: Vec<&str> = self
            .known
            .iter()
            .filter_map(|key| key.strip_prefix(PREFIX))
            .collect();
        names.sort_unstable();
        let allowed = format!("{why} {}", names.join(", "));
        for (key, value) in self.own {
            let is_known = self.known.contains(&key.as_str()) || others.contains(&key.as_str());
            if key.starts_with(PREFIX) && !is_known {
                self.fail(key, value, &allowed);
            }
        }
    }

    /// `value`, unless there was a fault.
    ///
    /// # Errors
    /// Every fault, in the order of the keys' names.
    pub(super) fn finish<T>(mut self, value: T) -> Result<T, Vec<AnnotationError>> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        self.errors.sort_by(|a, b| a.key.cmp(&b.key));
        Err(self.errors)
    }

    fn fail(&mut self, key: &str, value: &str, allowed: &str) {
        let shown: String = value.chars().take(80).collect();
        self.errors.push(AnnotationError {
            key: key.to_owned(),
            value: shown,
            allowed: allowed.to_owned(),
        });
    }
}

pub(super) fn whole(value: &str) -> Option<u32> {
    // `parse` alone would take "+3".
    value
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| value.parse().ok())
        .flatten()
}

pub(super) fn number(value: &str) -> Option<f64> {
    value.parse::<f64>().ok().filter(|n| n.is_finite())
}
