//! What becomes of a workload (a Deployment, StatefulSet or the like): a pure function of the old object, the new one and the config.
//!
//! ```text
//! opted in ----------> template as it was, where the user left it alone; else injected afresh
//! wrong annotations -> refused; a warning where they were there before
//! leave: uninject ---> template exactly as the user wrote it
//! anything else -----> an injected template stays injected until the Services are restored
//! ```
//!
//! Objects stay raw JSON: a typed round trip would drop fields that this build doesn't know.

use std::{collections::BTreeMap, sync::Arc};

use lull_contract::{
    Class,
    annotations::{self, Defaults, Leave, Wanted},
    injected::Sidecar,
};
use lull_injection::{Renumbered, shape, strip};
use lull_process::otlp::Endpoint;
use serde_json::Value;

mod classic;
mod ports;
mod probes;
mod render;
mod renumbered;
mod sidecar;

pub use lull_injection::{Image, Record};
use render::{Parts, render};

/// Where every kind that Lull scales keeps its pod template.
const TEMPLATE: &str = "/spec/template";

/// What the operator of the cluster decides about injection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectConfig {
    /// The sidecar that a template gets when it is injected afresh.
    pub image: Image,
    /// What workloads get that don't say it themselves.
    pub defaults: Arc<Defaults>,
    /// Collector of the sidecar's spans, where it is injected afresh; `None` = no spans.
    pub otlp_endpoint: Option<Endpoint>,
    /// Istio's container is an ordinary one in pods that don't say what it is; for templates that are
    /// injected afresh.
    pub classic_proxies: bool,
}

/// The object as it shall be, and what the user should know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mutation {
    /// The whole object.
    pub object: Value,
    /// Shown by kubectl, one line each.
    pub warnings: Vec<String>,
}

/// The object can't be admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .messages.join("\n"))]
pub struct Refusal {
    /// Every reason, one line each, with the object's kind and name in front.
    pub messages: Vec<String>,
}

/// The injected template that the old object had.
struct Before<'a> {
    template: &'a Value,
    /// The old object's own.
    annotations: BTreeMap<String, String>,
    /// `None` where it can't be read.
    record: Option<Record>,
    /// The template without our parts.
    base: Value,
    /// No pod is of another template.
    is_rolled_out: bool,
}

/// Decides what becomes of `new`, which replaces `old`.
///
/// # Errors
/// Wrong annotations that are new, and workloads that can't be run by Lull at all.
pub fn mutate(
    old: Option<&Value>,
    new: &Value,
    config: &InjectConfig,
) -> Result<Mutation, Refusal> {
    // What stands between a finalizer and the end of an object must never be an old annotation.
    if new.pointer("/metadata/deletionTimestamp").is_some() {
        return Ok(unchanged(new));
    }
    let annotations = annotations_of(new);
    if annotations::leave(&annotations) == Some(Leave::Uninject) {
        return Ok(uninject(old, new, &annotations));
    }
    // Whoever is on its way out is let go whatever its annotations say.
    let is_leaving = annotations::leave(&annotations).is_some();
    let before = old.and_then(Before::of);
    let wanted = if annotations.contains_key(annotations::SCALE) && !is_leaving {
        match annotations::parse_with(&annotations, &config.defaults) {
            Ok(wanted) => Some(wanted),
            Err(faults) if are_known(old, &annotations) => {
                let mut mutation = as_before(before.as_ref(), new)?;
                mutation.warnings.extend(refusal(new, &faults).messages);
                return Ok(mutation);
            }
            Err(faults) => return Err(refusal(new, &faults)),
        }
    } else {
        None
    };
    match wanted {
        Some(wanted) if annotations::opted_in(&annotations) => {
            enrol(old, before.as_ref(), new, &wanted, config)
        }
        _ => as_before(before.as_ref(), new),
    }
}

/// Whether the object's template carries the sidecar.
#[must_use]
pub fn is_injected(object: &Value) -> bool {
    object.pointer(TEMPLATE).is_some_and(shape::is_injected)
}

