//! Events: what `kubectl describe` tells of an object.
//!
//! One that says what another of late said of the same object is counted with that one. Whatever
//! differs, if only in its note, is an Event of its own: the API server lets nobody change the note
//! of one that is there, and kube's own recorder counts all notes of one reason as the first.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::json;

/// Who reports, for all replicas.
const CONTROLLER: &str = "lull-autoscaler";
/// After so long without the same news an Event begins anew, as with Kubernetes' own recorders.
const LATELY: SignedDuration = SignedDuration::from_mins(6);
/// Between two looks for what is not of late any more.
const SWEEP_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// Longest note, bytes (`validation` of Kubernetes' events.k8s.io/v1).
const MAX_NOTE: usize = 1024;
/// As much of an object's name as is in its Events' names, bytes: with the number behind it, a name
/// has at most 253 (DNS subdomain, RFC 1123).
const MAX_OBJECT: usize = 200;

/// Something to tell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct News {
    /// What it is about.
    pub(crate) regarding: ObjectReference,
    /// Another object that plays a part in it.
    pub(crate) related: Option<ObjectReference>,
    pub(crate) is_warning: bool,
    /// One word.
    pub(crate) reason: String,
    pub(crate) note: String,
    /// By what another replica, which may tell it as well, knows that it is the same: the first one
    /// that tells it does.
    pub(crate) identity: Option<u64>,
}

/// How news becomes an Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Name of the Event.
    name: String,
    /// How often it has been told, with this time: 1 makes the Event.
    count: i32,
    /// When it was told last.
    at: Timestamp,
}

/// Writes Events. Clones know of each other's.
#[derive(Clone)]
pub(crate) struct Recorder {
    client: Client,
    /// Name of this replica.
    instance: String,
    lately: Arc<Mutex<Lately>>,
}

/// What was told lately.
#[derive(Debug)]
struct Lately {
    /// By everything that must be the same.
    told: HashMap<String, Told>,
    swept: Timestamp,
    /// The number in the newest name.
    number: i128,
}

// === impl News ===

impl News {
    /// What two must have in common to be one Event.
    fn key(&self) -> String {
        let (kind, about) = (self.is_warning, (&self.regarding, &self.related));
        json!([kind, self.reason, about, self.note]).to_string()
    }

    fn event(&self, told: &Told, instance: &str) -> Event {
        let kind = if self.is_warning { "Warning" } else { "Normal" };
        Event {
            metadata: ObjectMeta {
                name: Some(told.name.clone()),
                namespace: self.regarding.namespace.clone(),
                ..ObjectMeta::default()
            },
            action: Some(self.reason.clone()),
            event_time: Some(MicroTime(told.at)),
            note: Some(bounded(&self.note)),
            reason: Some(self.reason.clone()),
            regarding: Some(self.regarding.clone()),
            related: self.related.clone(),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(instance.to_owned()),
            type_: Some(kind.to_owned()),
            ..Event::default()
        }
    }
}

