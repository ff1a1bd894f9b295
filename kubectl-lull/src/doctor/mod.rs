//! What is wrong with Lull on a cluster: objects in, findings out. Pure, but for [`look()`].
//!
//! ```text
//! look.rs      reads, with the user's own rights     install.rs   components, Leases, settings
//! webhook.rs   webhook and certificates              rights.rs    the user's and Lull's permissions
//! endpoints.rs slices and workloads                  mesh.rs      Istio
//! crd.rs       the CustomResourceDefinition
//! ```

mod crd;
mod endpoints;
mod install;
mod look;
mod mesh;
mod rights;
mod webhook;

use std::collections::BTreeSet;

use autoscaler::mesh::{MeshMode, WorkloadEntry};
use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::Deployment,
    coordination::v1::Lease, core::v1::Pod, discovery::v1::EndpointSlice,
};
use lull_contract::{
    annotations::DefaultError, scaled_workload::ScaledWorkload, view::WorkloadList,
};
use serde::Serialize;

pub(crate) use look::look;

use crate::{rights::Right, told::LeftOut, workload::Unread};

/// What was read; else why it could not be.
pub(crate) type Read<T> = Result<T, String>;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Area {
    /// What the chart installs.
    Install,
    /// Admission.
    Webhook,
    /// What the API server trusts the webhook by.
    Certificates,
    /// The user's rights and Lull's.
    Permissions,
    /// Istio.
    Mesh,
    /// Endpoints of sleeping workloads.
    Slices,
    /// What stands in the way of single workloads.
    Workloads,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    /// As it should be.
    Good,
    /// It could not be looked at.
    Unknown,
    /// It works, and may not go on to.
    Warning,
    /// It doesn't work.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What it is about.
    pub(crate) area: Area,
    /// How bad it is.
    pub(crate) level: Level,
    /// What was found, as a sentence without its end.
    pub(crate) message: String,
    /// What to do; empty where there is nothing to do.
    pub(crate) fix: String,
}

/// A workload that asks to be run by Lull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OptedIn {
    /// Namespace and kind and name, for people.
    pub(crate) text: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Name of its ScaledWorkload.
    pub(crate) id: String,
    /// Lull doesn't look after it.
    pub(crate) left_out: Option<LeftOut>,
    /// It has a pod template at `spec.template`.
    pub(crate) has_template: bool,
}

/// Workloads with the annotation, of all kinds that Lull is told to look after.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OptedInKinds {
    /// Every one.
    pub(crate) found: Vec<OptedIn>,
    /// What is with the kinds that it leaves alone all the same, as sentences.
    pub(crate) left_alone: Vec<String>,
}

/// What was seen of a cluster.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Lull's own namespace.
    pub(crate) namespace: String,
    /// When.
    pub(crate) now: Timestamp,
    /// What ScaledWorkloads of the cluster don't have and this program knows; `None`: the cluster doesn't
    /// know the kind.
    pub(crate) unknown_fields: Read<Option<Vec<String>>>,
    /// Every ScaledWorkload that can be read; `None`: the cluster doesn't know the kind.
    pub(crate) workloads: Read<Option<Vec<ScaledWorkload>>>,
    /// Why others can't be read, by namespace and name.
    pub(crate) unread: Unread,
    /// Workloads with the annotation.
    pub(crate) opted_in: Read<OptedInKinds>,
    /// Lull's own Deployments.
    pub(crate) deployments: Read<Vec<Deployment>>,
    /// Lull's own pods.
    pub(crate) pods: Read<Vec<Pod>>,
    /// Leases in Lull's namespace.
    pub(crate) leases: Read<Vec<Lease>>,
    /// Names of those that were renewed while they were looked at.
    pub(crate) renewed: BTreeSet<String>,
    /// What each of the autoscaler's replicas tells.
    pub(crate) lists: Read<Vec<WorkloadList>>,
    /// What is wrong with the cluster-wide settings.
    pub(crate) settings: Read<Vec<DefaultError>>,
    /// The webhook's configuration; `None`: there is none.
    pub(crate) webhook: Read<Option<MutatingWebhookConfiguration>>,
    /// Endpoints of the webhook's Service.
    pub(crate) webhook_slices: Read<Vec<EndpointSlice>>,
    /// Whether an annotated Deployment, made in a dry run, got the sidecar.
    pub(crate) is_injected: Read<bool>,
    /// Rights that the user lacks.
    pub(crate) lacking: Read<Vec<Right>>,
    /// Rights that the autoscaler lacks.
    pub(crate) autoscaler_lacking: Read<Vec<Right>>,
    /// Whether the cluster knows Istio's WorkloadEntries.
    pub(crate) knows_istio: Read<bool>,
    /// Pods of istiod.
    pub(crate) istiods: Read<Vec<Pod>>,
    /// What Lull is told of a mesh; [`MeshMode::Auto`] also where that was not seen.
    pub(crate) mesh_mode: MeshMode,
    /// Istio's kinds that the cluster doesn't know, where it knows WorkloadEntries.
    pub(crate) missing_kinds: Read<Vec<String>>,
    /// WorkloadEntries that Lull has written.
    pub(crate) entries: Read<Vec<WorkloadEntry>>,
    /// EndpointSlices that Lull has written.
    pub(crate) slices: Read<Vec<EndpointSlice>>,
}

