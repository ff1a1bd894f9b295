//! The `lull.dev/*` annotations on a workload: keys, allowed values, and how they become
//! [`Settings`].
//!
//! [`parse_with`] reads everything and reports every fault at once, each with key, value and what is
//! allowed; the webhook turns the list into the refusal that the user sees. A setting is the
//! workload's own, else the cluster-wide one ([`Defaults`]), else the built-in one.

use std::collections::BTreeMap;

use crate::{
    injected::Sidecar,
    settings::{AppPort, AppProtocol, Settings},
};
use reader::{Reader, whole};

mod defaults;
mod reader;
mod resources;
mod settings;

pub use defaults::{DefaultError, Defaults};
pub use resources::SidecarResources;

/// Prefix of all our annotations and labels.
pub const PREFIX: &str = "lull.dev/";
/// The one annotation that turns Lull on.
pub const SCALE: &str = "lull.dev/scale";
/// Which app ports Lull serves.
pub const PORTS: &str = "lull.dev/ports";
/// Longest time of a request.
pub const TIMEOUT: &str = "lull.dev/timeout";
/// How long activators hold.
pub const HOLD_TIMEOUT: &str = "lull.dev/hold-timeout";
/// How long callers in a mesh may try to connect; by it Lull writes a DestinationRule.
pub const CONNECT_TIMEOUT: &str = "lull.dev/connect-timeout";
/// Whether activators stay among a mesh's endpoints while the workload is awake, behind its pods; by it
/// Lull writes a DestinationRule.
pub const STANDBY: &str = "lull.dev/standby";
/// The user's word that pods may get traffic from activators although a NetworkPolicy lets in only
/// some callers: activators let everybody through who reaches them.
pub const ACCEPT_ACTIVATOR_SOURCE: &str = "lull.dev/accept-activator-source";
/// Set by the autoscaler while a workload leaves: see [`Leave`].
pub const LEAVE: &str = "lull.dev/leave";

/// Keys under our prefix on a workload that are not settings.
const INTERNAL_KEYS: [&str; 2] = [LEAVE, crate::names::ORIGINAL_ANNOTATION];

/// What is allowed for a switch.
const BOOLEAN: &str = "must be \"true\" or \"false\"";

/// What the annotations of one workload say.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// The resolved settings.
    pub settings: Settings,
    /// App ports, where the user named them; else the template's declared ports count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<AppPort>>,
    /// Resources of the sidecar.
    pub sidecar: SidecarResources,
    /// Whether the sidecar writes a line for each request.
    pub access_log: bool,
    /// Whether the sidecar tells who calls.
    pub name_callers: bool,
}

/// What the annotation [`SCALE`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleMode {
    /// Nothing; also while the workload is on its way out.
    Off,
    /// To be told what Lull would do, and nothing else.
    DryRun,
    /// To be run by Lull.
    On,
}

/// How far a workload has got on its way out of Lull (value of [`LEAVE`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Somebody (the uninstall hook) asked; the autoscaler wakes it and restores its Services.
    Requested,
    /// Services are restored: the webhook takes the sidecar out of the template.
    Uninject,
}

/// One wrong annotation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key}={value:?}: {allowed}")]
pub struct AnnotationError {
    /// The whole key.
    pub key: String,
    /// The value as given.
    pub value: String,
    /// What is allowed, as a sentence part.
    pub allowed: String,
}

type Annotations = BTreeMap<String, String>;

/// The progress of leaving that the annotations state.
#[must_use]
pub fn leave(annotations: &Annotations) -> Option<Leave> {
    match annotations.get(LEAVE)?.as_str() {
        "uninject" => Some(Leave::Uninject),
        _ => Some(Leave::Requested),
    }
}

/// What the workload asks for.
#[must_use]
pub fn mode(annotations: &Annotations) -> ScaleMode {
    if leave(annotations).is_some() {
        return ScaleMode::Off;
    }
    match annotations.get(SCALE).map(String::as_str) {
        Some("true") => ScaleMode::On,
        Some("dry-run") => ScaleMode::DryRun,
        _ => ScaleMode::Off,
    }
}

