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
            let change = change_of(&event, self.touched);
            let is_news = writer.take(event) || !self.is_for_plans;
            if is_listed {
                on_listed();
                drop(self.pending.take());
            }
            if let Some(change) = change.filter(|_| is_news) {
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

/// Who is told when `event` has been taken note of.
///
/// An object of a list that is not complete can't be seen yet, so nobody looks for it; and what was
/// deleted while the watch was away is named by no event.
fn change_of<K>(event: &Event<K>, touched: impl Fn(&K) -> Touched) -> Option<Touched> {
    match event {
        Event::Apply(object) | Event::Delete(object) => Some(touched(object)),
        Event::Init | Event::InitApply(_) => None,
        Event::InitDone => Some(Touched::Everything),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_list_touches_everything_once_it_is_complete() {
        let touched = |_: &()| Touched::Activators;
        let told = [Event::Init, Event::InitApply(()), Event::InitDone]
            .map(|event| change_of(&event, touched));
        assert_eq!(told, [None, None, Some(Touched::Everything)]);
        let one = change_of(&Event::Delete(()), touched);
        assert_eq!(one, Some(Touched::Activators));
    }
}
