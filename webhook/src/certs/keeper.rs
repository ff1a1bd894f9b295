//! The task that keeps the Secret, the served leaf and every `caBundle` right.
//!
//! One task owns all three, so that a bundle is never compared with a stale authority: before it
//! overwrites a `caBundle` that differs, it reads the Secret again. Two replicas can't fight.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration as Configuration, core::v1::Secret,
    },
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use lull_contract::names::FIELD_MANAGER;
use lull_process::readiness::{Pending, Readiness};
use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Authority, CertError, Leaf, Resolver, service_names};

/// Wall clock and Secret are looked at this often.
const CHECK: Duration = Duration::from_secs(60);
/// First pause after a failure; it doubles up to [`CHECK`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest time of one call of the API server: kube's client itself has no bound.
const CALL: Duration = Duration::from_secs(10);
/// Attempts against other replicas that write the Secret at the same moment.
const ATTEMPTS: usize = 4;
/// Keys in the Secret.
const CERTIFICATE_KEY: &str = "ca.crt";
const PRIVATE_KEY: &str = "ca.key";

/// Names of what the keeper reads and writes.
#[derive(Debug, Clone)]
pub struct Names {
    /// Namespace of the Service and the Secret.
    pub namespace: String,
    /// Service by which the API server calls us.
    pub service: String,
    /// Secret with the authority.
    pub secret: String,
    /// MutatingWebhookConfiguration whose webhooks trust the authority.
    pub configuration: String,
}

