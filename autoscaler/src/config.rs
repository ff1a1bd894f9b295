//! Command line and environment.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    time::Duration,
};

use clap::{ArgAction, Parser, Subcommand, builder::BoolishValueParser};
use lull_contract::{HumanDuration, Shards, ports, target_resource::TargetResources};
use lull_process::logging::LogFilter;

use crate::{
    mesh::{MeshMode, MeshOptions},
    namespaces::Namespaces,
    plan::Components,
};

/// Label that Kubernetes puts on every namespace.
pub(crate) const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Lull's controller: enrols workloads, scales them and switches their Services.
#[derive(Debug, Clone, Parser)]
#[command(name = "autoscaler", version)]
pub struct Args {
    /// What to do; without one the controller runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Namespace of Lull's own pods and Leases.
    #[arg(
        long,
        env = "AUTOSCALER_NAMESPACE",
        default_value = "lull-system",
        global = true
    )]
    pub namespace: String,
    /// Name of this replica.
    #[arg(
        long,
        env = "AUTOSCALER_POD_NAME",
        default_value = "autoscaler",
        global = true
    )]
    pub pod_name: String,
    /// Labels by which activator pods are found in the namespace.
    #[arg(
        long,
        env = "AUTOSCALER_ACTIVATOR_SELECTOR",
        default_value = "app.kubernetes.io/part-of=lull,app.kubernetes.io/component=activator"
    )]
    pub activator_selector: String,
    /// Labels by which the autoscaler's replicas are found in the namespace.
    #[arg(
        long,
        env = "AUTOSCALER_PEERS",
        default_value = "app.kubernetes.io/part-of=lull,app.kubernetes.io/component=autoscaler"
    )]
    pub peers: String,
    /// Shards of the workloads, 1 to 64, each led by one replica: at least as many as replicas.
    #[arg(long, env = "AUTOSCALER_SHARDS", default_value = "2")]
    pub shards: Shards,
    /// Wait from a written endpoint to the last proxy that uses it.
    #[arg(long, env = "AUTOSCALER_PROPAGATION_DELAY", default_value = "3s")]
    pub propagation_delay: HumanDuration,
    /// How long a wake may take before pods that don't get ready are given up.
    #[arg(long, env = "AUTOSCALER_WAKE_DEADLINE", default_value = "600s")]
    pub wake_deadline: HumanDuration,
    /// Ports on the activators, as FIRST-LAST.
    #[arg(long, env = "AUTOSCALER_ACTIVATOR_PORTS", default_value = "10000-31999", value_parser = port_range)]
    pub activator_ports: RangeInclusive<u16>,
    /// Kinds that may be scaled, as GROUP/VERSION/PLURAL with commas between them: each with a /scale
    /// subresource, the count at spec.replicas and a pod template at spec.template.
    #[arg(long, env = "AUTOSCALER_TARGETS", default_value_t, global = true)]
    pub targets: TargetResources,
    /// Namespaces whose workloads are Lull's business, with commas between them; none: all of them.
    #[arg(long, env = "AUTOSCALER_NAMESPACES", default_value_t, global = true)]
    pub namespaces: Namespaces,
    /// Whether Lull has to do with an Istio mesh.
    #[arg(long, env = "AUTOSCALER_MESH", value_enum, default_value_t)]
    pub mesh: MeshMode,
    /// Istio's root namespace, whose policies hold in all others.
    #[arg(
        long,
        env = "AUTOSCALER_MESH_ROOT_NAMESPACE",
        default_value = "istio-system"
    )]
    pub mesh_root_namespace: String,
    /// ConfigMap in the namespace with the cluster-wide default settings; it may be missing.
    #[arg(long, env = "AUTOSCALER_SETTINGS", default_value = "lull-settings")]
    pub settings: String,
    /// Log filter, for instance info or info,kube=debug.
    #[arg(long, env = "AUTOSCALER_LOG", default_value = "info", global = true)]
    pub log: LogFilter,
    /// Log lines as JSON.
    #[arg(long, env = "AUTOSCALER_LOG_JSON", value_parser = BoolishValueParser::new(), global = true)]
    pub log_json: bool,
    /// Test aid: the admin page /crash may name a write after which the process ends. Never in production.
    #[arg(long, env = "AUTOSCALER_CRASH_ON_REQUEST", value_parser = BoolishValueParser::new(), hide = true)]
    pub crash_on_request: bool,
    /// Prometheus text.
    #[arg(long, env = "AUTOSCALER_METRICS_PORT", default_value_t = ports::METRICS)]
    pub metrics_port: u16,
    /// /live, /ready and /config.
    #[arg(long, env = "AUTOSCALER_ADMIN_PORT", default_value_t = ports::ADMIN)]
    pub admin_port: u16,
    /// Status page and its JSON; 0 = none.
    #[arg(long, env = "AUTOSCALER_PAGE_PORT", default_value_t = ports::STATUS_PAGE)]
    pub page_port: u16,
    /// Names by which the status page may be asked for beside its address, localhost and its Service's
    /// names, with commas between them: of an Ingress, or another cluster domain's.
    #[arg(long, env = "AUTOSCALER_PAGE_HOSTS", value_delimiter = ',')]
    pub page_hosts: Vec<String>,
    /// Whether the API server is asked which pods have the addresses of callers that are shown, where
    /// they are not of Lull's workloads.
    #[arg(long, env = "AUTOSCALER_NAME_CALLERS", value_parser = BoolishValueParser::new(),
          action = ArgAction::Set, default_value = "true")]
    pub name_callers: bool,
}