fn annotations_of(object: &Value) -> BTreeMap<String, String> {
    shape::string_map(object.pointer("/metadata/annotations"))
}

/// Whether `annotations` has what it has of Lull from the old object. Somebody who changes an image can't
/// help a fault that got past another release of Lull, or came while the webhook was away.
fn are_known(old: Option<&Value>, annotations: &BTreeMap<String, String>) -> bool {
    let ours = |mut all: BTreeMap<String, String>| {
        all.retain(|key, _| key.starts_with(annotations::PREFIX));
        all
    };
    old.is_some_and(|old| ours(annotations_of(old)) == ours(annotations.clone()))
}

fn as_before(before: Option<&Before<'_>>, new: &Value) -> Result<Mutation, Refusal> {
    before.map_or_else(|| Ok(unchanged(new)), |before| keep_injected(before, new))
}

fn unchanged(new: &Value) -> Mutation {
    Mutation {
        object: new.clone(),
        warnings: Vec::new(),
    }
}

fn left_alone(new: &Value, why: &str) -> Mutation {
    Mutation {
        object: new.clone(),
        warnings: vec![format!("lull.dev leaves this workload as it is: {why}")],
    }
}

fn refusal<E: ToString>(new: &Value, reasons: &[E]) -> Refusal {
    let name = shape::name(new).unwrap_or("(no name)");
    let kind = shape::kind(new).to_ascii_lowercase();
    let messages = reasons
        .iter()
        .map(|reason| format!("{kind} {name}: {}", reason.to_string()))
        .collect();
    Refusal { messages }
}

fn enrol(
    old: Option<&Value>,
    before: Option<&Before<'_>>,
    new: &Value,
    wanted: &Wanted,
    config: &InjectConfig,
) -> Result<Mutation, Refusal> {
    let Some(name) = shape::workload_id(new) else {
        return Ok(left_alone(
            new,
            "it has no name yet (metadata.generateName); its next update takes it up",
        ));
    };
    let template = match shape::understood(new.pointer(TEMPLATE)) {
        Ok(template) => template,
        Err(why) => return Ok(left_alone(new, &why)),
    };
    let base = strip(template, before.and_then(|b| b.record.as_ref()));
    if let Err(why) = shape::understood(Some(&base)) {
        return Ok(left_alone(new, &why));
    }
    let sidecar = sidecar::resolve(wanted, &base, config.otlp_endpoint.as_ref())
        .map_err(|why| refusal(new, &[why]))?;
    let renumbered = before.map(|before| before.renumbered(&base, &sidecar.ports));
    let renumbered = renumbered.unwrap_or_default();
    let warnings = before.map(|before| before.no_longer_served(&sidecar, &renumbered));
    let template = match before {
        Some(before) if before.base == base && before.still_fits(&sidecar, new) => {
            before.template.clone()
        }
        _ => {
            let parts = Parts {
                sidecar: &sidecar,
                renumbered,
                image: &config.image,
                classic_proxies: config.classic_proxies,
            };
            render(&base, &name, parts).map_err(|why| refusal(new, &[why]))?
        }
    };
    let mut mutation = with_template(new, template);
    mutation.warnings.extend(warnings.unwrap_or_default());
    if before.is_some() && wanted.settings.class != Class::None {
        keep_replicas(old, &mut mutation);
    }
    Ok(mutation)
}

/// The sidecar outlives the annotation: Services still point at it.
fn keep_injected(before: &Before<'_>, new: &Value) -> Result<Mutation, Refusal> {
    let template = match shape::understood(new.pointer(TEMPLATE)) {
        Ok(template) => template,
        Err(why) => return Ok(left_alone(new, &why)),
    };
    let base = strip(template, before.record.as_ref());
    if base == before.base {
        return Ok(with_template(new, before.template.clone()));
    }
    let (Some(record), Some(name)) = (&before.record, shape::workload_id(new)) else {
        return Ok(left_alone(
            new,
            "the template's annotation lull.dev/injected can't be read",
        ));
    };
    if let Err(why) = shape::understood(Some(&base)) {
        return Ok(left_alone(new, &why));
    }
    let renumbered = before.renumbered(&base, &record.sidecar.ports);
    let parts = Parts {
        sidecar: &record.sidecar,
        renumbered,
        image: &record.image,
        classic_proxies: record.classic.is_some(),
    };
    render(&base, &name, parts)
        .map(|template| with_template(new, template))
        .map_err(|why| refusal(new, &[why]))
}