/// Where Lull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whereabouts<'a> {
    /// In the namespace that was looked at, or some of it.
    Here,
    /// In this namespace, where the API server finds its webhook.
    Elsewhere(&'a str),
    /// Nothing of it was found.
    Nowhere,
}

/// Everything that was looked at, area by area; what is wrong first in each. Where Lull is not, none of
/// its parts is missed one by one.
pub(crate) fn findings(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    crd::find(seen, &mut findings);
    match whereabouts(seen) {
        Whereabouts::Here => {
            install::find(seen, &mut findings);
            webhook::find(seen, &mut findings);
            rights::of_autoscaler(seen, &mut findings);
            endpoints::find(seen, &mut findings);
        }
        Whereabouts::Elsewhere(namespace) => findings.push(install::elsewhere(seen, namespace)),
        Whereabouts::Nowhere => {}
    }
    rights::of_user(seen, &mut findings);
    mesh::find(seen, &mut findings);
    findings.sort_by_key(|finding| (finding.area, std::cmp::Reverse(finding.level)));
    findings
}

fn whereabouts(seen: &Seen) -> Whereabouts<'_> {
    let is_without_parts = seen.deployments.as_ref().is_ok_and(Vec::is_empty);
    if !is_without_parts {
        return Whereabouts::Here;
    }
    let configuration = seen.webhook.as_ref().ok().and_then(Option::as_ref);
    let webhooks = configuration
        .into_iter()
        .flat_map(|c| c.webhooks.iter().flatten());
    let mut services = webhooks.filter_map(|webhook| webhook.client_config.service.as_ref());
    match services.next() {
        Some(service) if service.namespace != seen.namespace => {
            Whereabouts::Elsewhere(&service.namespace)
        }
        None if matches!(seen.workloads, Ok(None)) => Whereabouts::Nowhere,
        _ => Whereabouts::Here,
    }
}

// === impl Area ===

impl Area {
    /// As a heading.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Install => "Install",
            Self::Webhook => "Webhook",
            Self::Certificates => "Certificates",
            Self::Permissions => "Permissions",
            Self::Mesh => "Mesh",
            Self::Slices => "Slices",
            Self::Workloads => "Workloads",
        }
    }

    fn good(self, message: impl Into<String>) -> Finding {
        self.finding(Level::Good, message, "")
    }

    fn warning(self, message: impl Into<String>, fix: impl Into<String>) -> Finding {
        self.finding(Level::Warning, message, fix)
    }

    fn problem(self, message: impl Into<String>, fix: impl Into<String>) -> Finding {
        self.finding(Level::Problem, message, fix)
    }

    /// What could not be read, where it could not.
    fn unknown(self, what: &str, why: &str) -> Finding {
        let fix = "the reason stands in brackets; a right that is missing is yours to ask for";
        self.finding(Level::Unknown, format!("{what}: not seen ({why})"), fix)
    }

    fn finding(self, level: Level, message: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            area: self,
            level,
            message: message.into(),
            fix: fix.into(),
        }
    }
}

/// Namespace and name of an object.
fn place(object: &impl kube::ResourceExt) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Addresses of the endpoints that take traffic.
fn ready_addresses<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> BTreeSet<&'a str> {
    let endpoints = slices.into_iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready) != Some(false)
    });
    ready
        .flat_map(|endpoint| endpoint.addresses.iter().map(String::as_str))
        .collect()
}

#[cfg(test)]
mod tests;
