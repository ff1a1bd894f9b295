//! `plan`: what enrolment would do with a workload, and what stands in its way.

use autoscaler::{plan::Finding, target::Target};
use lull_contract::{
    Settings,
    annotations::{self, LEAVE, ScaleMode},
    names::private_service,
    target_resource::TargetResource,
};
use serde::Serialize;

use super::Asked;
use crate::{
    cli::Which,
    gather::{self, Planned},
    output::{Outcome, Output},
    style::{Paint, Style},
    told::LeftOut,
    workload::Workload,
};

/// Reasons of refusals that no autoscaler tells of: it doesn't see such a workload at all.
const NOT_A_TARGET: &str = "NotATarget";
const OTHER_NAMESPACE: &str = "OtherNamespace";
/// The same of one that is on its way out, or was left there.
const ASKED_TO_LEAVE: &str = "AskedToLeave";

/// What comes of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// Lull would run the workload.
    WouldEnrol,
    /// Something stands in the way.
    Refused,
    /// Lull runs it, and nothing stands in the way.
    Enrolled,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    workload: String,
    namespace: String,
    verdict: Verdict,
    steps: Vec<String>,
    refusals: Vec<Found>,
    warnings: Vec<Found>,
    settings: Settings,
    missing: Vec<String>,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Found {
    reason: String,
    object: String,
    message: String,
}

/// Shows the plan.
///
/// # Errors
/// Where there is no such workload, or the API server can't say.
pub(super) async fn run(asked: Asked<'_>, which: &Which) -> anyhow::Result<Output> {
    let cluster = asked.cluster;
    let workload = Workload::find(cluster, &which.workload).await?;
    let planned = gather::planned(cluster, &workload).await?;
    let page = Page::new(&workload, planned);
    let is_on = annotations::mode(&workload.target.annotations) == ScaleMode::On;
    let mut text = page.text(asked.style);
    if page.verdict == Verdict::WouldEnrol && !is_on {
        let name = named(&workload.resource, &workload.target.name);
        let (namespace, flags) = (&cluster.namespace, &cluster.flags);
        text.push_str(&format!(
            "\nTo do it: kubectl lull on {name} -n {namespace}{flags}\n"
        ));
    }
    let outcome = page.outcome();
    Output::new(&page, text, outcome)
}

/// The workload as it may be named on the command line.
fn named(resource: &TargetResource, name: &str) -> String {
    match resource.to_string().as_str() {
        "apps/v1/deployments" => format!("deploy/{name}"),
        "apps/v1/statefulsets" => format!("sts/{name}"),
        other => format!("{other}/{name}"),
    }
}

impl From<&Finding> for Found {
    fn from(finding: &Finding) -> Self {
        Self {
            reason: finding.reason.to_string(),
            object: finding.object.clone(),
            message: finding.message.clone(),
        }
    }
}

// === impl Page ===

impl Page {
    /// What is said of `planned`.
    pub(super) fn new(workload: &Workload, planned: Planned) -> Self {
        let (target, plan) = (&workload.target, &planned.plan);
        let left_out = planned.left_out.map(|why| Found::left_out(workload, why));
        let leaves = Found::leaves(&workload.resource, target);
        let unseen = left_out.into_iter().chain(leaves);
        let refusals = unseen.chain(plan.refusals().map(Found::from));
        let refusals: Vec<Found> = refusals.collect();
        let verdict = match (!refusals.is_empty(), planned.is_enrolled) {
            (true, _) => Verdict::Refused,
            (false, true) => Verdict::Enrolled,
            (false, false) => Verdict::WouldEnrol,
        };
        let steps = match verdict {
            Verdict::WouldEnrol => plan.steps(&private_service(&target.id())),
            Verdict::Refused | Verdict::Enrolled => Vec::new(),
        };
        Self {
            workload: target.to_string(),
            namespace: target.namespace.clone(),
            verdict,
            steps,
            refusals,
            warnings: plan.warnings().map(Found::from).collect(),
            settings: planned.settings,
            missing: planned.missing,
        }
    }

    /// Whether something stands in the way.
    pub(super) fn is_refused(&self) -> bool {
        self.verdict == Verdict::Refused
    }

    /// How a command ends whose answer this is.
    pub(super) fn outcome(&self) -> Outcome {
        if self.is_refused() {
            Outcome::Found
        } else {
            Outcome::Done
        }
    }

    /// For people.
    pub(super) fn text(&self, style: Style) -> String {
        let (sentence, paint) = match self.verdict {
            Verdict::WouldEnrol => ("Lull would run it", Paint::Good),
            Verdict::Refused => ("something stands in the way", Paint::Bad),
            Verdict::Enrolled => ("Lull runs it, and nothing stands in the way", Paint::Good),
        };
        let Self {
            workload,
            namespace,
            ..
        } = self;
        let sentence = style.paint(paint, sentence);
        let mut text = format!("{workload} in namespace {namespace}: {sentence}\n");
        let numbered = self.steps.iter().enumerate();
        let steps = numbered.map(|(index, step)| format!("{}. {step}", index + 1));
        section(&mut text, "What it would do", steps, style);
        let refusals = self
            .refusals
            .iter()
            .map(|found| found.line(style, Paint::Bad));
        section(&mut text, "In the way", refusals, style);
        let warnings = self
            .warnings
            .iter()
            .map(|found| found.line(style, Paint::Warn));
        section(&mut text, "Worth knowing", warnings, style);
        section(&mut text, "Not seen", self.missing.iter().cloned(), style);
        let settings = &self.settings;
        let line = format!(
            "asleep after {} without traffic, {} to {} pods, requests of up to {}",
            settings.window,
            settings.min_scale,
            bound(settings.max_scale),
            settings.timeout
        );
        section(&mut text, "Settings", [line], style);
        text
    }
}

