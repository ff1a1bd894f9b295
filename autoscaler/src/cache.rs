//! What a watch has told, found by namespace, name or group without looking at anything else.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kube::runtime::watcher::Event;
use parking_lot::RwLock;

/// Objects of one kind. Clones share them.
#[derive(Debug)]
pub struct Cache<K> {
    shared: Arc<Shared<K>>,
}

#[derive(Debug)]
struct Shared<K> {
    keys: Keys<K>,
    known: RwLock<Index<K>>,
}

/// By what objects are found.
#[derive(Debug)]
pub(crate) struct Keys<K> {
    /// Namespace and name.
    pub(crate) place: fn(&K) -> (String, String),
    /// Objects of a namespace with one answer are found together.
    pub(crate) group: fn(&K) -> Option<&str>,
    /// Objects with one answer have one [`Cache::version`].
    pub(crate) part: fn(&K) -> &str,
    /// Of an object as it was and as it is: whether plans are made from the same of both, which is
    /// then no other [`Cache::version`].
    pub(crate) alike: fn(&K, &K) -> bool,
}

/// Name to object, in each namespace.
#[derive(Debug)]
struct Index<K> {
    namespaces: HashMap<String, Names<K>>,
    /// Namespace and group.
    groups: HashMap<(String, String), Names<K>>,
    /// Namespace and name of objects that can't be read and of which nothing is known.
    unread: HashSet<(String, String)>,
    /// Changes so far, lists that were complete among them.
    changes: u64,
    /// What that was at the last list.
    listed: u64,
    /// And at each part's last change since.
    changed: HashMap<String, u64>,
}

type Names<K> = HashMap<String, Arc<K>>;

/// Fills a [`Cache`] from a watch.
#[derive(Debug)]
pub(crate) struct Writer<K> {
    cache: Cache<K>,
    /// A list that is not complete yet; what was known holds until it is.
    listing: Option<Index<K>>,
}

/// What is known of an object.
#[derive(Debug)]
pub enum Found<K> {
    /// What it says.
    Known(Arc<K>),
    /// That it is there, and no more: it can't be read.
    Unread,
    /// It is not there.
    Nothing,
}

/// What became of an event.
#[derive(Debug)]
pub(crate) struct Taken<K> {
    /// Plans are made from something else with it.
    pub(crate) is_news: bool,
    /// What was known of its object. A list takes the place of everything, and of nothing in
    /// particular.
    pub(crate) replaced: Option<Arc<K>>,
}

// === impl Keys ===

impl<K> Clone for Keys<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Keys<K> {}

// === impl Cache ===

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        let shared = Arc::clone(&self.shared);
        Self { shared }
    }
}

impl<K> Cache<K> {
    /// The object of this name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let known = self.shared.known.read();
        known.namespaces.get(namespace)?.get(name).cloned()
    }

    /// The same where an object that can't be read must not be taken for none.
    #[must_use]
    pub fn look_up(&self, namespace: &str, name: &str) -> Found<K> {
        let known = self.shared.known.read();
        let names = known.namespaces.get(namespace);
        if let Some(object) = names.and_then(|names| names.get(name)) {
            return Found::Known(Arc::clone(object));
        }
        // Mostly there is none, and nothing to copy.
        let is_unread = !known.unread.is_empty() && {
            let place = (namespace.to_owned(), name.to_owned());
            known.unread.contains(&place)
        };
        if is_unread {
            Found::Unread
        } else {
            Found::Nothing
        }
    }

    /// Every object of a namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let known = self.shared.known.read();
        objects(known.namespaces.get(namespace))
    }

    /// Every object of a namespace that is in this group.
    #[must_use]
    pub fn in_group(&self, namespace: &str, group: &str) -> Vec<Arc<K>> {
        let known = self.shared.known.read();
        objects(known.groups.get(&(namespace.to_owned(), group.to_owned())))
    }

    /// The version of all objects of this part, which is a namespace where the kind has no other: as
    /// long as it is the same, so is what plans are made from. It only grows, so that of several caches
    /// the sum is a version of them all.
    #[must_use]
    pub fn version(&self, part: &str) -> u64 {
        let known = self.shared.known.read();
        let changed = known.changed.get(part);
        changed.copied().unwrap_or(known.listed)
    }

    /// An object that `is_it`: every one is looked at.
    #[must_use]
    pub fn find(&self, is_it: impl Fn(&K) -> bool) -> Option<Arc<K>> {
        let known = self.shared.known.read();
        let mut objects = known.namespaces.values().flat_map(HashMap::values);
        objects.find(|object| is_it(object)).cloned()
    }

    /// Has `look` look at every object. Changes wait for the end of it.
    pub fn visit(&self, look: impl FnMut(&K)) {
        let known = self.shared.known.read();
        let objects = known.namespaces.values().flat_map(HashMap::values);
        objects.map(Arc::as_ref).for_each(look);
    }

    /// Every object.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        let known = self.shared.known.read();
        objects(known.namespaces.values())
    }
}

