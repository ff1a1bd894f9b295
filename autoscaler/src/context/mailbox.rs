//! How tasks of workloads are reached.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lull_contract::{Settings, names::label_value};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::Key;
use crate::{demand::Demand, journal::Journal};

/// How the rest of the process reaches a workload's task.
#[derive(Debug)]
pub struct Mailbox {
    /// Wakes the task: something about its workload has changed.
    pub changed: Notify,
    /// What has been reported about the workload.
    pub demand: Mutex<Demand>,
    /// What has happened to it lately.
    pub journal: Mutex<Journal>,
    /// Names of the Services whose slices it looks at; `None`: nobody knows yet.
    services: Mutex<Option<Vec<String>>>,
    /// When it was told last of callers who are held still, on the process's clock.
    told_again: Mutex<Duration>,
}

/// Mailboxes by namespace and label value of the name: pods name their workload that way.
#[derive(Debug, Default)]
pub struct Mailboxes {
    all: RwLock<HashMap<(String, String), Arc<Mailbox>>>,
    opened: AtomicU64,
}

// === impl Mailbox ===

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            changed: Notify::new(),
            demand: Mutex::new(Demand::new(&Settings::default())),
            journal: Mutex::default(),
            services: Mutex::default(),
            told_again: Mutex::default(),
        }
    }
}

impl Mailbox {
    /// From now on the task looks at the slices of the Services of these names alone.
    pub fn look_at(&self, services: Vec<String>) {
        *self.services.lock() = Some(services);
    }

    /// Whether the task is to be told at `now` of callers who are held still: not within `again` of the
    /// last time.
    pub(crate) fn is_told_again(&self, now: Duration, again: Duration) -> bool {
        let mut last = self.told_again.lock();
        let is_due = now.saturating_sub(*last) >= again;
        if is_due {
            *last = now;
        }
        is_due
    }

    /// Whether the task may look at the slices of this Service.
    fn looks_at(&self, service: &str) -> bool {
        let services = self.services.lock();
        let names = services.as_ref();
        names.is_none_or(|names| names.iter().any(|name| name == service))
    }
}

// === impl Mailboxes ===

impl Mailboxes {
    /// The mailbox of the workload whose name has this label value.
    #[must_use]
    pub fn by_label(&self, namespace: &str, label: &str) -> Option<Arc<Mailbox>> {
        self.all
            .read()
            .get(&(namespace.to_owned(), label.to_owned()))
            .cloned()
    }

    /// The mailbox of `key`.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Mailbox>> {
        self.by_label(namespace, &label_value(name))
    }

    /// A new mailbox for `key`, unless there is one.
    #[must_use]
    pub fn open(&self, key: &Key) -> Option<Arc<Mailbox>> {
        let mut boxes = self.all.write();
        let place = (key.namespace.clone(), label_value(&key.name));
        if boxes.contains_key(&place) {
            return None;
        }
        let mailbox = Arc::new(Mailbox::default());
        boxes.insert(place, Arc::clone(&mailbox));
        self.opened.fetch_add(1, Ordering::Relaxed);
        Some(mailbox)
    }

    /// A new mailbox in the place of that of `key`.
    pub(crate) fn renew(&self, key: &Key) -> Arc<Mailbox> {
        let mut boxes = self.all.write();
        let mailbox = Arc::new(Mailbox::default());
        let place = (key.namespace.clone(), label_value(&key.name));
        boxes.insert(place, Arc::clone(&mailbox));
        self.opened.fetch_add(1, Ordering::Relaxed);
        mailbox
    }

    /// How many have been opened so far: a new one has heard nothing.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Forgets the mailbox of `key`.
    pub fn close(&self, key: &Key) {
        self.all
            .write()
            .remove(&(key.namespace.clone(), label_value(&key.name)));
    }

    /// Wakes the tasks of the namespaces that are meant.
    pub fn wake(&self, is_meant: impl Fn(&str) -> bool) {
        for ((namespace, _), mailbox) in self.all.read().iter() {
            if is_meant(namespace) {
                mailbox.changed.notify_one();
            }
        }
    }

    /// Wakes the tasks that look at the slices of the Service called `service` in `namespace`.
    pub fn wake_of_service(&self, namespace: &str, service: &str) {
        for ((of, _), mailbox) in self.all.read().iter() {
            if of == namespace && mailbox.looks_at(service) {
                mailbox.changed.notify_one();
            }
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.read().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn who_is_held_still_is_told_of_again_after_a_while() {
        let (mailbox, ms) = (Mailbox::default(), Duration::from_millis);
        let told =
            [1_000, 1_010, 1_240, 1_250, 1_400].map(|now| mailbox.is_told_again(ms(now), ms(250)));
        assert_eq!(told, [true, false, false, true, false]);
    }

    #[test]
    fn who_begins_anew_is_told_everything_and_reached_no_more_as_before() {
        let boxes = Mailboxes::default();
        let key = Key {
            namespace: "ns".to_owned(),
            name: "shop".to_owned(),
        };
        let first = boxes.open(&key).unwrap();
        assert!(boxes.open(&key).is_none());
        let second = boxes.renew(&key);
        assert_eq!((boxes.len(), boxes.opened()), (1, 2));
        boxes.wake(|_| true);
        let woken =
            [first, second].map(|mailbox| mailbox.changed.notified().now_or_never().is_some());
        assert_eq!(woken, [false, true]);
    }

    #[test]
    fn a_slice_wakes_who_looks_at_its_service_and_who_does_not_know_yet() {
        let boxes = Mailboxes::default();
        let open = |namespace: &str, name: &str, services: Option<&[&str]>| {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            let mailbox = boxes.open(&Key { namespace, name }).unwrap();
            if let Some(services) = services {
                mailbox.look_at(services.iter().map(|name| (*name).to_owned()).collect());
            }
            mailbox
        };
        let all = [
            open("ns", "shop", Some(&["web", "shop"])),
            open("ns", "bank", Some(&["bank"])),
            open("ns", "idle", Some(&[])),
            open("ns", "new", None),
            open("other", "shop", Some(&["shop"])),
        ];
        boxes.wake_of_service("ns", "shop");
        let woken = all.map(|mailbox| mailbox.changed.notified().now_or_never().is_some());
        assert_eq!(woken, [true, false, false, true, false]);
    }
}
