//! One watch: from the API server's events to a cache, and to whoever is touched.

use std::{fmt::Debug, pin::pin, sync::Arc};

use futures::TryStreamExt;
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use lull_process::readiness::{Pending, Readiness};
use serde::de::DeserializeOwned;

use super::{OnTouched, Touched};
use crate::cache::{Cache, Keys, Writer};

/// How one kind is watched.
pub(crate) struct Watch<K> {
    /// What it is called in logs, and while it is waited for.
    pub(crate) name: String,
    pub(crate) pending: Option<Pending>,
    pub(crate) keys: Keys<K>,
    pub(crate) touched: fn(&K) -> Touched,
    pub(crate) on_touched: OnTouched,
    /// Whether everything waits for its first list, however often that fails.
    pub(crate) is_vital: bool,
    /// Nothing but plans is made from it: a change that is none to them touches nobody.
    pub(crate) is_for_plans: bool,
}

// === impl Watch ===

impl<K: Send + Sync + 'static> Watch<K> {
    /// The watch called `name`, whose every change touches everything.
    pub(super) fn new(
        name: &str,
        keys: Keys<K>,
        (readiness, on_touched): (&Readiness, &OnTouched),
    ) -> Self {
        Self {
            name: name.to_owned(),
            pending: Some(readiness.expect(name)),
            keys,
            touched: |_| Touched::Everything,
            on_touched: Arc::clone(on_touched),
            is_vital: true,
            is_for_plans: false,
        }
    }

    /// Starts it; the cache is filled by what `kept` makes of each object.
    pub(super) fn start<R>(self, api: Api<R>, config: watcher::Config, kept: fn(R) -> K) -> Cache<K>
    where
        R: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let writer = Writer::new(self.keys);
        let cache = writer.cache();
        tokio::spawn(self.run((api, config), writer, kept, || {}));
        cache
    }

    /// Fills `writer` until the process ends; `on_listed` is called after each complete list.
    pub(crate) async fn run<R>(
        mut self,
        (api, config): (Api<R>, watcher::Config),
        mut writer: Writer<K>,
        kept: impl Fn(R) -> K,
        on_listed: impl Fn(),
    ) where
        R: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let mut stream = pin!(watcher::watcher(api, config).default_backoff());
        loop {
            let event = match stream.try_next().await {
                Ok(Some(event)) => converted(event, &kept),
                Ok(None) => break,
                Err(error) => {
                    // The watcher comes back by itself, with backoff.
                    tracing::warn!(%error, "watch of {} failed", self.name);
                    if !self.is_vital {
                        drop(self.pending.take());
                    }
                    continue;
                }
            };
            let is_listed = matches!(event, Event::InitDone);
            let before = if self.is_for_plans {
                replaced(&event, &writer, self.keys)
            } else {
                None
            };
            let changes = changes_of(&event, before.as_deref(), self.touched);
            let is_news = writer.take(event) || !self.is_for_plans;
            if is_listed {
                on_listed();
                drop(self.pending.take());
            }
            for change in changes.into_iter().filter(|_| is_news) {
                (self.on_touched)(change);
            }
        }
        tracing::error!("watch of {} ended", self.name);
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

/// What is known of the object that `event` brings anew.
fn replaced<K>(event: &Event<K>, writer: &Writer<K>, keys: Keys<K>) -> Option<Arc<K>> {
    let Event::Apply(object) = event else {
        return None;
    };
    let (namespace, name) = (keys.place)(object);
    writer.cache().get(&namespace, &name)
}

/// Who is told when `event` has been taken note of; `before` is the object that it takes the place of,
/// which may have been about others.
///
/// An object of a list that is not complete can't be seen yet, so nobody looks for it; and what was
/// deleted while the watch was away is named by no event.
fn changes_of<K>(
    event: &Event<K>,
    before: Option<&K>,
    touched: impl Fn(&K) -> Touched,
) -> Vec<Touched> {
    match event {
        Event::Apply(object) | Event::Delete(object) => {
            let now = touched(object);
            let before = before.map(touched).filter(|before| *before != now);
            before.into_iter().chain([now]).collect()
        }
        Event::Init | Event::InitApply(_) => Vec::new(),
        Event::InitDone => vec![Touched::Everything],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_list_touches_everything_once_it_is_complete() {
        let touched = |_: &()| Touched::Activators;
        let told = [Event::Init, Event::InitApply(()), Event::InitDone]
            .map(|event| changes_of(&event, None, touched));
        assert_eq!(told, [vec![], vec![], vec![Touched::Everything]]);
        let one = changes_of(&Event::Delete(()), None, touched);
        assert_eq!(one, [Touched::Activators]);
    }

    #[test]
    fn a_rule_that_moves_touches_those_that_it_was_about_as_well() {
        /// Name, and the namespace that it is about.
        type Rule = (&'static str, &'static str);
        const KEYS: Keys<Rule> = Keys {
            place: |(name, _)| (String::new(), (*name).to_owned()),
            group: |(_, about)| Some(*about),
            alike: |a, b| a == b,
        };
        let namespace = |about: &str| Touched::Namespace(about.to_owned());
        let mut writer = Writer::new(KEYS);
        let mut told = |event: Event<Rule>| {
            let before = replaced(&event, &writer, KEYS);
            let changes = changes_of(&event, before.as_deref(), |rule| namespace(rule.1));
            writer.take(event);
            changes
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
