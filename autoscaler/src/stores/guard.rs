//! Objects that can't be read, as one may be that a newer version has written: each is told of once and
//! keeps no other from being read. What was known of it holds; nothing is taken for deleted.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use kube::{
    Resource,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::watcher::Event,
};
use prometheus_client::metrics::gauge::Gauge;

use super::place;
use crate::cache::Writer;

/// Namespace and name.
type Place = (String, String);

/// Reads the objects of one watch.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// Those that can't be read, and why, which has been told.
    told: BTreeMap<Place, String>,
    /// Those of the list that is under way.
    listed: BTreeSet<Place>,
    /// How many there are.
    count: Gauge,
}

// === impl Guard ===

impl Guard {
    /// All could be read so far; `count` shows how many can't.
    pub(super) fn new(count: Gauge) -> Self {
        Self {
            count,
            ..Self::default()
        }
    }

    /// What `event` says of an object that can be read, or of which something is known; of any other
    /// `writer` takes note that it is there.
    pub(super) fn read<K>(
        &mut self,
        event: Event<DeserializeGuard<K>>,
        writer: &mut Writer<K>,
    ) -> Option<Event<K>>
    where
        K: Resource<DynamicType = ()> + Clone,
    {
        let event = match event {
            Event::Init => {
                self.listed.clear();
                Some(Event::Init)
            }
            Event::InitApply(object) => self.there(object, writer).map(Event::InitApply),
            Event::InitDone => {
                let listed = mem::take(&mut self.listed);
                self.told.retain(|place, _| listed.contains(place));
                Some(Event::InitDone)
            }
            Event::Apply(object) => self.there(object, writer).map(Event::Apply),
            Event::Delete(object) => self.gone(object, writer).map(Event::Delete),
        };
        let count = i64::try_from(self.told.len()).unwrap_or(i64::MAX);
        self.count.set(count);
        event
    }

    /// The object, where it can't be read with what is known of it in the place of what it says.
    fn there<K>(
        &mut self,
        DeserializeGuard(object): DeserializeGuard<K>,
        writer: &mut Writer<K>,
    ) -> Option<K>
    where
        K: Resource<DynamicType = ()> + Clone,
    {
        let InvalidObject { error, metadata } = match object {
            Ok(object) => {
                self.is_read::<K>(&object);
                return Some(object);
            }
            Err(invalid) => invalid,
        };
        let place = (
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        );
        // One that was made anew under the same name is another one.
        let known = known(writer, &place).filter(|known| known.meta().uid == metadata.uid);
        self.listed.insert(place.clone());
        self.tell::<K>(place.clone(), error, known.is_some());
        let Some(known) = known else {
            writer.leave_out(place);
            return None;
        };
        let mut object = K::clone(&known);
        *object.meta_mut() = metadata;
        Some(object)
    }

    /// The object that is gone, as it was last, where that is known.
    fn gone<K>(&mut self, object: DeserializeGuard<K>, writer: &mut Writer<K>) -> Option<K>
    where
        K: Resource<DynamicType = ()> + Clone,
    {
        let place = place(&object);
        self.told.remove(&place);
        if let Ok(object) = object.0 {
            return Some(object);
        }
        let known = known(writer, &place);
        if known.is_none() {
            writer.forget(&place);
        }
        known.map(|known| K::clone(&known))
    }

    /// Once for each object, and again where something else is wrong with it.
    fn tell<K: Resource<DynamicType = ()>>(&mut self, place: Place, error: String, is_known: bool) {
        if self.told.get(&place) == Some(&error) {
            return;
        }
        let (kind, (namespace, name)) = (K::kind(&()), &place);
        if is_known {
            tracing::warn!(
                %kind, namespace, name, error,
                "object can't be read: what was known of it holds"
            );
        } else {
            tracing::warn!(
                %kind, namespace, name, error,
                "object can't be read, and nothing is known of it: it is left alone"
            );
        }
        self.told.insert(place, error);
    }

    fn is_read<K: Resource<DynamicType = ()>>(&mut self, object: &K) {
        // So it is for nearly every one.
        if self.told.is_empty() {
            return;
        }
        let place = place(object);
        if self.told.remove(&place).is_some() {
            let (kind, (namespace, name)) = (K::kind(&()), &place);
            tracing::info!(%kind, namespace, name, "object can be read again");
        }
    }
}

/// What is known of the object at this place.
fn known<K>(writer: &Writer<K>, (namespace, name): &Place) -> Option<Arc<K>> {
    writer.cache().get(namespace, name)
}

#[cfg(test)]
mod tests {
    use lull_contract::{
        Settings,
        scaled_workload::{ScaledWorkload, State},
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        cache::{Cache, Found},
        stores::by_name,
    };

    /// What the watch gets of an object of this name and uid; one whose state is odd can't be read.
    fn sent(name: &str, uid: &str, state: &str) -> DeserializeGuard<ScaledWorkload> {
        let metadata = json!({ "name": name, "namespace": "ns", "uid": uid });
        serde_json::from_value(object(&metadata, state)).unwrap()
    }

