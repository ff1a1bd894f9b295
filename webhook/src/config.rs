//! Command line and environment.

use std::path::PathBuf;

use clap::{Parser, builder::BoolishValueParser};
use lull_cluster_settings::Current;
use lull_contract::{ports, target_resource::TargetResources};
use lull_process::{logging::LogFilter, otlp::Endpoint};
use serde_json::{Value, json};

use crate::{certs::keeper::Names, inject::Image};

/// Lull's admission server: validates annotations and injects the queue-proxy.
#[derive(Debug, Clone, Parser)]
#[command(name = "webhook", version)]
pub struct Args {
    /// Namespace of the webhook's own Service and Secret.
    #[arg(long, env = "WEBHOOK_NAMESPACE")]
    pub namespace: String,
    /// Service by which the API server calls the webhook.
    #[arg(long, env = "WEBHOOK_SERVICE_NAME", default_value = "lull-webhook")]
    pub service_name: String,
    /// MutatingWebhookConfiguration whose caBundle is kept right.
    #[arg(
        long,
        env = "WEBHOOK_CONFIGURATION_NAME",
        default_value = "lull-webhook"
    )]
    pub configuration_name: String,
    /// Secret that holds the certificate authority; made if it is not there.
    #[arg(long, env = "WEBHOOK_SECRET_NAME", default_value = "lull-webhook-ca")]
    pub secret_name: String,
    /// Folder with a certificate that somebody else keeps, such as cert-manager: tls.crt and tls.key.
    /// The webhook then makes none, and leaves Secret and caBundle alone.
    #[arg(long, env = "WEBHOOK_CERTIFICATES", value_name = "FOLDER")]
    pub certificates: Option<PathBuf>,
    /// ConfigMap in the namespace with the cluster-wide default settings; it may be missing.
    #[arg(long, env = "WEBHOOK_SETTINGS", default_value = "lull-settings")]
    pub settings: String,
    /// Image of the sidecar.
    #[arg(long, env = "WEBHOOK_QUEUE_PROXY_IMAGE")]
    pub queue_proxy_image: String,
    /// Pull policy of the sidecar's image.
    #[arg(
        long,
        env = "WEBHOOK_QUEUE_PROXY_IMAGE_PULL_POLICY",
        default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"]
    )]
    pub queue_proxy_image_pull_policy: String,
    /// OpenTelemetry collector (OTLP over HTTP) that gets the sidecar's spans, such as
    /// `http://otel-collector.observability:4318`; without it there are none.
    #[arg(long, env = "WEBHOOK_QUEUE_PROXY_OTLP_ENDPOINT")]
    pub queue_proxy_otlp_endpoint: Option<Endpoint>,
    /// Istio's container is an ordinary one and no native sidecar in pods whose template doesn't say it
    /// (annotation sidecar.istio.io/nativeSidecar).
    #[arg(long, env = "WEBHOOK_CLASSIC_PROXIES", value_parser = BoolishValueParser::new())]
    pub classic_proxies: bool,
    /// Kinds that are injected, as GROUP/VERSION/PLURAL with commas between them; others are left
    /// alone.
    #[arg(long, env = "WEBHOOK_TARGETS", default_value_t)]
    pub targets: TargetResources,
    /// Log filter, for instance info or info,kube=debug.
    #[arg(long, env = "WEBHOOK_LOG", default_value = "info")]
    pub log: LogFilter,
    /// Log lines as JSON.
    #[arg(long, env = "WEBHOOK_LOG_JSON", value_parser = BoolishValueParser::new())]
    pub log_json: bool,
    /// Admission over TLS.
    #[arg(long, env = "WEBHOOK_PORT", default_value_t = ports::WEBHOOK)]
    pub port: u16,
    /// Prometheus text.
    #[arg(long, env = "WEBHOOK_METRICS_PORT", default_value_t = ports::METRICS)]
    pub metrics_port: u16,
    /// /live, /ready and /config, plain HTTP.
    #[arg(long, env = "WEBHOOK_ADMIN_PORT", default_value_t = ports::ADMIN)]
    pub admin_port: u16,
}

// === impl Args ===

impl Args {
    /// The sidecar that templates get, the collector of its spans, and whether istio-proxy is an
    /// ordinary container beside it.
    #[must_use]
    pub fn sidecar(&self) -> (Image, Option<Endpoint>, bool) {
        let image = Image {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reference: self.queue_proxy_image.clone(),
            pull_policy: self.queue_proxy_image_pull_policy.clone(),
        };
        let endpoint = self.queue_proxy_otlp_endpoint.clone();
        (image, endpoint, self.classic_proxies)
    }

    /// What the admin page `/config` shows, with the settings in force.
    #[must_use]
    pub fn page(&self, current: &Current) -> Value {
        json!({
            "namespace": self.namespace,
            "serviceName": self.service_name,
            "configurationName": self.configuration_name,
            "secretName": self.secret_name,
            "certificates": self.certificates,
            "settings": self.settings,
            "queueProxyImage": self.queue_proxy_image,
            "queueProxyImagePullPolicy": self.queue_proxy_image_pull_policy,
            "queueProxyOtlpEndpoint": self.queue_proxy_otlp_endpoint,
            "classicProxies": self.classic_proxies,
            "log": self.log,
            "logJson": self.log_json,
            "port": self.port,
            "adminPort": self.admin_port,
            "metricsPort": self.metrics_port,
            "clusterSettings": current.page(),
        })
    }

    /// What the keeper of certificates works on.
    #[must_use]
    pub fn names(&self) -> Names {
        Names {
            namespace: self.namespace.clone(),
            service: self.service_name.clone(),
            secret: self.secret_name.clone(),
            configuration: self.configuration_name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_option_has_its_variable() {
        for arg in Args::command().get_arguments() {
            let Some(long) = arg.get_long().filter(|l| !["help", "version"].contains(l)) else {
                continue;
            };
            let expected = format!("WEBHOOK_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(&*expected));
        }
    }
}
