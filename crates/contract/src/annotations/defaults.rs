//! Cluster-wide default settings: a ConfigMap whose keys are those of the annotations, without the
//! prefix (`window: 30s`).

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{AnnotationError, Annotations, PREFIX, Wanted, read_shared, reader::Reader};

/// Values for what a workload's own annotations don't say, each valid, and all together. Empty: the
/// built-in values.
///
/// As JSON it is the ConfigMap's `data`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// By the whole annotation key.
    pub(super) values: Annotations,
}

/// One wrong entry of the ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{key}={value:?}: {allowed}")]
#[serde(rename_all = "camelCase")]
pub struct DefaultError {
    /// The key in the ConfigMap.
    pub key: String,
    /// The value as given, its first 80 characters.
    pub value: String,
    /// What is allowed, as a sentence part.
    pub allowed: String,
}

// === impl Defaults ===

impl Defaults {
    /// Reads a ConfigMap's `data`.
    ///
    /// # Errors
    /// Every wrong value, and every key that is unknown or that only a workload itself can have, in
    /// the order of the keys' names.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self, Vec<DefaultError>> {
        let values: Annotations = data
            .iter()
            .map(|(key, value)| (format!("{PREFIX}{key}"), value.clone()))
            .collect();
        let nothing = Annotations::new();
        let mut reader = Reader::new(&values, &nothing);
        read_shared(&mut reader, None);
        reader.refuse_unread(
            &[],
            "is not a key that has a cluster-wide value; those that have one are",
        );
        match reader.finish(()) {
            Ok(()) => Ok(Self { values }),
            Err(errors) => Err(errors.into_iter().map(DefaultError::from).collect()),
        }
    }

    /// What of a ConfigMap's `data` is right, where not all of it is.
    #[must_use]
    pub fn what_is_right(data: &BTreeMap<String, String>) -> Self {
        let faults = match Self::parse(data) {
            Ok(defaults) => return defaults,
            Err(faults) => faults,
        };
        let mut rest = data.clone();
        rest.retain(|key, _| faults.iter().all(|fault| fault.key != *key));
        // Of two that clash one has gone, and what has gone takes no other value's ground away.
        Self::parse(&rest).unwrap_or_default()
    }

    /// What a workload gets whose annotations say nothing.
    #[must_use]
    pub fn effective(&self) -> Wanted {
        read_shared(&mut Reader::new(&Annotations::new(), &self.values), None)
    }
}

impl Serialize for Defaults {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.values
                .iter()
                .map(|(key, value)| (key.strip_prefix(PREFIX).unwrap_or(key), value)),
        )
    }
}

// === impl DefaultError ===

impl From<AnnotationError> for DefaultError {
    fn from(error: AnnotationError) -> Self {
        Self {
            key: error
                .key
                .strip_prefix(PREFIX)
                .unwrap_or(&error.key)
                .to_owned(),
            // It may name another key.
            allowed: error.allowed.replace(PREFIX, ""),
            value: error.value,
        }
    }
}

#[cfg(test)]
mod tests;
