//! Configuration from environment variables, with every fault reported at once.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// Exit code for wrong configuration (BSD `EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;

/// Where variables come from: the process or, in tests, a map.
pub trait EnvSource {
    /// Value of `key`, if it is set and not empty.
    fn get(&self, key: &str) -> Option<String>;
}

/// The process's own environment.
#[derive(Debug, Clone, Copy)]
pub struct ProcessEnv;

/// One wrong or missing variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Name of the variable.
    pub key: String,
    /// Its value, if it had one.
    pub value: Option<String>,
    /// What is allowed, as a sentence part.
    pub allowed: String,
}

/// Every fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration is wrong:{}", .0.iter().map(|f| format!("\n  {f}")).collect::<String>())]
pub struct Faults(pub Vec<Fault>);

/// Reads variables and collects faults; ask [`Reader::finish`] at the end.
pub struct Reader<'a> {
    source: &'a dyn EnvSource,
    faults: Vec<Fault>,
}

// === impl EnvSource ===

impl EnvSource for ProcessEnv {
    fn get(&self, key: &str) -> Option<String> {
        std::env::var(key).ok().filter(|value| !value.is_empty())
    }
}

impl EnvSource for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<String> {
        Self::get(self, key)
            .filter(|value| !value.is_empty())
            .cloned()
    }
}

// === impl Fault ===

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value:?}: {}", self.key, self.allowed),
            None => write!(f, "{} is not set: {}", self.key, self.allowed),
        }
    }
}

// === impl Reader ===

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    /// Reads from `source`.
    #[must_use]
    pub fn new(source: &'a dyn EnvSource) -> Self {
        Self {
            source,
            faults: Vec::new(),
        }
    }

    /// The value of `key` read by `parse`; a wrong one is a fault and counts as absent.
    pub fn read_with<T>(
        &mut self,
        key: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.source.get(key)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            self.fault(key, Some(value), allowed);
        }
        parsed
    }

    /// The value of `key`, or `default` where it is not set.
    pub fn read_or<T: FromStr>(&mut self, key: &str, default: T, allowed: &str) -> T {
        self.read_with(key, allowed, |value| value.parse().ok())
            .unwrap_or(default)
    }

    /// The value of `key`, which must be set; `placeholder` goes on in its place after a fault.
    pub fn require<T: FromStr>(&mut self, key: &str, placeholder: T, allowed: &str) -> T {
        if self.source.get(key).is_none() {
            self.fault(key, None, allowed);
        }
        self.read_or(key, placeholder, allowed)
    }

    /// Adds a fault that a cross-check found.
    pub fn fault(&mut self, key: &str, value: Option<String>, allowed: &str) {
        self.faults.push(Fault {
            key: key.to_owned(),
            value,
            allowed: allowed.to_owned(),
        });
    }

    /// `config`, unless there was a fault.
    ///
    /// # Errors
    /// Every fault that was found.
    pub fn finish<T>(self, config: T) -> Result<T, Faults> {
        if self.faults.is_empty() {
            Ok(config)
        } else {
            Err(Faults(self.faults))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_listed_with_key_value_and_what_is_allowed() {
        let env = BTreeMap::from([
            ("A".to_owned(), "x".to_owned()),
            ("C".to_owned(), "7".to_owned()),
        ]);
        let mut reader = Reader::new(&env);
        reader.read_or("A", 1u32, "must be a whole number");
        reader.require("B", 1u32, "must be a port");
        assert_eq!(reader.read_or("C", 1u32, "must be a whole number"), 7);
        let text = reader.finish(()).unwrap_err().to_string();
        assert!(text.contains("A=\"x\": must be a whole number"), "{text}");
        assert!(text.contains("B is not set: must be a port"), "{text}");
    }
}