fn uninject(old: Option<&Value>, new: &Value, annotations: &BTreeMap<String, String>) -> Mutation {
    let record = old.and_then(Before::of).and_then(|before| before.record);
    let mut mutation = unchanged(new);
    if let Some(template) = mutation.object.pointer_mut(TEMPLATE) {
        *template = strip(template, record.as_ref());
    }
    // While it still asks for Lull, this annotation alone keeps it from being injected again.
    let asks = annotations.get(annotations::SCALE).map(String::as_str) == Some("true");
    let map = mutation
        .object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    if let (false, Some(map)) = (asks, map) {
        map.remove(annotations::LEAVE);
    }
    mutation
}

fn with_template(new: &Value, template: Value) -> Mutation {
    let mut mutation = unchanged(new);
    if let Some(place) = mutation.object.pointer_mut(TEMPLATE) {
        *place = template;
    }
    mutation
}

/// A manifest that is applied again must not wake or cut down what Lull scales.
fn keep_replicas(old: Option<&Value>, mutation: &mut Mutation) {
    let Some(kept) = old.and_then(|old| old.pointer("/spec/replicas")) else {
        return;
    };
    let Some(spec) = mutation
        .object
        .pointer_mut("/spec")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let asked = spec.get("replicas").cloned().unwrap_or(Value::Null);
    if asked != *kept {
        spec.insert("replicas".to_owned(), kept.clone());
        mutation.warnings.push(format!(
            "spec.replicas={asked} is kept at {kept}: lull.dev scales this workload; \
             use kubectl scale"
        ));
    }
}

// === impl Before ===

impl<'a> Before<'a> {
    fn of(old: &'a Value) -> Option<Self> {
        let template = old.pointer(TEMPLATE).filter(|t| shape::is_injected(t))?;
        let record = Record::of(template);
        let base = strip(template, None);
        Some(Self {
            template,
            annotations: annotations_of(old),
            record,
            base,
            is_rolled_out: renumbered::is_rolled_out(old),
        })
    }

    /// Whether the sidecar in the template is right for `new`, which asks for `sidecar`: it is that
    /// one, or one that only the defaults of another day have made different.
    fn still_fits(&self, sidecar: &Sidecar, new: &Value) -> bool {
        let annotations = (&self.annotations, &annotations_of(new));
        self.record
            .as_ref()
            .is_some_and(|Record { sidecar: runs, .. }| {
                runs == sidecar || sidecar::is_as_the_user_left_it(runs, sidecar, annotations)
            })
    }

    /// What to say where the sidecar served ports that it will not serve: a Service that targets such a
    /// one by its number leads to no new pod, or will lead to none when another template comes.
    fn no_longer_served(&self, sidecar: &Sidecar, renumbered: &[Renumbered]) -> Vec<String> {
        let served = self.record.iter().flat_map(|record| &record.sidecar.ports);
        let is_gone = |number: u16| sidecar.ports.iter().all(|port| port.number != number);
        let (mut gone, mut warnings) = (Vec::new(), Vec::new());
        for number in served.map(|port| port.number).filter(|n| is_gone(*n)) {
            match renumbered.iter().find(|port| port.was == number) {
                Some(Renumbered { was, is }) => warnings.push(format!(
                    "port {was} is {is} now: a Service that targets it by its number needs the new one"
                )),
                None => gone.push(number.to_string()),
            }
        }
        if !gone.is_empty() {
            warnings.push(format!(
                "the sidecar serves port {} no more: a Service that targets it leads to no new pod, \
                 unless lull.dev/ports names it",
                gone.join(", ")
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests;
