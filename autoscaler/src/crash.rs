//! A test aid, there only with `--crash-on-request`: the process ends, as it would in a crash, right
//! after a write that the admin page `/crash` has named. So a test sees whether another replica can go
//! on from there.

use std::{fmt::Debug, sync::Arc};

use parking_lot::Mutex;

use crate::context::Key;

/// Where the process is to end, if anywhere. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Crash {
    /// `None` where the aid is off.
    wanted: Option<Arc<Mutex<Option<Wanted>>>>,
}

#[derive(Debug)]
struct Wanted {
    /// Namespace and name, as a [`Key`] shows itself.
    workload: String,
    /// A [`Purpose`](crate::purpose::Purpose), or the state that a new status tells of, by its name in the
    /// code.
    after: String,
}

// === impl Crash ===

impl Crash {
    /// Takes requests where `is_on`.
    #[must_use]
    pub fn new(is_on: bool) -> Self {
        Self {
            wanted: is_on.then(Arc::default),
        }
    }

    /// Takes the place of an earlier request: `workload=<namespace>/<name>&after=<write>`, and anything
    /// else for none; whether requests are taken at all.
    #[must_use]
    pub fn request(&self, query: &str) -> bool {
        let Some(wanted) = &self.wanted else {
            return false;
        };
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_owned())
        };
        let both = value("workload").zip(value("after"));
        *wanted.lock() = both.map(|(workload, after)| Wanted { workload, after });
        true
    }

    /// Ends the process where this write of `key` was named.
    pub(crate) fn wrote(&self, key: &Key, what: &dyn Debug) {
        if self.is_wanted(key, what) {
            tracing::error!(workload = %key, after = ?what, "ends here, as a test has asked");
            std::process::abort();
        }
    }

    fn is_wanted(&self, key: &Key, what: &dyn Debug) -> bool {
        let Some(wanted) = &self.wanted else {
            return false;
        };
        wanted.lock().as_ref().is_some_and(|wanted| {
            wanted.workload == key.to_string() && wanted.after == format!("{what:?}")
        })
    }
}

#[cfg(test)]
mod tests {
    use lull_contract::scaled_workload::State;

    use super::*;
    use crate::purpose::Purpose;

    #[test]
    fn only_the_named_write_of_the_named_workload_is_the_last_one() {
        let key = |name: &str| Key {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        };
        let crash = Crash::new(true);
        assert!(!crash.is_wanted(&key("shop"), &Purpose::WriteScale));
        assert!(crash.request("workload=ns/shop&after=WriteScale"));
        assert!(crash.is_wanted(&key("shop"), &Purpose::WriteScale));
        assert!(!crash.is_wanted(&key("shop"), &Purpose::WriteSlice));
        assert!(!crash.is_wanted(&key("other"), &Purpose::WriteScale));
        assert!(crash.request("workload=ns/shop&after=Asleep"));
        assert!(crash.is_wanted(&key("shop"), &State::Asleep));
        assert!(crash.request(""));
        assert!(!crash.is_wanted(&key("shop"), &State::Asleep));
    }

    #[test]
    fn nothing_is_taken_unless_it_was_started_so() {
        let crash = Crash::new(false);
        assert!(!crash.request("workload=ns/shop&after=WriteScale"));
    }
}