/// Owns the authority, the leaf and the configuration's `caBundle`.
pub struct Keeper {
    secrets: Api<Secret>,
    configurations: Api<Configuration>,
    names: Names,
    resolver: Arc<Resolver>,
    /// When the served leaf ends, seconds since 1970.
    end: Gauge,
    authority: Option<Arc<Authority>>,
    leaf: Option<Leaf>,
    /// As last seen; `None` while there is none.
    configuration: Option<Configuration>,
    no_certificate: Option<Pending>,
    no_bundle: Option<Pending>,
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("{what}: {source}")]
    Api {
        what: String,
        source: Box<kube::Error>,
    },
    #[error("{0}: no answer from the API server in time")]
    Timeout(String),
    #[error("secret {0}: other writers were always first")]
    Contended(String),
    #[error(transparent)]
    Cert(#[from] CertError),
    #[error("patch of caBundle: {0}")]
    Patch(#[from] serde_json::Error),
}

// === impl Keeper ===

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// A keeper that hands leaves to `resolver` and tells `end` when the newest one ends;
    /// "certificate" and "ca-bundle" are not ready yet.
    #[must_use]
    pub fn new(
        client: &Client,
        names: Names,
        (resolver, end): (Arc<Resolver>, Gauge),
        readiness: &Readiness,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &names.namespace),
            configurations: Api::all(client.clone()),
            names,
            resolver,
            end,
            authority: None,
            leaf: None,
            configuration: None,
            no_certificate: Some(readiness.expect("certificate")),
            no_bundle: Some(readiness.expect("ca-bundle")),
        }
    }

    /// Keeps everything right until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let only = format!("metadata.name={}", self.names.configuration);
        let config = lull_kubernetes::watched().fields(&only);
        let events = watcher(self.configurations.clone(), config).default_backoff();
        let mut events = pin!(events);
        let (mut due, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            // All branches are cancel safe: a token, a stream's next element and a timer.
            let result = tokio::select! {
                () = stop.cancelled() => return,
                Some(event) = events.next() => {
                    if !self.note(event) {
                        continue;
                    }
                    self.spread().await
                }
                () = sleep_until(due) => {
                    due = Instant::now() + CHECK + phase();
                    self.check().await
                }
            };
            if let Err(error) = result {
                tracing::warn!(%error, "certificates are not right yet");
                due = due.min(Instant::now() + pause + phase());
                pause = CHECK.min(pause * 2);
            } else {
                pause = FIRST_PAUSE;
            }
        }
    }

    /// Takes a watch event in; whether there is something to compare.
    fn note(&mut self, event: watcher::Result<Event<Configuration>>) -> bool {
        match event {
            Ok(Event::Apply(seen) | Event::InitApply(seen)) => {
                self.configuration = Some(seen);
                true
            }
            Ok(Event::Delete(_)) => {
                self.configuration = None;
                false
            }
            Ok(Event::Init | Event::InitDone) => false,
            Err(error) => {
                tracing::warn!(%error, configuration = self.names.configuration, "watch failed");
                false
            }
        }
    }

    async fn check(&mut self) -> Result<(), KeepError> {
        self.refresh().await?;
        self.spread().await
    }

    /// Makes the Secret, the authority in memory and the leaf right.
    async fn refresh(&mut self) -> Result<(), KeepError> {
        let now = Timestamp::now();
        let mut found = None;
        for _ in 0..ATTEMPTS {
            match self.load(now).await {
                Err(error) if error.is_race() => {}
                other => {
                    found = Some(other?);
                    break;
                }
            }
        }
        let authority = found.ok_or_else(|| KeepError::Contended(self.names.secret.clone()))?;
        if !self
            .leaf
            .as_ref()
            .is_some_and(|leaf| authority.vouches_for(leaf, now))
        {
            let names = service_names(&self.names.service, &self.names.namespace);
            let leaf = authority.mint(&names, now)?;
            tracing::info!(renew_at = %leaf.renew_at, "serving a new certificate");
            self.resolver.set(Arc::clone(&leaf.certified));
            self.end.set(leaf.not_after.as_second());
            self.leaf = Some(leaf);
            self.no_certificate = None;
        }
        self.authority = Some(authority);
        Ok(())
    }

    /// The authority that the Secret holds, after putting there what was missing.
    async fn load(&self, now: Timestamp) -> Result<Arc<Authority>, KeepError> {
        let name = &self.names.secret;
        let Some(secret) = call(format!("get secret {name}"), self.secrets.get_opt(name)).await?
        else {
            return self.create(now).await;
        };
        let authority = match parse(&secret, now) {
            Ok(authority) if !authority.needs_renewal(now) => return Ok(Arc::new(authority)),
            Ok(authority) => Arc::new(authority.renewed(now)?),
            Err(error) => {
                // An empty one is how a chart may own the Secret.
                if secret.data.is_some_and(|data| !data.is_empty()) {
                    tracing::warn!(secret = name, %error, "contents are not usable; replaced");
                }
                self.replacement(now)?
            }
        };
        let data = serde_json::Map::from_iter(
            contents(&authority).map(|(key, value)| (key.to_owned(), json!(value))),
        );
        let patch = json!({
            "metadata": { "resourceVersion": secret.metadata.resource_version },
            "data": data,
        });
        self.patch_secret(&patch).await?;
        tracing::info!(secret = name, "wrote a certificate authority");
        Ok(authority)
    }

    async fn create(&self, now: Timestamp) -> Result<Arc<Authority>, KeepError> {
        let (name, authority) = (&self.names.secret, self.replacement(now)?);
        let data = contents(&authority).map(|(key, value)| (key.to_owned(), value));
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            data: Some(data.into()),
            ..Secret::default()
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let created = self.secrets.create(&params, &secret);
        call(format!("create secret {name}"), created).await?;
        tracing::info!(secret = name, "made a certificate authority");
        Ok(authority)
    }

    async fn patch_secret(&self, patch: &Value) -> Result<(), KeepError> {
        let (name, params) = (&self.names.secret, PatchParams::apply(FIELD_MANAGER));
        let patch = Patch::Merge(patch);
        let patched = self.secrets.patch(name, &params, &patch);
        call(format!("patch secret {name}"), patched)
            .await
            .map(drop)
    }

    /// What goes into a Secret that is lost: the authority that callers trust already, if we can.
    fn replacement(&self, now: Timestamp) -> Result<Arc<Authority>, CertError> {
        match &self.authority {
            Some(authority) if !authority.needs_renewal(now) => Ok(Arc::clone(authority)),
            _ => Authority::generate(now, "").map(Arc::new),
        }
    }

    /// Makes every `caBundle` of the configuration right.
    async fn spread(&mut self) -> Result<(), KeepError> {
        if self.is_spread() == Some(false) {
            self.refresh().await?;
        }
        match self.is_spread() {
            None => return Ok(()),
            Some(true) => {}
            Some(false) => self.patch_bundles().await?,
        }
        self.no_bundle = None;
        Ok(())
    }

    /// Whether every webhook has our bundle; `None` where there is no configuration or authority.
    fn is_spread(&self) -> Option<bool> {
        let bundle = self.authority.as_ref()?.bundle();
        Some(
            wrong_bundles(self.configuration.as_ref()?, bundle)
                .next()
                .is_none(),
        )
    }

    async fn patch_bundles(&mut self) -> Result<(), KeepError> {
        let (Some(authority), Some(seen)) = (&self.authority, &self.configuration) else {
            return Ok(());
        };
        let name = &self.names.configuration;
        let operations = bundle_patch(seen, authority.bundle());
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations))?;
        let patch = Patch::<Configuration>::Json(patch);
        let params = PatchParams::apply(FIELD_MANAGER);
        let patched = self.configurations.patch(name, &params, &patch);
        let patched = call(format!("patch {name}"), patched).await?;
        tracing::info!(configuration = name, "set caBundle");
        self.configuration = Some(patched);
        Ok(())
    }
}

