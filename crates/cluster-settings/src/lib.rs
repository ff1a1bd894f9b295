//! The cluster-wide default settings, as one ConfigMap has them now.
//!
//! ```text
//! ConfigMap --watch--> validate --right--> Current, in a watch channel -> whoever resolves settings
//!                              \--wrong or gone--> what was right before stays; log, gauge, `rejected`
//! ```

use std::{fmt, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::Resource;
use lull_contract::annotations::{DefaultError, Defaults, Wanted};
use serde::Serialize;
use tokio::sync::watch;

mod watcher;

pub use watcher::Watcher;

/// How the settings in force are read, and their changes awaited.
pub type Settings = watch::Receiver<Arc<Current>>;

/// The settings in force.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Current {
    /// What workloads get that don't say it themselves.
    pub defaults: Arc<Defaults>,
    /// The ConfigMap that they come from, in its version; `None`: they are the built-in ones.
    pub source: Option<ObjectReference>,
    /// A newer edit that was not taken.
    pub rejected: Option<Rejected>,
}

/// An edit that was not taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rejected {
    /// The ConfigMap: with the version of the edit, or, where it was deleted, the one in force.
    #[serde(skip)]
    pub object: ObjectReference,
    /// What was done to it.
    #[serde(flatten)]
    pub edit: Edit,
}

/// What was done to the ConfigMap.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(
    tag = "edit",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Edit {
    /// It says what can't be taken.
    Wrong {
        /// Its version.
        resource_version: String,
        /// Everything that is wrong with it.
        faults: Vec<DefaultError>,
    },
    /// It was deleted.
    Deleted,
}

/// What the page `/config` says about the settings.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Page<'a> {
    resource_version: Option<&'a str>,
    values: &'a Defaults,
    /// What a workload gets whose annotations say nothing.
    effective: Wanted,
    rejected: Option<&'a Rejected>,
}

// === impl Current ===

impl Current {
    /// For `/config`.
    #[must_use]
    pub fn page(&self) -> Page<'_> {
        Page {
            resource_version: self.resource_version(),
            values: &self.defaults,
            effective: self.defaults.effective(),
            rejected: self.rejected.as_ref(),
        }
    }

    /// Version of the ConfigMap that they come from; `None`: they are the built-in ones.
    #[must_use]
    pub fn resource_version(&self) -> Option<&str> {
        let source = self.source.as_ref();
        source.and_then(|source| source.resource_version.as_deref())
    }

    /// What is in force once the ConfigMap was seen as `seen` (`None`: there is none).
    ///
    /// `last` is what was before. At the start there is nothing that could be kept: of a map that is
    /// wrong then, what is right is taken, so that one wrong value does not undo all others.
    fn after(last: Option<&Self>, seen: Option<&ConfigMap>) -> Self {
        let Some(map) = seen else {
            return last.map_or_else(Self::default, Self::without_map);
        };
        let data = map.data.clone().unwrap_or_default();
        let resource_version = map.metadata.resource_version.clone().unwrap_or_default();
        // Events about different versions are different Events.
        let object = ObjectReference {
            resource_version: Some(resource_version.clone()),
            ..map.object_ref(&())
        };
        let taken = |defaults| Self {
            defaults: Arc::new(defaults),
            source: Some(object.clone()),
            rejected: None,
        };
        match Defaults::parse(&data) {
            Ok(defaults) => taken(defaults),
            Err(faults) => {
                let kept = last
                    .cloned()
                    .unwrap_or_else(|| taken(Defaults::what_is_right(&data)));
                let edit = Edit::Wrong {
                    resource_version,
                    faults,
                };
                Self {
                    rejected: Some(Rejected { object, edit }),
                    ..kept
                }
            }
        }
    }

    /// What is in force once the ConfigMap is gone: what it said, if there was one. Somebody who wants
    /// the built-in values empties it.
    fn without_map(&self) -> Self {
        let edit = Edit::Deleted;
        Self {
            rejected: self.source.clone().map(|object| Rejected { object, edit }),
            ..self.clone()
        }
    }
}