/// As long as the API server takes it.
fn bounded(note: &str) -> String {
    const MORE: &str = "...";
    if note.len() <= MAX_NOTE {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(MAX_NOTE - MORE.len());
    format!("{}{MORE}", &note[..end])
}

// === impl Recorder ===

impl Recorder {
    /// Reports as `instance`, the name of this replica.
    pub(crate) fn new(client: Client, instance: String) -> Self {
        Self {
            client,
            instance,
            lately: Arc::new(Mutex::new(Lately::new(Timestamp::now()))),
        }
    }

    /// Takes note of `news`, which is told now; it is to be written.
    pub(crate) fn take(&self, news: &News) -> Told {
        self.lately.lock().take(news, Timestamp::now())
    }

    /// Writes `news` as it was taken note of.
    ///
    /// # Errors
    /// The API server's; it is told anew next time.
    pub(crate) async fn write(&self, news: &News, told: &Told) -> kube::Result<()> {
        let namespace = news.regarding.namespace.as_deref().unwrap_or("default");
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let written = if told.count == 1 {
            let event = news.event(told, &self.instance);
            events.create(&PostParams::default(), &event).await
        } else {
            let series = EventSeries {
                count: told.count,
                last_observed_time: MicroTime(told.at),
            };
            let (params, patch) = (PatchParams::default(), json!({ "series": series }));
            events
                .patch(&told.name, &params, &Patch::Merge(&patch))
                .await
        };
        match written {
            Err(error) if news.identity.is_some() && is_there(&error) => Ok(()),
            Err(error) => {
                // It may be gone, or never have been there.
                self.lately.lock().told.remove(&news.key());
                Err(error)
            }
            Ok(_) => Ok(()),
        }
    }
}

/// Whether there is such an object already.
fn is_there(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

// === impl Lately ===

impl Lately {
    fn new(now: Timestamp) -> Self {
        Self {
            told: HashMap::new(),
            swept: now,
            number: 0,
        }
    }

    fn take(&mut self, news: &News, now: Timestamp) -> Told {
        let is_recent = |told: &Told| now.duration_since(told.at) < LATELY;
        if now.duration_since(self.swept) >= SWEEP_EVERY {
            self.told.retain(|_, told| is_recent(told));
            self.swept = now;
        }
        let key = news.key();
        let told = match self.told.get(&key) {
            Some(before) if is_recent(before) => Told {
                name: before.name.clone(),
                count: before.count.saturating_add(1),
                at: now,
            },
            _ => Told {
                name: self.name(news, now),
                count: 1,
                at: now,
            },
        };
        self.told.insert(key, told.clone());
        told
    }

    /// A name that no other Event has: the time, or where that is not new, the next number. What has
    /// an identity has the same name for every replica.
    fn name(&mut self, news: &News, now: Timestamp) -> String {
        let object = news.regarding.name.as_deref().unwrap_or(CONTROLLER);
        let object = &object[..object.floor_char_boundary(MAX_OBJECT)];
        // What stands before a dot ends with a letter or a digit.
        let object = object.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if let Some(identity) = news.identity {
            return format!("{object}.once-{identity:x}");
        }
        self.number = now.as_nanosecond().max(self.number + 1);
        format!("{object}.{:x}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(note: &str) -> News {
        News {
            regarding: ObjectReference {
                kind: Some("Deployment".to_owned()),
                name: Some("shop".to_owned()),
                namespace: Some("team".to_owned()),
                ..ObjectReference::default()
            },
            related: None,
            is_warning: false,
            reason: "Scaled".to_owned(),
            note: note.to_owned(),
            identity: None,
        }
    }

    fn after(begin: Timestamp, secs: i64) -> Timestamp {
        begin + SignedDuration::from_secs(secs)
    }

    #[test]
    fn the_same_news_is_counted_and_another_note_is_seen() {
        let begin = Timestamp::UNIX_EPOCH;
        let mut lately = Lately::new(begin);
        let first = lately.take(&news("from 1 to 2"), after(begin, 1));
        let other = lately.take(&news("from 2 to 3"), after(begin, 2));
        let again = lately.take(&news("from 1 to 2"), after(begin, 3));
        assert_eq!((first.count, other.count, again.count), (1, 1, 2));
        assert_ne!(first.name, other.name);
        assert_eq!(first.name, again.name);
        let about_another = News {
            related: Some(ObjectReference::default()),
            ..news("from 1 to 2")
        };
        assert_eq!(lately.take(&about_another, after(begin, 4)).count, 1);
    }

    #[test]
    fn what_was_told_long_ago_begins_anew_and_is_forgotten() {
        let begin = Timestamp::UNIX_EPOCH;
        let mut lately = Lately::new(begin);
        let first = lately.take(&news("idle"), after(begin, 1));
        let kept = lately.take(&news("idle"), after(begin, 300));
        assert_eq!((kept.count, &kept.name), (2, &first.name));
        let anew = lately.take(&news("idle"), after(begin, 660));
        assert_eq!(anew.count, 1);
        assert_ne!(anew.name, first.name);
        lately.take(&news("busy"), after(begin, 2_000));
        assert_eq!(lately.told.len(), 1);
    }

    #[test]
    fn two_events_of_one_moment_have_two_names() {
        let now = Timestamp::UNIX_EPOCH;
        let mut lately = Lately::new(now);
        let (a, b) = (lately.take(&news("a"), now), lately.take(&news("b"), now));
        assert_ne!(a.name, b.name);
    }

    #[test]
    fn what_two_replicas_may_tell_has_one_name() {
        let now = Timestamp::UNIX_EPOCH;
        let name = |note: &str, identity: u64, secs: i64| {
            let news = News {
                identity: Some(identity),
                ..news(note)
            };
            // Each replica has a memory of its own.
            Lately::new(now).take(&news, after(now, secs)).name
        };
        let first = name("woken", 7, 1);
        assert_eq!(first, "shop.once-7");
        assert_eq!(name("woken, as another saw it", 7, 2), first);
        assert_ne!(name("woken", 8, 2), first);
    }

    #[test]
    fn only_what_is_there_already_is_told_by_another() {
        let refused = |code: u16| {
            let status = json!({ "code": code, "reason": "" });
            let status: kube::core::Status = serde_json::from_value(status).unwrap();
            kube::Error::Api(status.into())
        };
        assert!(is_there(&refused(409)));
        assert!(!is_there(&refused(403)));
    }

    #[test]
    fn an_event_of_an_object_with_a_long_name_has_a_name_that_is_taken() {
        let mut lately = Lately::new(Timestamp::UNIX_EPOCH);
        let mut news = news("idle");
        let name = format!("{}-{}", "a".repeat(MAX_OBJECT - 1), "b".repeat(53));
        assert_eq!(name.len(), 253, "the longest that there is");
        news.regarding.name = Some(name);
        let told = lately.take(&news, Timestamp::now());
        let (object, number) = told.name.rsplit_once('.').unwrap();
        assert_eq!(object, "a".repeat(MAX_OBJECT - 1));
        assert!(
            told.name.len() <= 253 && !number.is_empty(),
            "{}",
            told.name
        );
    }

    #[test]
    fn an_event_has_what_the_api_server_asks_for() {
        let mut lately = Lately::new(Timestamp::UNIX_EPOCH);
        let news = News {
            is_warning: true,
            ..news("from 1 to 2")
        };
        let told = lately.take(&news, Timestamp::UNIX_EPOCH);
        let event = serde_json::to_value(news.event(&told, "autoscaler-1")).unwrap();
        for (field, expected) in [
            ("action", "Scaled"),
            ("reason", "Scaled"),
            ("note", "from 1 to 2"),
            ("type", "Warning"),
            ("reportingController", CONTROLLER),
            ("reportingInstance", "autoscaler-1"),
        ] {
            assert_eq!(event[field], expected, "{field}");
        }
        assert_eq!(event["metadata"]["namespace"], "team");
        assert_eq!(event["regarding"]["name"], "shop");
        assert!(event["eventTime"].is_string(), "{event}");
    }

    #[test]
    fn a_long_note_is_cut_between_two_characters() {
        assert_eq!(bounded("short"), "short");
        let cut = bounded(&"\u{e9}".repeat(MAX_NOTE));
        assert!(cut.len() <= MAX_NOTE && cut.ends_with("\u{e9}..."));
    }
}
