//! NetworkPolicies that select the pods: whether they let in what Lull needs, and whether an
//! activator would let in more than they do.

use std::sync::Arc;

use lull_contract::ports::traffic_port_name;
use serde_json::json;

use super::{Components, Finding, Labels, Reason, Situation, Template};
use crate::{
    config::NAMESPACE_NAME_LABEL,
    stores::{NetworkPolicy, Rule, Source},
};

/// Label that all of Lull's pods have.
const PART_OF: &str = "app.kubernetes.io/part-of";

/// A port of the sidecar, as a rule may name it.
type Door<'a> = (&'a str, u16);

/// Findings about the policies that let only some traffic in.
///
/// Rules of all policies that select a pod add up, so they are judged together and told of the
/// first of them. Egress policies of callers can't be known from here.
pub(super) fn find(situation: &Situation<'_>, findings: &mut Vec<Finding>) {
    let template = situation.template;
    let mut policies: Vec<&NetworkPolicy> = situation
        .policies
        .iter()
        .map(Arc::as_ref)
        .filter(|policy| policy.isolates(&template.labels))
        .collect();
    policies.sort_by(|a, b| a.name.cmp(&b.name));
    let Some(first) = policies.first() else {
        return;
    };
    let object = format!("NetworkPolicy {}", first.name);
    let rules = Rules {
        rules: policies.iter().flat_map(|policy| &policy.rules).collect(),
        namespace: &first.namespace,
        lull: situation.lull,
    };
    let mut missing: Vec<String> = Vec::new();
    let mut narrow: Vec<String> = Vec::new();
    for app_port in &template.app_ports {
        rules.judge(template, app_port.number, (&mut missing, &mut narrow));
    }
    let (activators, autoscalers) = (&situation.lull.activators, &situation.lull.autoscalers);
    for (name, number, labels, who) in [
        ("lull-admin", template.admin_port, activators, "activators"),
        (
            "lull-report",
            template.report_port,
            autoscalers,
            "autoscaler",
        ),
    ] {
        if !rules.admit((name, number), labels) {
            missing.push(format!("{name} ({number}) from Lull's {who}"));
        }
    }
    if !missing.is_empty() {
        findings.push(Finding::new(
            Reason::PolicyBlocks,
            &object,
            format!(
                "{}lets in less than Lull needs; add ingress rules for {}. Lull's pods are in \
                 namespace {}, and this rule lets all of them in: {}",
                beside(&policies),
                missing.join(", "),
                situation.lull.namespace,
                rule_for_lull(template, situation.lull)
            ),
        ));
    }
    if !narrow.is_empty() && !situation.asks.accepts_activator_source {
        findings.push(Finding::new(
            Reason::PolicyNarrower,
            &object,
            format!(
                "{}lets only some callers in on {}, but activators let everybody through who \
                 reaches them; set lull.dev/accept-activator-source: \"true\" where that is right, \
                 or let everybody in",
                beside(&policies),
                narrow.join(", ")
            ),
        ));
    }
}

/// The ingress rule for all that comes from Lull, as it stands in a policy (JSON is YAML, too).
fn rule_for_lull(template: &Template, lull: &Components) -> String {
    let namespace = json!({ "matchLabels": { NAMESPACE_NAME_LABEL: lull.namespace } });
    let part_of = lull.activators.get(PART_OF);
    let from = match part_of.filter(|name| lull.autoscalers.get(PART_OF) == Some(*name)) {
        Some(name) => json!({
            "namespaceSelector": namespace,
            "podSelector": { "matchLabels": { PART_OF: name } },
        }),
        None => json!({ "namespaceSelector": namespace }),
    };
    let traffic = template.app_ports.iter();
    let traffic = traffic.map(|port| traffic_port_name(port.number));
    let small = ["lull-admin", "lull-report"].map(str::to_owned);
    let ports = traffic.chain(small).map(|port| json!({ "port": port }));
    json!({ "from": [from], "ports": ports.collect::<Vec<_>>() }).to_string()
}

