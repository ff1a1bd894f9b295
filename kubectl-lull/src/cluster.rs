//! Access to the API server, as the user's kubeconfig gives it.

use std::{fmt, time::Duration};

use anyhow::Context;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    cli::Access,
    progress,
    proxy::{self, Environment},
};

/// Longest time of one call: the Kubernetes client itself has no limit.
const CALL: Duration = Duration::from_secs(15);
/// HTTP status of an API server that has too much to do.
const TOO_MANY_REQUESTS: u16 = 429;
/// The lowest HTTP status of an API server's own failures.
const SERVER_ERRORS: u16 = 500;

/// A cluster, and where on it.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The client.
    pub(crate) client: Client,
    /// Namespace of the workloads that are asked for.
    pub(crate) namespace: String,
    /// Namespace of Lull itself.
    pub(crate) lull_namespace: String,
    /// Flags by which another command means the same ([`Access::again`]).
    pub(crate) flags: String,
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The API server said no.
    #[error("{what}: {message}")]
    Refused {
        /// What was to be done.
        what: String,
        /// HTTP status.
        code: u16,
        /// Why.
        message: String,
    },
    /// There was no right answer.
    #[error("{what}")]
    Failed {
        /// What was to be done.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// There was none in time.
    #[error("{what}: no answer in {} s", .limit.as_secs())]
    Silent {
        /// What was to be done.
        what: String,
        /// Time that it had.
        limit: Duration,
    },
}

/// `future`, a call to the API server that does `what`; shows it where it takes long.
///
/// # Errors
/// What the API server says, or that it said nothing for 15 s.
pub(crate) async fn call<T>(
    what: &str,
    future: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    call_within(CALL, what, future).await
}

/// The same with another limit.
///
/// # Errors
/// What the API server says, or that it said nothing within `limit`.
pub(crate) async fn call_within<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    // Boxed: a client's futures are large, and commands hold several.
    let bounded = Box::pin(tokio::time::timeout(limit, future));
    let answer = progress::during(what, bounded).await;
    let what = what.to_owned();
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(CallError::Refused {
            what,
            code: status.code,
            message: status.message,
        }),
        Ok(Err(source)) => Err(CallError::Failed {
            what,
            source: Box::new(source),
        }),
        Err(_) => Err(CallError::Silent { what, limit }),
    }
}

// === impl CallError ===

impl CallError {
    /// Whether the API server answered with this HTTP status.
    pub(crate) fn is(&self, status: u16) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == status)
    }

    /// Whether the same call may be answered in a moment: it was not refused for what it asks.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Refused { code, .. } => *code == TOO_MANY_REQUESTS || *code >= SERVER_ERRORS,
            Self::Failed { .. } | Self::Silent { .. } => true,
        }
    }

    /// In one line, with its cause.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Failed { what, source } => format!("{what}: {source}"),
            other => other.to_string(),
        }
    }
}

// === impl Cluster ===

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .field("lull_namespace", &self.lull_namespace)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster that `access` names. Nothing is asked of it yet.
    ///
    /// # Errors
    /// Where the kubeconfig can't be had or used.
    pub(crate) async fn connect(access: &Access) -> anyhow::Result<Self> {
        let options = KubeConfigOptions {
            context: access.context.clone(),
            ..KubeConfigOptions::default()
        };
        let file = match &access.kubeconfig {
            Some(path) => {
                Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))
            }
            None => Kubeconfig::read().context("the kubeconfig can't be used"),
        };
        let context = access.context.as_deref();
        let own = file.as_ref().ok();
        let own = own.and_then(|file| proxy::in_kubeconfig(file, context));
        let config = if access.kubeconfig.is_some() || context.is_some() {
            Config::from_custom_kubeconfig(file?, &options)
                .await
                .context("the kubeconfig can't be used")?
        } else {
            // There need not be one: within a cluster its own access is taken.
            Config::infer()
                .await
                .context("no cluster: name a kubeconfig by --kubeconfig or KUBECONFIG")?
        };
        Self::of(config, own, access)
    }

    fn of(mut config: Config, own_proxy: Option<String>, access: &Access) -> anyhow::Result<Self> {
        let proxy = proxy::proxy_for(&config.cluster_url, own_proxy, &environment());
        let as_uri = |proxy: String| {
            let uri = proxy.parse::<http::Uri>();
            uri.with_context(|| format!("{proxy:?} is no address of a proxy"))
        };
        config.proxy_url = proxy.map(as_uri).transpose()?;
        let default = config.default_namespace.clone();
        let client = Client::try_from(config).context("the kubeconfig can't be used")?;
        Ok(Self {
            client,
            namespace: access.namespace.clone().unwrap_or(default),
            lull_namespace: access.lull_namespace.clone(),
            flags: access.again(),
        })
    }
}

/// What this process' own environment says of proxies; what is empty is not set.
fn environment() -> Environment {
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let either = |name: &str| value(name).or_else(|| value(&name.to_ascii_lowercase()));
    Environment {
        https_proxy: either("HTTPS_PROXY"),
        no_proxy: either("NO_PROXY"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_refuses_for_good_ends_a_wait() {
        let what = || "look".to_owned();
        let refused = |code: u16| CallError::Refused {
            what: what(),
            code,
            message: String::new(),
        };
        for (code, expected) in [
            (401, false),
            (403, false),
            (404, false),
            (429, true),
            (503, true),
        ] {
            assert_eq!(refused(code).may_pass(), expected, "{code}");
        }
        let silent = CallError::Silent {
            what: what(),
            limit: CALL,
        };
        assert!(silent.may_pass());
    }
}
