//! One watch: from the API server's events to a cache, and to whoever is touched.

use std::{fmt::Debug, pin::pin};

use futures::TryStreamExt;
use kube::{
    Api, Resource,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, DefaultBackoff, Event},
    },
};
use lull_kubernetes::pauses;
use lull_process::readiness::{Pending, Readiness};
use serde::de::DeserializeOwned;

use super::{OnTouched, Teller, Touched, bare, guard::Guard};
use crate::cache::{Cache, Keys, Taken, Writer};

/// How one kind is watched.
pub(crate) struct Watch<K> {
    pub(crate) teller: Teller,
    pub(crate) pending: Option<Pending>,
    pub(crate) touched: fn(&K) -> Touched,
    /// Whether everything waits for its first list, however often that fails.
    pub(crate) is_vital: bool,
    /// Whom it touches, if anybody, where an object changes in nothing that plans are made from;
    /// `None`: those whom any change touches.
    pub(crate) unplanned: Option<fn(&K) -> Option<Touched>>,
}

// === impl Watch ===

impl<K: Send + Sync + 'static> Watch<K> {
    /// The watch called `name`, whose every change touches everything.
    pub(super) fn new(name: &str, (readiness, on_touched): (&Readiness, &OnTouched)) -> Self {
        Self {
            teller: Teller::new(name, on_touched),
            pending: Some(readiness.expect(name)),
            touched: |_| Touched::Everything,
            is_vital: true,
            unplanned: None,
        }
    }

    /// Starts it; the cache is filled by what `kept` makes of each object.
    pub(super) fn start<R>(
        self,
        what: (Api<R>, watcher::Config),
        keys: Keys<K>,
        kept: fn(R) -> K,
    ) -> Cache<K>
    where
        R: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let writer = Writer::new(keys);
        let cache = writer.cache();
        tokio::spawn(self.run(what, writer, kept, || {}));
        cache
    }

    /// Starts it; an object that can't be read is for `guard` to deal with, and keeps no other out of the cache.
    pub(super) fn start_guarded(
        self,
        what: (Api<DeserializeGuard<K>>, watcher::Config),
        keys: Keys<K>,
        guard: Guard,
    ) -> Cache<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let writer = Writer::new(keys);
        let cache = writer.cache();
        tokio::spawn(self.run_guarded(what, writer, guard));
        cache
    }

    /// Fills `writer` until the process ends, which it does with the watch; `on_listed` is called after each complete list.
    pub(crate) async fn run<R>(
        self,
        what: (Api<R>, watcher::Config),
        writer: Writer<K>,
        kept: impl Fn(R) -> K,
        on_listed: impl Fn(),
    ) where
        R: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let read = move |event: Event<R>, _: &mut Writer<K>| Some(converted(event, &kept));
        self.follow(what, writer, read, on_listed).await;
    }

    /// The same with [`bare`] objects; one that can't be read is for `guard` to deal with.
    pub(crate) async fn run_guarded(
        self,
        what: (Api<DeserializeGuard<K>>, watcher::Config),
        writer: Writer<K>,
        mut guard: Guard,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let read = move |event: Event<DeserializeGuard<K>>, writer: &mut Writer<K>| {
            let event = guard.read(event, writer);
            event.map(|event| converted(event, bare::<K>))
        };
        self.follow(what, writer, read, || {}).await;
    }

    /// The same where `read` says what is made of each event, if anything.
    async fn follow<R>(
        mut self,
        (api, config): (Api<R>, watcher::Config),
        mut writer: Writer<K>,
        mut read: impl FnMut(Event<R>, &mut Writer<K>) -> Option<Event<K>>,
        on_listed: impl Fn(),
    ) where
        R: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        // One that an older chart's roles may never allow is begun anew less often.
        let pauses: Box<dyn Backoff> = if self.is_vital {
            Box::new(pauses())
        } else {
            Box::new(DefaultBackoff::default())
        };
        let mut stream = pin!(watcher::watcher(api, config).backoff(pauses));
        loop {
            let event = match stream.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    // The watcher comes back by itself, with backoff.
                    tracing::warn!(%error, "watch of {} failed", self.teller.name);
                    if !self.is_vital {
                        drop(self.pending.take());
                    }
                    continue;
                }
            };
            let Some(event) = read(event, &mut writer) else {
                continue;
            };
            let is_listed = matches!(event, Event::InitDone);
            let now = touched_by(&event, self.touched);
            let unplanned = self.unplanned.map(|touched| unplanned_by(&event, touched));
            let Taken { is_news, replaced } = writer.take(event);
            if is_listed {
                on_listed();
                drop(self.pending.take());
            }
            let (before, now) = match unplanned {
                Some(unplanned) if !is_news => (None, unplanned),
                Some(_) => (replaced.as_deref().map(self.touched), now),
                // Whom anything else is about it is about for good.
                None => (None, now),
            };
            changes(before, now).for_each(&*self.teller.on_touched);
        }
    }
}