/// Index and name of the webhooks whose bundle differs.
fn wrong_bundles<'a>(
    configuration: &'a Configuration,
    bundle: &'a str,
) -> impl Iterator<Item = (usize, &'a str)> {
    let webhooks = configuration.webhooks.iter().flatten().enumerate();
    webhooks.filter_map(move |(index, webhook)| {
        let current = webhook.client_config.ca_bundle.as_ref();
        let right = current.is_some_and(|current| current.0 == bundle.as_bytes());
        (!right).then_some((index, webhook.name.as_str()))
    })
}

/// Operations that fail as a whole where somebody has reordered the webhooks meanwhile.
fn bundle_patch(configuration: &Configuration, bundle: &str) -> Vec<Value> {
    let value = json!(ByteString(bundle.as_bytes().to_vec()));
    wrong_bundles(configuration, bundle)
        .flat_map(|(index, name)| {
            let path = format!("/webhooks/{index}");
            [
                json!({ "op": "test", "path": format!("{path}/name"), "value": name }),
                json!({ "op": "add", "path": format!("{path}/clientConfig/caBundle"), "value": value }),
            ]
        })
        .collect()
}

fn parse(secret: &Secret, now: Timestamp) -> Result<Authority, CertError> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.map_or_else(String::new, |b| String::from_utf8_lossy(&b.0).into_owned())
    };
    Authority::parse(&text(CERTIFICATE_KEY), &text(PRIVATE_KEY), now)
}

fn contents(authority: &Authority) -> [(&'static str, ByteString); 2] {
    [
        (CERTIFICATE_KEY, ByteString(authority.bundle().into())),
        (PRIVATE_KEY, ByteString(authority.key_pem().into())),
    ]
}

/// A random part of a second, so that replicas don't act in step.
fn phase() -> Duration {
    Duration::from_millis(lull_process::boot_id() % 1000)
}

async fn call<T>(
    what: String,
    answer: impl Future<Output = kube::Result<T>>,
) -> Result<T, KeepError> {
    match timeout(CALL, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(KeepError::Api {
            what,
            source: Box::new(source),
        }),
        Err(_) => Err(KeepError::Timeout(what)),
    }
}

// === impl KeepError ===

impl KeepError {
    /// Another replica was faster.
    fn is_race(&self) -> bool {
        let Self::Api { source, .. } = self else {
            return false;
        };
        // AlreadyExists and Conflict share the code.
        matches!(&**source, kube::Error::Api(status) if status.code == 409)
    }
}

#[cfg(test)]
mod tests;