    fn object(metadata: &Value, state: &str) -> Value {
        json!({
            "apiVersion": "lull.dev/v1alpha1", "kind": "ScaledWorkload", "metadata": metadata,
            "spec": {
                "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "u" },
                "podSelector": {}, "ports": [], "settings": Settings::default(),
                "originalReplicas": 1,
            },
            "status": { "state": state },
        })
    }

    /// A guard with the cache behind it.
    struct Watch {
        guard: Guard,
        writer: Writer<ScaledWorkload>,
        cache: Cache<ScaledWorkload>,
    }

    impl Watch {
        fn new() -> Self {
            let writer = Writer::new(by_name(|_| None));
            Self {
                guard: Guard::default(),
                cache: writer.cache(),
                writer,
            }
        }

        fn take(&mut self, event: Event<DeserializeGuard<ScaledWorkload>>) {
            if let Some(event) = self.guard.read(event, &mut self.writer) {
                self.writer.take(event);
            }
        }

        fn list(&mut self, objects: &[(&str, &str)]) {
            self.take(Event::Init);
            for (name, state) in objects {
                self.take(Event::InitApply(sent(name, "1", state)));
            }
            self.take(Event::InitDone);
        }

        /// What is known of the state of the object of this name.
        fn seen(&self, name: &str) -> Seen {
            match self.cache.look_up("ns", name) {
                Found::Known(known) => Seen::State(known.status.clone().unwrap_or_default().state),
                Found::Unread => Seen::Unread,
                Found::Nothing => Seen::Nothing,
            }
        }

        fn unread(&self) -> i64 {
            self.guard.count.get()
        }
    }

    #[derive(Debug, PartialEq)]
    enum Seen {
        State(State),
        Unread,
        Nothing,
    }

    #[test]
    fn one_that_cannot_be_read_keeps_no_other_of_a_list_from_being_read() {
        let mut watch = Watch::new();
        watch.list(&[("a", "Awake"), ("b", "Dreaming"), ("c", "Asleep")]);
        let seen = ["a", "b", "c", "d"].map(|name| watch.seen(name));
        let expected = [
            Seen::State(State::Awake),
            Seen::Unread,
            Seen::State(State::Asleep),
            Seen::Nothing,
        ];
        assert_eq!(seen, expected);
        assert_eq!(watch.unread(), 1);
    }

    #[test]
    fn what_was_known_holds_through_changes_and_lists_and_its_metadata_follows() {
        let mut watch = Watch::new();
        watch.list(&[("a", "Awake"), ("b", "Asleep")]);
        let mut odd = sent("b", "1", "Dreaming");
        odd.meta_mut().resource_version = Some("7".to_owned());
        watch.take(Event::Apply(odd));
        assert_eq!(watch.seen("b"), Seen::State(State::Asleep));
        let known = watch.cache.get("ns", "b").unwrap();
        assert_eq!(known.metadata.resource_version.as_deref(), Some("7"));
        watch.list(&[("a", "Awake"), ("b", "Dreaming")]);
        assert_eq!(watch.seen("b"), Seen::State(State::Asleep));
        assert_eq!(watch.unread(), 1);
        watch.take(Event::Apply(sent("b", "1", "Waking")));
        assert_eq!(watch.seen("b"), Seen::State(State::Waking));
        assert_eq!(watch.unread(), 0);
    }

    #[test]
    fn one_that_was_made_anew_is_not_taken_for_the_one_before() {
        let mut watch = Watch::new();
        watch.list(&[("a", "Asleep")]);
        watch.take(Event::Apply(sent("a", "2", "Dreaming")));
        assert_eq!(watch.seen("a"), Seen::Unread);
    }

    #[test]
    fn one_that_cannot_be_read_is_gone_when_it_is_deleted() {
        let mut watch = Watch::new();
        watch.list(&[("a", "Awake"), ("b", "Dreaming"), ("c", "Dreaming")]);
        watch.take(Event::Apply(sent("a", "1", "Dreaming")));
        assert_eq!(watch.unread(), 3);
        watch.take(Event::Delete(sent("a", "1", "Dreaming")));
        watch.take(Event::Delete(sent("b", "1", "Dreaming")));
        watch.take(Event::Delete(sent("c", "1", "Awake")));
        for name in ["a", "b", "c"] {
            assert_eq!(watch.seen(name), Seen::Nothing, "{name}");
        }
        assert_eq!(watch.unread(), 0);
    }

    #[test]
    fn one_that_a_new_list_no_longer_holds_is_gone() {
        let mut watch = Watch::new();
        watch.list(&[("a", "Awake"), ("b", "Dreaming")]);
        watch.list(&[("a", "Awake")]);
        assert_eq!(watch.seen("b"), Seen::Nothing);
        assert_eq!(watch.unread(), 0);
    }

    #[test]
    fn one_is_told_of_once_and_again_where_something_else_is_wrong() {
        let mut watch = Watch::new();
        let told = |watch: &Watch| watch.guard.told.values().cloned().collect::<Vec<_>>();
        watch.list(&[("a", "Dreaming")]);
        let first = told(&watch);
        assert!(first[0].contains("Dreaming"), "{first:?}");
        watch.list(&[("a", "Dreaming")]);
        assert_eq!(told(&watch), first);
        watch.take(Event::Apply(sent("a", "1", "Drowsy")));
        assert!(told(&watch)[0].contains("Drowsy"));
    }
}
