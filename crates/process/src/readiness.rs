//! Ready when every named part is: what is missing can be asked for.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;

/// The parts of a process that are not ready yet.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    pending: Arc<Mutex<BTreeSet<String>>>,
}

/// A part that is not ready; dropping it says that it is.
#[derive(Debug)]
#[must_use = "dropping the guard says that the part is ready"]
pub struct Pending {
    name: String,
    readiness: Readiness,
}

// === impl Readiness ===

impl Readiness {
    /// Names a part that must be ready first. Names are unique within a process.
    pub fn expect(&self, name: &str) -> Pending {
        self.pending.lock().insert(name.to_owned());
        Pending {
            name: name.to_owned(),
            readiness: self.clone(),
        }
    }

    /// Names of the parts that are missing; empty = ready.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.pending.lock().iter().cloned().collect()
    }
}

// === impl Pending ===

impl Drop for Pending {
    fn drop(&mut self) {
        self.readiness.pending.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_part_is() {
        let readiness = Readiness::default();
        let (pods, ports) = (readiness.expect("pods"), readiness.expect("ports"));
        assert_eq!(readiness.missing(), ["pods", "ports"]);
        drop(pods);
        assert_eq!(readiness.missing(), ["ports"]);
        drop(ports);
        assert!(readiness.missing().is_empty());
    }
}