fn converted<R, K>(event: Event<R>, kept: impl Fn(R) -> K) -> Event<K> {
    match event {
        Event::Apply(object) => Event::Apply(kept(object)),
        Event::Delete(object) => Event::Delete(kept(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(kept(object)),
        Event::InitDone => Event::InitDone,
    }
}

/// Who is told of `event`.
///
/// An object of a list that is not complete can't be seen yet, so nobody looks for it; and what was
/// deleted while the watch was away is named by no event.
fn touched_by<K>(event: &Event<K>, touched: impl Fn(&K) -> Touched) -> Option<Touched> {
    match event {
        Event::Apply(object) | Event::Delete(object) => Some(touched(object)),
        Event::Init | Event::InitApply(_) => None,
        Event::InitDone => Some(Touched::Everything),
    }
}

/// Who is told of `event` where it is no news to plans: of an object, by `touched`.
fn unplanned_by<K>(event: &Event<K>, touched: impl Fn(&K) -> Option<Touched>) -> Option<Touched> {
    match event {
        Event::Apply(object) => touched(object),
        _ => None,
    }
}

/// Those whom an object is about `now`, and those others whom it was about `before`.
fn changes(before: Option<Touched>, now: Option<Touched>) -> impl Iterator<Item = Touched> {
    let before = before.filter(|before| now.as_ref() != Some(before));
    before.into_iter().chain(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_list_touches_everything_once_it_is_complete() {
        let touched = |_: &()| Touched::Activators;
        let told = [Event::Init, Event::InitApply(()), Event::InitDone]
            .map(|event| touched_by(&event, touched));
        assert_eq!(told, [None, None, Some(Touched::Everything)]);
        let one = touched_by(&Event::Delete(()), touched);
        assert_eq!(one, Some(Touched::Activators));
    }

    #[test]
    fn what_is_no_news_to_plans_is_told_of_an_object_that_has_changed_alone() {
        let touched = |_: &()| Some(Touched::Activators);
        let events = [
            Event::Init,
            Event::InitApply(()),
            Event::InitDone,
            Event::Apply(()),
        ];
        let told = events.map(|event| unplanned_by(&event, touched));
        assert_eq!(told, [None, None, None, Some(Touched::Activators)]);
        assert_eq!(unplanned_by(&Event::Apply(()), |_: &()| None), None);
    }

    #[test]
    fn a_rule_that_moves_touches_those_that_it_was_about_as_well() {
        /// Name, and the namespace that it is about.
        type Rule = (&'static str, &'static str);
        const KEYS: Keys<Rule> = Keys {
            place: |(name, _)| (String::new(), (*name).to_owned()),
            group: |(_, about)| Some(*about),
            part: |_| "",
            alike: |a, b| a == b,
        };
        let namespace = |about: &str| Touched::Namespace(about.to_owned());
        let mut writer = Writer::new(KEYS);
        let mut told = |event: Event<Rule>| {
            let touched = |rule: &Rule| namespace(rule.1);
            let now = touched_by(&event, touched);
            let before = writer.take(event).replaced;
            changes(before.as_deref().map(touched), now).collect::<Vec<_>>()
        };
        let (shop, bank) = (namespace("shop"), namespace("bank"));
        assert_eq!(
            told(Event::Apply(("one", "shop"))),
            std::slice::from_ref(&shop)
        );
        assert_eq!(
            told(Event::Apply(("two", "bank"))),
            std::slice::from_ref(&bank)
        );
        let moved = told(Event::Apply(("one", "bank")));
        assert_eq!(moved, [shop, bank.clone()]);
        assert_eq!(
            told(Event::Apply(("one", "bank"))),
            std::slice::from_ref(&bank)
        );
        assert_eq!(told(Event::Delete(("one", "bank"))), [bank]);
    }
}