fn objects<'a, K: 'a>(names: impl IntoIterator<Item = &'a Names<K>>) -> Vec<Arc<K>> {
    names
        .into_iter()
        .flat_map(HashMap::values)
        .cloned()
        .collect()
}

// === impl Writer ===

impl<K> Writer<K> {
    /// An empty cache.
    pub(crate) fn new(keys: Keys<K>) -> Self {
        let known = RwLock::new(Index::default());
        let shared = Arc::new(Shared { keys, known });
        Self {
            cache: Cache { shared },
            listing: None,
        }
    }

    /// The side that reads.
    pub(crate) fn cache(&self) -> Cache<K> {
        self.cache.clone()
    }

    /// Takes note of an event.
    pub(crate) fn take(&mut self, event: Event<K>) -> Taken<K> {
        let Shared { keys, known } = &*self.cache.shared;
        match event {
            Event::Init => {
                self.listing = Some(Index::default());
                Taken::of_list(false)
            }
            Event::InitApply(object) => {
                let listing = self.listing.get_or_insert_default();
                listing.insert(object, *keys);
                Taken::of_list(false)
            }
            Event::InitDone => {
                let mut known = known.write();
                let listing = self.listing.take().unwrap_or_default();
                *known = listing.after(known.changes);
                Taken::of_list(true)
            }
            Event::Apply(object) => known.write().apply(object, *keys),
            Event::Delete(object) => known.write().delete(&object, *keys),
        }
    }

    /// Takes note that an object is there that can't be read; what was known under its name was another
    /// one. Where a list is under way, the object is of that.
    pub(crate) fn leave_out(&mut self, place: (String, String)) {
        let Shared { keys, known } = &*self.cache.shared;
        if let Some(listing) = &mut self.listing {
            listing.unread.insert(place);
            return;
        }
        let mut known = known.write();
        if let Some(other) = known.remove(&place, *keys) {
            known.note_change(None, &other, keys.part);
        }
        known.unread.insert(place);
    }

    /// Takes note that an object is gone that could not be read.
    pub(crate) fn forget(&mut self, place: &(String, String)) {
        self.cache.shared.known.write().unread.remove(place);
    }
}

// === impl Found ===

impl<K> Found<K> {
    /// The object, where it is known.
    #[must_use]
    pub fn known(self) -> Option<Arc<K>> {
        match self {
            Self::Known(object) => Some(object),
            Self::Unread | Self::Nothing => None,
        }
    }
}

// === impl Taken ===

impl<K> Taken<K> {
    /// Of a part of a list; `is_news` where that is complete.
    fn of_list(is_news: bool) -> Self {
        Self {
            is_news,
            replaced: None,
        }
    }
}

// === impl Index ===

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self {
            namespaces: HashMap::new(),
            groups: HashMap::new(),
            unread: HashSet::new(),
            changes: 0,
            listed: 0,
            changed: HashMap::new(),
        }
    }
}

impl<K> Index<K> {
    /// As the list that follows so many changes: everything may be another.
    fn after(self, changes: u64) -> Self {
        let changes = changes + 1;
        Self {
            changes,
            listed: changes,
            ..self
        }
    }

    /// Takes note that `object` is in the place of `replaced`, which may have been in another part.
    fn note_change(&mut self, replaced: Option<&K>, object: &K, part: fn(&K) -> &str) {
        self.changes += 1;
        for object in replaced.into_iter().chain([object]) {
            self.changed.insert(part(object).to_owned(), self.changes);
        }
    }