/// Whether the workload asks to be run by Lull and is not on its way out.
#[must_use]
pub fn opted_in(annotations: &Annotations) -> bool {
    mode(annotations) == ScaleMode::On
}

/// The app ports that the annotations name, where they do and can be read.
#[must_use]
pub fn named_ports(annotations: &Annotations) -> Option<Vec<AppPort>> {
    parse_ports(annotations.get(PORTS)?)
}

/// Whether the user has accepted that pods get traffic from activators.
#[must_use]
pub fn accepts_activator_source(annotations: &Annotations) -> bool {
    let value = annotations.get(ACCEPT_ACTIVATOR_SOURCE);
    value.is_some_and(|value| value == "true")
}

/// Reads every `lull.dev/` annotation of a workload, with the built-in defaults.
///
/// # Errors
/// Every wrong value and every unknown key, in the order of the keys' names.
pub fn parse(annotations: &Annotations) -> Result<Wanted, Vec<AnnotationError>> {
    parse_with(annotations, &Defaults::default())
}

/// The same with cluster-wide defaults for what the workload does not say itself.
///
/// What the workload says always wins: where a default clashes with it (a `max-scale` below the
/// workload's own `min-scale`), the default takes the workload's value. A default never makes a
/// fault.
///
/// # Errors
/// Every wrong value and every unknown key, in the order of the keys' names.
pub fn parse_with(
    annotations: &Annotations,
    defaults: &Defaults,
) -> Result<Wanted, Vec<AnnotationError>> {
    parse_injected(annotations, defaults, None)
}

/// The same for a workload that runs with `sidecar`: what it was told counts, and what follows from
/// that (`target-burst-capacity`, `hold-timeout`), whatever annotations and defaults say by now.
///
/// # Errors
/// Every wrong value and every unknown key, in the order of the keys' names.
pub fn parse_injected(
    annotations: &Annotations,
    defaults: &Defaults,
    sidecar: Option<&Sidecar>,
) -> Result<Wanted, Vec<AnnotationError>> {
    let mut reader = Reader::new(annotations, &defaults.values);
    let allowed = "must be \"true\", \"false\" or \"dry-run\"";
    reader.read(SCALE, allowed, |v| {
        matches!(v, "true" | "false" | "dry-run").then_some(())
    });
    reader.read(ACCEPT_ACTIVATOR_SOURCE, BOOLEAN, |v| v.parse::<bool>().ok());
    let ports = reader.read(
        PORTS,
        "must be a comma-separated list of different port numbers 1-65535, each with /tcp behind it \
         where its bytes are not HTTP, for instance \"8080,5432/tcp\"",
        parse_ports,
    );
    let shared = read_shared(&mut reader, sidecar);
    reader.refuse_unread(&INTERNAL_KEYS, "is not a key that Lull knows; known are");
    reader.finish(Wanted { ports, ..shared })
}

/// Everything that a workload can have from the cluster-wide defaults.
fn read_shared(r: &mut Reader<'_>, injected: Option<&Sidecar>) -> Wanted {
    Wanted {
        settings: settings::read(r, injected),
        ports: None,
        sidecar: SidecarResources::read(r),
        access_log: r.read_or("lull.dev/access-log", false, BOOLEAN, |v| v.parse().ok()),
        name_callers: r.read_or("lull.dev/name-callers", true, BOOLEAN, |v| v.parse().ok()),
    }
}

fn parse_ports(value: &str) -> Option<Vec<AppPort>> {
    let mut ports: Vec<AppPort> = Vec::new();
    for item in value.split(',').map(str::trim) {
        let (number, protocol) = match item.strip_suffix("/tcp") {
            Some(number) => (number, AppProtocol::Tcp),
            None => (
                item.strip_suffix("/http").unwrap_or(item),
                AppProtocol::Http,
            ),
        };
        let number = whole(number)
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0)?;
        if ports.iter().any(|port| port.number == number) {
            return None;
        }
        ports.push(AppPort { number, protocol });
    }
    Some(ports)
}

#[cfg(test)]
mod tests;
