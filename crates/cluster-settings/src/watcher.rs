//! The watch of the ConfigMap.

use std::{pin::pin, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use lull_process::readiness::{Pending, Readiness};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{Current, Settings};

/// Follows the ConfigMap.
pub struct Watcher {
    maps: Api<ConfigMap>,
    name: String,
    current_tx: watch::Sender<Arc<Current>>,
    /// Whether it is known what the ConfigMap says, or that there is none.
    is_heard: bool,
    /// Whether the API server has refused to tell us, and we have said so.
    is_denied: bool,
    not_heard: Option<Pending>,
    /// 1 while the newest edit is not taken.
    rejected: Gauge,
}

// === impl Watcher ===

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Watcher {
    /// A watcher of the ConfigMap `name`, and where it tells what is in force: the built-in values
    /// at first. "settings" is not ready until the API server has answered.
    ///
    /// `rejected` is 1 while the newest edit is wrong, or has deleted the map, and is not taken.
    #[must_use]
    pub fn new(
        client: &Client,
        (namespace, name): (&str, &str),
        readiness: &Readiness,
        rejected: Gauge,
    ) -> (Self, Settings) {
        let (current_tx, settings) = watch::channel(Arc::default());
        let watcher = Self {
            maps: Api::namespaced(client.clone(), namespace),
            name: name.to_owned(),
            current_tx,
            is_heard: false,
            is_denied: false,
            not_heard: Some(readiness.expect("settings")),
            rejected,
        };
        (watcher, settings)
    }

    /// Watches until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        // RBAC by resourceNames allows lists and watches of this one name.
        let only = format!("metadata.name={}", self.name);
        let config = lull_kubernetes::watched().fields(&only);
        let mut events = pin!(watcher(self.maps.clone(), config).default_backoff());
        let mut listed = None;
        loop {
            // Both branches are cancel safe: a token and a stream's next element.
            let event = tokio::select! {
                () = stop.cancelled() => return,
                Some(event) = events.next() => event,
            };
            match event {
                Ok(Event::Init) => listed = None,
                Ok(Event::InitApply(map)) => listed = Some(map),
                Ok(Event::InitDone) => self.take(listed.take().as_ref()),
                Ok(Event::Apply(map)) => self.take(Some(&map)),
                Ok(Event::Delete(_)) => self.take(None),
                // The watch comes back by itself, with backoff.
                Err(error) => self.failed(&error),
            }
        }
    }

    fn take(&mut self, seen: Option<&ConfigMap>) {
        let last = self.is_heard.then(|| Arc::clone(&self.current_tx.borrow()));
        let current = Current::after(last.as_deref(), seen);
        self.is_heard = true;
        self.is_denied = false;
        self.rejected.set(i64::from(current.rejected.is_some()));
        if last.as_deref() != Some(&current) {
            self.log(&current);
            self.current_tx.send_replace(Arc::new(current));
        }
        // Only now: whoever was waiting finds what is in force.
        self.not_heard = None;
    }

    fn log(&self, current: &Current) {
        let (name, version) = (&self.name, current.resource_version());
        match &current.rejected {
            Some(rejected) => tracing::warn!(
                configmap = name,
                kept = version,
                rejected = rejected.object.resource_version,
                faults = %rejected,
                "an edit of the cluster-wide settings is not taken"
            ),
            None => tracing::info!(
                configmap = name,
                resource_version = version,
                "cluster-wide settings"
            ),
        }
    }

    fn failed(&mut self, error: &watcher::Error) {
        if !is_forbidden(error) {
            tracing::warn!(%error, configmap = self.name, "watch failed");
            return;
        }
        if !std::mem::replace(&mut self.is_denied, true) {
            tracing::warn!(
                %error,
                configmap = self.name,
                "the cluster-wide settings may not be read: those known so far go on"
            );
        }
        // Waiting for a right that nobody grants would help nobody.
        self.not_heard = None;
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))) = error
    else {
        return false;
    };
    status.code == 403
}

#[cfg(test)]
mod tests;