/// The most pods, in words.
fn bound(max_scale: u32) -> String {
    match max_scale {
        0 => "any number of".to_owned(),
        most => most.to_string(),
    }
}

/// Adds `lines` below `title`; nothing where there are none.
fn section(text: &mut String, title: &str, lines: impl IntoIterator<Item = String>, style: Style) {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_none() {
        return;
    }
    text.push_str(&format!("\n{}:\n", style.paint(Paint::Strong, title)));
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
}

// === impl Found ===

impl Found {
    /// The chart's targets are not for Deployments and StatefulSets, which are always looked after.
    fn left_out(workload: &Workload, why: LeftOut) -> Self {
        let (reason, message) = match why {
            LeftOut::Kind => (
                NOT_A_TARGET,
                format!(
                    "is of a kind that Lull doesn't look after; add {} to the chart's value targets",
                    workload.resource
                ),
            ),
            LeftOut::Namespace => (
                OTHER_NAMESPACE,
                format!(
                    "is in a namespace that Lull doesn't look after; add {} to the chart's value \
                     namespaces (never kube-system, nor Lull's own)",
                    workload.target.namespace
                ),
            ),
            LeftOut::Never => (
                OTHER_NAMESPACE,
                format!(
                    "is in namespace {}: in kube-system and in Lull's own namespace nothing is ever \
                     enrolled",
                    workload.target.namespace
                ),
            ),
        };
        Self {
            reason: reason.to_owned(),
            object: workload.target.to_string(),
            message,
        }
    }

    /// Where a mark keeps it out of Lull, whatever else is asked for: an uninstall that was cut leaves it.
    fn leaves(resource: &TargetResource, target: &Target) -> Option<Self> {
        annotations::leave(&target.annotations)?;
        let (name, namespace) = (&target.name, &target.namespace);
        let kind = match resource.group.as_str() {
            "" => resource.plural.clone(),
            group => format!("{}.{group}", resource.plural),
        };
        Some(Self {
            reason: ASKED_TO_LEAVE.to_owned(),
            object: target.to_string(),
            message: format!(
                "carries {LEAVE}, by which it stays out of Lull; where no uninstall is under way: kubectl \
                 annotate {kind} {name} -n {namespace} {LEAVE}-"
            ),
        })
    }

    fn line(&self, style: Style, paint: Paint) -> String {
        let reason = style.paint(paint, &self.reason);
        format!("{reason}: {} {}", self.object, self.message)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::apps::v1::Deployment;
    use kube::core::ApiResource;
    use serde_json::json;

    use super::*;
    use crate::name::{Kind, WorkloadName};

    fn page(verdict: Verdict) -> Page {
        let found = |reason: &str| Found {
            reason: reason.to_owned(),
            object: "Service shop".to_owned(),
            message: "is odd".to_owned(),
        };
        Page {
            workload: "Deployment shop".to_owned(),
            namespace: "web".to_owned(),
            verdict,
            steps: vec!["create Service shop-lull".to_owned()],
            refusals: vec![found("Headless")],
            warnings: Vec::new(),
            settings: Settings::default(),
            missing: vec!["you may not list NetworkPolicies".to_owned()],
        }
    }

    #[test]
    fn a_plan_names_what_is_in_the_way_and_what_was_not_seen() {
        let page = page(Verdict::Refused);
        let text = page.text(Style::PLAIN);
        for line in [
            "Deployment shop in namespace web: something stands in the way\n",
            "  1. create Service shop-lull\n",
            "In the way:\n  Headless: Service shop is odd\n",
            "Not seen:\n  you may not list NetworkPolicies\n",
            "asleep after 60s without traffic, 0 to any number of pods",
        ] {
            assert!(text.contains(line), "{line:?} is not in {text}");
        }
        assert!(!text.contains("Worth knowing"), "{text}");
        assert_eq!(page.outcome(), Outcome::Found);
    }

    #[test]
    fn a_workload_is_named_so_that_it_can_be_typed_again() {
        for text in ["deploy/shop", "sts/shop", "example.org/v1/deployments/shop"] {
            let WorkloadName { kind, name } = text.parse().unwrap();
            let resource = match kind {
                Kind::Resource(resource) => resource,
                other => panic!("{text} is taken for {other:?}"),
            };
            assert_eq!(named(&resource, &name), text);
        }
    }

    #[test]
    fn what_an_uninstall_has_marked_is_not_said_to_be_enrolled() {
        let kind = Arc::new(ApiResource::erase::<Deployment>(&()));
        let resource = "apps/v1/deployments".parse().unwrap();
        let leaves = |annotations: serde_json::Value| {
            let metadata =
                json!({ "name": "shop", "namespace": "web", "annotations": annotations });
            let object = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
            Found::leaves(&resource, &Target::new(&kind, object))
        };
        assert!(leaves(json!({ "lull.dev/scale": "true" })).is_none());
        let marks = json!({ "lull.dev/scale": "true", "lull.dev/leave": "requested" });
        let found = leaves(marks).unwrap();
        assert_eq!(found.reason, ASKED_TO_LEAVE);
        let fix = "kubectl annotate deployments.apps shop -n web lull.dev/leave-";
        assert!(found.message.ends_with(fix), "{}", found.message);
    }

    #[test]
    fn a_verdict_is_one_word_for_scripts() {
        let json = serde_json::to_value(page(Verdict::WouldEnrol)).unwrap();
        assert_eq!(json["verdict"], "would-enrol");
        assert_eq!(json["refusals"][0]["reason"], "Headless");
        assert_eq!(page(Verdict::WouldEnrol).outcome(), Outcome::Done);
    }
}