/// Names of the policies after the first, for people.
fn beside(policies: &[&NetworkPolicy]) -> String {
    let others: Vec<&str> = policies.iter().skip(1).map(|p| p.name.as_str()).collect();
    if others.is_empty() {
        String::new()
    } else {
        format!("(with {}) ", others.join(", "))
    }
}

/// Every rule that lets something in.
struct Rules<'a> {
    rules: Vec<&'a Rule>,
    /// Of the policies and the pods.
    namespace: &'a str,
    lull: &'a Components,
}

// === impl Rules ===

impl Rules<'_> {
    /// Whether pods of Lull with these labels are let in at `door`.
    fn admit(&self, (name, number): Door<'_>, labels: &Labels) -> bool {
        let source = Source {
            namespace: &self.lull.namespace,
            namespace_labels: &self.lull.namespace_labels,
            labels,
        };
        self.rules
            .iter()
            .any(|rule| rule.covers(name, number) && rule.admits(self.namespace, &source))
    }

    /// Looks at the way to one app port, which leads through the sidecar's port for it.
    fn judge(
        &self,
        template: &Template,
        app_port: u16,
        (missing, narrow): (&mut Vec<String>, &mut Vec<String>),
    ) {
        let name = traffic_port_name(app_port);
        let number = template.traffic_port(app_port);
        let opens = |rule: &&&Rule| rule.covers(&name, number);
        if self
            .rules
            .iter()
            .filter(opens)
            .any(|rule| rule.is_for_all())
        {
            return;
        }
        narrow.push(name.clone());
        if !self.admit((&name, number), &self.lull.activators) {
            missing.push(format!("{name} ({number}) from Lull's activators"));
        }
        let names: Vec<&str> = template.names_of(app_port).collect();
        let is_for_app = |rule: &&&Rule| {
            let by_name = names.iter().any(|name| rule.covers(name, app_port));
            by_name || rule.covers("", app_port)
        };
        let mut for_app = self.rules.iter().filter(is_for_app);
        let is_let_in = |rule: &Rule| {
            self.rules
                .iter()
                .filter(opens)
                .any(|r| r.admits_all_of(rule))
        };
        if for_app.any(|rule| !is_let_in(rule)) {
            missing.push(format!(
                "{name} ({number}) from those who are let in on {app_port}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use lull_contract::{AppPort, AppProtocol};
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_rule_for_lull_has_its_namespace_and_every_door_by_name() {
        let port = |number| AppPort {
            number,
            protocol: AppProtocol::Http,
        };
        let template = Template {
            app_ports: vec![port(8080), port(9000)],
            ..Template::default()
        };
        let of_lull = Labels::from([(PART_OF.to_owned(), "lull".to_owned())]);
        let named = Components {
            namespace: "lull-system".to_owned(),
            activators: of_lull.clone(),
            autoscalers: of_lull,
            ..Components::default()
        };
        let lull = json!({ "matchLabels": { NAMESPACE_NAME_LABEL: "lull-system" } });
        let pods = json!({ "matchLabels": { PART_OF: "lull" } });
        let ports = json!([
            { "port": "lull-8080" }, { "port": "lull-9000" },
            { "port": "lull-admin" }, { "port": "lull-report" },
        ]);
        let from = json!([{ "namespaceSelector": lull, "podSelector": pods }]);
        let rule: Value = serde_json::from_str(&rule_for_lull(&template, &named)).unwrap();
        assert_eq!(rule, json!({ "from": from, "ports": ports }));

        let other = Components {
            autoscalers: Labels::new(),
            ..named
        };
        let rule: Value = serde_json::from_str(&rule_for_lull(&template, &other)).unwrap();
        assert_eq!(rule["from"], json!([{ "namespaceSelector": lull }]));
    }
}