    /// Takes `object` in the place of what is known of it.
    fn apply(&mut self, object: K, keys: Keys<K>) -> Taken<K> {
        let replaced = self.remove(&(keys.place)(&object), keys);
        let before = replaced.as_deref();
        let is_news = !before.is_some_and(|before| (keys.alike)(before, &object));
        if is_news {
            self.note_change(before, &object, keys.part);
        }
        self.insert(object, keys);
        Taken { is_news, replaced }
    }

    /// Forgets the object of this name.
    fn delete(&mut self, object: &K, keys: Keys<K>) -> Taken<K> {
        let place = (keys.place)(object);
        let replaced = self.remove(&place, keys);
        self.unread.remove(&place);
        self.note_change(replaced.as_deref(), object, keys.part);
        Taken {
            is_news: true,
            replaced,
        }
    }

    fn insert(&mut self, object: K, keys: Keys<K>) {
        let place = (keys.place)(&object);
        self.unread.remove(&place);
        let (namespace, name) = place;
        let object = Arc::new(object);
        if let Some(group) = (keys.group)(&object) {
            let names = self.groups.entry((namespace.clone(), group.to_owned()));
            names.or_default().insert(name.clone(), Arc::clone(&object));
        }
        let names = self.namespaces.entry(namespace).or_default();
        names.insert(name, object);
    }