// === impl Rejected ===

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = match &self.edit {
            Edit::Deleted => {
                return f.write_str("it was deleted; make it anew, empty for the built-in values");
            }
            Edit::Wrong { faults, .. } => faults,
        };
        for (index, fault) in faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lull_contract::HumanDuration;
    use serde_json::json;

    use super::*;

    fn map(version: &str, data: &serde_json::Value) -> ConfigMap {
        serde_json::from_value(json!({
            "metadata": {
                "name": "lull-settings", "namespace": "lull", "resourceVersion": version,
            },
            "data": data,
        }))
        .unwrap()
    }

    fn window(current: &Current) -> HumanDuration {
        current.defaults.effective().settings.window
    }

    #[test]
    fn a_right_edit_is_taken_and_a_wrong_one_keeps_what_was() {
        let good = Current::after(None, Some(&map("1", &json!({ "window": "30s" }))));
        assert_eq!(window(&good), HumanDuration::from_secs(30));
        assert_eq!(good.rejected, None);

        let bad = Current::after(Some(&good), Some(&map("2", &json!({ "window": "soon" }))));
        assert_eq!(bad.defaults, good.defaults);
        assert_eq!(bad.resource_version(), Some("1"));
        let rejected = bad.rejected.clone().expect("a rejected edit");
        assert_eq!(rejected.object.resource_version.as_deref(), Some("2"));
        assert_eq!(rejected.object.name.as_deref(), Some("lull-settings"));
        let text = rejected.to_string();
        assert!(
            text.starts_with("window=\"soon\": must be a duration from 6s"),
            "{text}"
        );

        let again = Current::after(Some(&bad), Some(&map("3", &json!({ "window": "40s" }))));
        assert_eq!(window(&again), HumanDuration::from_secs(40));
        assert_eq!(again.rejected, None);
    }

    #[test]
    fn a_deleted_map_keeps_what_was_until_there_is_one_again() {
        let good = Current::after(None, Some(&map("1", &json!({ "window": "30s" }))));
        let wrong = Current::after(Some(&good), Some(&map("2", &json!({ "window": "soon" }))));
        for last in [&good, &wrong] {
            let gone = Current::after(Some(last), None);
            assert_eq!(
                (&gone.defaults, &gone.source),
                (&good.defaults, &good.source)
            );
            let rejected = gone.rejected.clone().expect("a rejected edit");
            assert_eq!(rejected.edit, Edit::Deleted);
            assert_eq!(rejected.object.name.as_deref(), Some("lull-settings"));
            assert_eq!(Current::after(Some(&gone), None), gone);
            let page = serde_json::to_value(gone.page()).unwrap();
            assert_eq!(page["rejected"], json!({ "edit": "deleted" }));
            let empty = Current::after(Some(&gone), Some(&map("3", &json!({}))));
            assert_eq!((empty.defaults, empty.rejected), (Arc::default(), None));
        }
    }

    #[test]
    fn where_there_was_no_map_the_built_in_values_hold() {
        let none = Current::after(None, None);
        assert_eq!(none, Current::default());
        assert_eq!(Current::after(Some(&none), None), none);
        let empty = Current::after(None, Some(&map("1", &json!(null))));
        assert_eq!(empty.defaults, Arc::default());
    }

    #[test]
    fn at_the_start_what_is_right_of_a_wrong_map_is_taken() {
        let mixed = map("7", &json!({ "window": "soon", "timeout": "20s" }));
        let current = Current::after(None, Some(&mixed));
        let settings = current.defaults.effective().settings;
        assert_eq!(settings.window, HumanDuration::from_secs(60));
        assert_eq!(settings.timeout, HumanDuration::from_secs(20));
        assert!(current.rejected.is_some());
    }

    #[test]
    fn the_page_shows_values_source_and_faults() {
        let good = Current::after(None, Some(&map("1", &json!({ "window": "30s" }))));
        let bad = Current::after(Some(&good), Some(&map("2", &json!({ "window": "soon" }))));
        let page = serde_json::to_value(bad.page()).unwrap();
        assert_eq!(page["resourceVersion"], "1");
        assert_eq!(page["values"], json!({ "window": "30s" }));
        assert_eq!(page["effective"]["settings"]["window"], "30s");
        assert_eq!(page["rejected"]["edit"], "wrong");
        assert_eq!(page["rejected"]["resourceVersion"], "2");
        let fault = &page["rejected"]["faults"][0];
        assert_eq!(
            (&fault["key"], &fault["value"]),
            (&json!("window"), &json!("soon"))
        );
        assert!(fault["allowed"].as_str().unwrap().starts_with("must be"));
    }
}