/// Other things that the binary does.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print the ScaledWorkload CRD as JSON.
    Crd,
    /// Make every workload leave, then take away what would bring Lull back (Helm's pre-delete hook).
    Uninstall {
        /// MutatingWebhookConfiguration that is deleted once every workload is plain.
        #[arg(long, default_value = "lull-webhook")]
        webhook_configuration: String,
        /// Longest wait for all workloads.
        #[arg(long, default_value = "10m")]
        timeout: HumanDuration,
    },
    /// Give every workload back from what stands on the objects alone, where the CRD, the webhook or
    /// the autoscalers are gone already; can be cut and run again.
    Restore {
        /// MutatingWebhookConfiguration that is deleted first, where it is there.
        #[arg(long, default_value = "lull-webhook")]
        webhook_configuration: String,
        /// Longest wait for all workloads.
        #[arg(long, default_value = "10m")]
        timeout: HumanDuration,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Send a workload of its own through sleep and wake (`helm test`).
    Canary(CanaryArgs),
    /// Be that workload: answer 200 to every request.
    CanaryApp {
        /// Where it listens.
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
}

/// What the canary is made of.
#[derive(Debug, Clone, clap::Args)]
pub struct CanaryArgs {
    /// Namespace of the canary; not Lull's own.
    #[arg(long)]
    pub into: String,
    /// The canary's image: the autoscaler's own.
    #[arg(long)]
    pub image: String,
    /// Pull policy of that image.
    #[arg(long, default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// Longest wait for sleep, and again for the answer that wakes it.
    #[arg(long, default_value = "3m")]
    pub timeout: HumanDuration,
}

impl Args {
    /// What is watched of a mesh.
    #[must_use]
    pub fn mesh_options(&self) -> MeshOptions {
        MeshOptions {
            mode: self.mesh,
            root_namespace: self.mesh_root_namespace.clone(),
        }
    }

    /// Where Lull's own pods are, by what their selectors say of their labels.
    #[must_use]
    pub fn components(&self) -> Components {
        let name = (NAMESPACE_NAME_LABEL.to_owned(), self.namespace.clone());
        Components {
            namespace: self.namespace.clone(),
            namespace_labels: BTreeMap::from([name]),
            activators: labels_of(&self.activator_selector),
            autoscalers: labels_of(&self.peers),
            localities: BTreeSet::new(),
        }
    }
}

/// Labels that everything has which `selector` selects by equality.
fn labels_of(selector: &str) -> BTreeMap<String, String> {
    let pairs = selector.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| {
            (
                key.trim().to_owned(),
                value.trim_start_matches('=').trim().to_owned(),
            )
        })
        .collect()
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let range = text.split_once('-').and_then(|(first, last)| {
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (1024 <= first && first <= last).then_some(first..=last)
    });
    range.ok_or_else(|| format!("{text:?} is not a range: write FIRST-LAST, from 1024 to 65535"))
}

/// Longest wait for one API call that is not a watch: kube's client has no limit of its own.
pub const API_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_are_checked() {
        assert_eq!(port_range("10000-10009"), Ok(10_000..=10_009));
        for wrong in ["", "1-2", "20000-10000", "x-y", "70000-80000"] {
            assert!(port_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mesh_is_looked_for_unless_said_otherwise() {
        let mode = |args: &[&str]| Args::try_parse_from(args).map(|args| args.mesh).ok();
        assert_eq!(mode(&["autoscaler"]), Some(MeshMode::Auto));
        assert_eq!(
            mode(&["autoscaler", "--mesh", "none"]),
            Some(MeshMode::None)
        );
        assert_eq!(mode(&["autoscaler", "--mesh", "linkerd"]), None);
    }

    #[test]
    fn callers_are_named_unless_that_is_turned_off() {
        let of = |args: &[&str]| {
            Args::try_parse_from(args)
                .map(|args| args.name_callers)
                .ok()
        };
        assert_eq!(of(&["autoscaler"]), Some(true));
        assert_eq!(of(&["autoscaler", "--name-callers", "false"]), Some(false));
    }

    #[test]
    fn targets_are_the_same_before_and_after_a_command() {
        let of = |args: &[&str]| Args::try_parse_from(args).unwrap().targets;
        assert_eq!(of(&["autoscaler"]), TargetResources::default());
        let list = "apps/v1/deployments,argoproj.io/v1alpha1/rollouts";
        let expected: TargetResources = list.parse().unwrap();
        assert_eq!(of(&["autoscaler", "--targets", list]), expected);
        assert_eq!(
            of(&["autoscaler", "uninstall", "--targets", list]),
            expected
        );
        assert_eq!(
            of(&["autoscaler", "--targets", list, "uninstall"]),
            expected
        );
    }

    #[test]
    fn labels_are_read_from_a_selector() {
        let expected =
            [("app", "lull"), ("part", "x")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(
            labels_of("app=lull, part==x,other"),
            BTreeMap::from(expected)
        );
    }

    #[test]
    fn the_chart_s_test_is_understood() {
        let args = [
            "autoscaler",
            "canary",
            "--into",
            "default",
            "--image",
            "lull/autoscaler:1",
        ];
        let Some(Command::Canary(canary)) = Args::try_parse_from(args).unwrap().command else {
            panic!("not a canary");
        };
        assert_eq!(canary.timeout, HumanDuration::from_secs(180));
    }

    #[test]
    fn a_wrong_number_of_shards_is_refused_with_what_is_allowed() {
        let args = Args::try_parse_from(["autoscaler", "--shards", "3"]).unwrap();
        assert_eq!(args.shards.count(), 3);
        let refused = Args::try_parse_from(["autoscaler", "--shards", "65"]).unwrap_err();
        assert!(refused.to_string().contains("write 1 to 64"), "{refused}");
    }
}