    /// Removes what is known of the object at this place, which may have been in another group.
    fn remove(&mut self, (namespace, name): &(String, String), keys: Keys<K>) -> Option<Arc<K>> {
        let names = self.namespaces.get_mut(namespace)?;
        let known = names.remove(name);
        if names.is_empty() {
            self.namespaces.remove(namespace);
        }
        let known = known?;
        if let Some(group) = (keys.group)(&known) {
            let key = (namespace.clone(), group.to_owned());
            if let Some(names) = self.groups.get_mut(&key) {
                names.remove(name);
                if names.is_empty() {
                    self.groups.remove(&key);
                }
            }
        }
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pod {
        name: &'static str,
        app: &'static str,
    }

    const KEYS: Keys<Pod> = Keys {
        place: |pod| ("ns".to_owned(), pod.name.to_owned()),
        group: |pod| Some(pod.app),
        part: |_| "ns",
        alike: |a, b| a.app == b.app,
    };

    fn pod(name: &'static str, app: &'static str) -> Pod {
        Pod { name, app }
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        let mut names: Vec<_> = pods.iter().map(|pod| pod.name).collect();
        names.sort();
        names
    }

    #[test]
    fn objects_are_found_by_name_namespace_and_group_and_move_between_groups() {
        let mut writer = Writer::new(KEYS);
        let cache = writer.cache();
        writer.take(Event::Apply(pod("a", "shop")));
        writer.take(Event::Apply(pod("b", "bank")));
        assert_eq!(names(&cache.in_group("ns", "shop")), ["a"]);
        writer.take(Event::Apply(pod("b", "shop")));
        assert_eq!(names(&cache.in_group("ns", "shop")), ["a", "b"]);
        assert!(cache.in_group("ns", "bank").is_empty());
        writer.take(Event::Delete(pod("a", "shop")));
        assert_eq!(names(&cache.in_namespace("ns")), ["b"]);
        assert!(cache.get("ns", "a").is_none() && cache.get("ns", "b").is_some());
        assert!(cache.find(|pod| pod.app == "shop").is_some());
        assert!(cache.find(|pod| pod.app == "bank").is_none());
        let mut apps = Vec::new();
        cache.visit(|pod| apps.push(pod.app));
        assert_eq!(apps, ["shop"]);
        assert!(cache.in_namespace("other").is_empty());
    }

    #[test]
    fn what_was_known_holds_until_a_new_list_is_complete() {
        let mut writer = Writer::new(KEYS);
        let cache = writer.cache();
        writer.take(Event::Apply(pod("a", "shop")));
        writer.take(Event::Init);
        writer.take(Event::InitApply(pod("b", "shop")));
        assert_eq!(names(&cache.all()), ["a"]);
        writer.take(Event::InitDone);
        assert_eq!(names(&cache.in_group("ns", "shop")), ["b"]);
    }

    #[test]
    fn a_version_lasts_until_something_else_would_come_of_a_plan() {
        let mut writer = Writer::new(KEYS);
        let cache = writer.cache();
        let list = |pods: &[(&'static str, &'static str)]| {
            let pods = pods
                .iter()
                .map(|&(name, app)| Event::InitApply(pod(name, app)));
            let events: Vec<_> = [Event::Init].into_iter().chain(pods).collect();
            events.into_iter().chain([Event::InitDone])
        };
        let mut versions = vec![cache.version("ns")];
        let mut take = |event: Event<Pod>| {
            let is_other = writer.take(event).is_news;
            let version = cache.version("ns");
            let is_new = versions.iter().all(|before| *before < version);
            versions.push(version);
            (is_other, is_new)
        };
        for event in list(&[("a", "shop")]) {
            let ends = matches!(event, Event::InitDone);
            assert_eq!(take(event), (ends, ends));
        }
        assert_eq!(take(Event::Apply(pod("a", "shop"))), (false, false));
        assert_eq!(take(Event::Apply(pod("a", "bank"))), (true, true));
        assert_eq!(take(Event::Apply(pod("b", "bank"))), (true, true));
        assert_eq!(take(Event::Delete(pod("a", "bank"))), (true, true));
        assert_eq!(take(Event::Delete(pod("b", "bank"))), (true, true));
        for event in list(&[]) {
            let ends = matches!(event, Event::InitDone);
            assert_eq!(take(event), (ends, ends));
        }
        assert_eq!(take(Event::Apply(pod("a", "shop"))), (true, true));
    }

    #[test]
    fn an_event_is_taken_with_what_was_known_of_its_object() {
        let mut writer = Writer::new(KEYS);
        let mut replaced = |event: Event<Pod>| {
            let replaced = writer.take(event).replaced;
            replaced.map(|pod| pod.app)
        };
        assert_eq!(replaced(Event::Apply(pod("a", "shop"))), None);
        assert_eq!(replaced(Event::Apply(pod("b", "shop"))), None);
        assert_eq!(replaced(Event::Apply(pod("a", "bank"))), Some("shop"));
        assert_eq!(replaced(Event::Delete(pod("a", "other"))), Some("bank"));
        assert_eq!(replaced(Event::Delete(pod("a", "bank"))), None);
        for event in [
            Event::Init,
            Event::InitApply(pod("b", "shop")),
            Event::InitDone,
        ] {
            assert_eq!(replaced(event), None);
        }
    }

    #[test]
    fn one_namespace_has_another_version_than_the_next() {
        const KEYS: Keys<(&str, u32)> = Keys {
            place: |(namespace, _)| ((*namespace).to_owned(), "one".to_owned()),
            group: |_| None,
            part: |(namespace, _)| namespace,
            alike: |a, b| a == b,
        };
        let mut writer = Writer::new(KEYS);
        let cache = writer.cache();
        writer.take(Event::Apply(("shop", 1)));
        let (shop, bank) = (cache.version("shop"), cache.version("bank"));
        writer.take(Event::Apply(("bank", 1)));
        assert_eq!(cache.version("shop"), shop);
        assert_ne!(cache.version("bank"), bank);
    }

    #[test]
    fn an_object_that_moves_is_another_version_of_both_parts() {
        let keys = Keys {
            part: |pod: &Pod| pod.app,
            ..KEYS
        };
        let mut writer = Writer::new(keys);
        let cache = writer.cache();
        writer.take(Event::Apply(pod("a", "shop")));
        let mut before = ["shop", "bank", "other"].map(|part| cache.version(part));
        let mut changed = |event: Event<Pod>| {
            writer.take(event);
            let now = ["shop", "bank", "other"].map(|part| cache.version(part));
            let before = std::mem::replace(&mut before, now);
            [0, 1, 2].map(|part| before[part] != now[part])
        };
        let moved = changed(Event::Apply(pod("a", "bank")));
        assert_eq!(moved, [true, true, false]);
        assert_eq!(
            changed(Event::Delete(pod("a", "bank"))),
            [false, true, false]
        );
    }
}
