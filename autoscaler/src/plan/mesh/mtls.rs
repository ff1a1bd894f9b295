//! Mutual TLS by port. The pods' Envoy goes by the port that a connection comes to, which is the
//! sidecar's. Whether callers speak it istiod decides for each endpoint by that endpoint's own port
//! (`mtls_checker.go`), and that of a workload that sleeps is its activators': there a policy that
//! names the pods' ports says nothing. STRICT and PERMISSIVE are one to callers, DISABLE is another.

use std::sync::Arc;

use super::{Finding, Mesh, Reason, Situation, pods::doors};
use crate::mesh::PeerAuthentication;

/// Istio's own mode, where nobody says another.
const PERMISSIVE: &str = "PERMISSIVE";
/// The mode by which callers speak plain text.
const DISABLE: &str = "DISABLE";

/// The modes that hold for a workload's pods.
struct Modes<'a> {
    /// The one policy whose modes by port count.
    policy: &'a PeerAuthentication,
    /// Mode of all ports that it doesn't name.
    rest: &'a str,
    /// The namespace's mode is DISABLE: callers then speak plain text, whatever is said by port.
    is_plain: bool,
}

/// What the policy by port doesn't say of the ports that stand for the app's.
pub(super) fn find(situation: &Situation<'_>, mesh: &Mesh<'_>) -> Option<Finding> {
    let modes = Modes::of(situation, mesh)?;
    let missing: Vec<String> = doors(situation)
        .filter_map(|door| modes.missing(situation, door))
        .collect();
    let place = (modes.policy.namespace.as_str(), modes.policy.name.as_str());
    (!missing.is_empty()).then(|| {
        Finding::new(
            Reason::MtlsByPort,
            mesh.object("PeerAuthentication", place),
            format!(
                "sets mutual TLS by port, but traffic comes to the sidecar's port, and callers of a \
                 workload that sleeps go by its activators' port: under portLevelMtls write {}",
                missing.join(", ")
            ),
        )
    })
}

// === impl Modes ===

impl<'a> Modes<'a> {
    /// `None` where no policy goes by port. Istio takes modes by port from the oldest policy alone that
    /// selects the pods, and from none of the root namespace.
    fn of(situation: &Situation<'_>, mesh: &Mesh<'a>) -> Option<Self> {
        let root = mesh.rules.root_namespace.as_str();
        let pods = &situation.template.labels;
        let policy = oldest(mesh, |policy| {
            let is_here = policy.namespace == mesh.namespace && policy.namespace != root;
            is_here && policy.is_for_some() && policy.selects(pods)
        })?;
        let of_all = |namespace: &str| {
            let policy = oldest(mesh, |policy| {
                policy.namespace == namespace && !policy.is_for_some()
            });
            policy.and_then(|policy| policy.mode.as_deref())
        };
        let outer = of_all(mesh.namespace).or_else(|| of_all(root));
        let outer = outer.unwrap_or(PERMISSIVE);
        Some(Self {
            policy,
            rest: policy.mode.as_deref().unwrap_or(outer),
            is_plain: outer == DISABLE,
        })
    }

    fn at(&self, port: u16) -> &'a str {
        self.policy
            .modes
            .get(&port)
            .map_or(self.rest, String::as_str)
    }

    /// What is to be written for the app's port `app`, behind the sidecar's port `door`.
    fn missing(&self, situation: &Situation<'_>, (app, door): (u16, u16)) -> Option<String> {
        let asked = self.policy.modes.get(&app).map(String::as_str);
        let wanted = asked.unwrap_or_else(|| self.at(door));
        let line = |port: u16| format!("{port}: {{ mode: {wanted} }}");
        let at_pods = (self.at(door) != wanted).then(|| line(door));
        let activators = activator_port(situation, app);
        let asleep = activators.map_or(self.rest, |port| self.at(port));
        let is_another = (asleep == DISABLE) != (wanted == DISABLE);
        let at_activators = (is_another && !self.is_plain).then(|| {
            activators.map_or_else(
                || {
                    format!(
                        "the same for its activators' port, which spec.ports of the ScaledWorkload \
                         {} shows once it is enrolled",
                        situation.id
                    )
                },
                line,
            )
        });
        let lines: Vec<String> = at_pods.into_iter().chain(at_activators).collect();
        (!lines.is_empty()).then(|| format!("{} beside {app}", lines.join(" and ")))
    }
}

/// The oldest policy that `is_meant`: of several in one place Istio takes that one.
fn oldest<'a>(
    mesh: &Mesh<'a>,
    is_meant: impl Fn(&PeerAuthentication) -> bool,
) -> Option<&'a PeerAuthentication> {
    let all: &'a [Arc<PeerAuthentication>] = &mesh.rules.peer_authentications;
    let meant = all
        .iter()
        .map(Arc::as_ref)
        .filter(|policy: &&PeerAuthentication| is_meant(policy));
    meant.min_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)))
}

/// Where activators listen for the app's port `app`, once that is allocated.
fn activator_port(situation: &Situation<'_>, app: u16) -> Option<u16> {
    let mut ports = situation.activator_ports.iter();
    let port = ports.find(|port| port.app_port == app)?.activator_port;
    (port != 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lull_contract::{AppPort, AppProtocol, Settings, scaled_workload::WorkloadPort};
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        mesh::{Around, object},
        plan::{Asks, Components, Template},
    };

    /// Where activators listen for the app's port 8080, whose traffic comes to 8012.
    const AT_ACTIVATORS: u16 = 10_007;

    fn policy(namespace: &str, name: &str, spec: &Value) -> PeerAuthentication {
        let metadata = json!({ "name": name, "namespace": namespace });
        PeerAuthentication::from_object(&object(&json!({ "metadata": metadata, "spec": spec })))
    }

    /// The message about `policies` of a workload whose activator port is known, or is not.
    fn message(policies: &[PeerAuthentication], is_allocated: bool) -> Option<String> {
        let rules = Around {
            peer_authentications: policies.iter().cloned().map(Arc::new).collect(),
            root_namespace: "root".to_owned(),
            ..Around::default()
        };
        let app_port = AppPort {
            number: 8080,
            protocol: AppProtocol::Http,
        };
        let template = Template {
            labels: [("app".to_owned(), "shop".to_owned())].into(),
            app_ports: vec![app_port],
            traffic_ports: vec![8012],
            ..Template::default()
        };
        let allocated = [WorkloadPort {
            app_port: 8080,
            protocol: AppProtocol::Http,
            activator_port: AT_ACTIVATORS,
        }];
        let mesh = Mesh {
            is_member: true,
            namespace: "team",
            account: "default",
            rules: &rules,
        };
        let found = find(
            &Situation {
                workload: "Deployment shop",
                id: "shop",
                template: &template,
                activator_ports: &allocated[..usize::from(is_allocated)],
                asks: Asks::of(&BTreeMap::new(), &Settings::default(), None),
                is_enrolled: false,
                services: &[],
                taken: &[],
                others: &[],
                scalers: &[],
                policies: &[],
                budgets: &[],
                quotas: &[],
                ranges: None,
                loopback_only: &[],
                longest_wake: None,
                mesh: Some(mesh),
                lull: &Components::default(),
            },
            &mesh,
        );
        found.map(|finding| finding.message)
    }

    /// A policy for the pods: `mode` of all ports, and modes by port.
    fn by_port(mode: &Value, ports: &Value) -> PeerAuthentication {
        let modes = ports.as_object().into_iter().flatten();
        let modes: serde_json::Map<String, Value> = modes
            .map(|(port, mode)| (port.clone(), json!({ "mode": mode })))
            .collect();
        let selector = json!({ "matchLabels": { "app": "shop" } });
        let mut spec = json!({ "selector": selector, "portLevelMtls": modes });
        if !mode.is_null() {
            spec["mtls"] = json!({ "mode": mode });
        }
        policy("team", "by-port", &spec)
    }

    #[test]
    fn the_mode_of_the_app_s_port_has_to_hold_at_the_sidecar_s_and_at_the_activators() {
        let rows = [
            // Awake in plain text, asleep in mutual TLS: the pod would read a ClientHello as bytes.
            (json!("STRICT"), json!({ "8080": "DISABLE" }), "8012, 10007"),
            (
                Value::Null,
                json!({ "8080": "DISABLE", "8012": "DISABLE" }),
                "10007",
            ),
            (json!("STRICT"), json!({ "8012": "DISABLE" }), "10007"),
            (
                json!("STRICT"),
                json!({ "8080": "DISABLE", "8012": "DISABLE", "10007": "DISABLE" }),
                "",
            ),
            // The other way round: the pod would refuse, or know nobody.
            (
                json!("DISABLE"),
                json!({ "8080": "STRICT", "8012": "STRICT" }),
                "10007",
            ),
            (
                json!("DISABLE"),
                json!({ "8080": "PERMISSIVE" }),
                "8012, 10007",
            ),
            // To callers these two are the same, to the pods they aren't.
            (json!("PERMISSIVE"), json!({ "8080": "STRICT" }), "8012"),
            (
                json!("PERMISSIVE"),
                json!({ "8080": "STRICT", "8012": "STRICT" }),
                "",
            ),
            // What is said twice alike, or of ports that have no traffic.
            (json!("STRICT"), json!({ "8080": "STRICT" }), ""),
            (json!("STRICT"), json!({ "9000": "DISABLE" }), ""),
            // A mode at the activators' port alone.
            (json!("STRICT"), json!({ "10007": "DISABLE" }), "10007"),
        ];
        for (mode, ports, expected) in rows {
            let text = message(&[by_port(&mode, &ports)], true).unwrap_or_default();
            let named = ["8012", "10007"].map(|port| {
                let is_named = text.contains(&format!("{port}: {{ mode: "));
                is_named.then_some(port)
            });
            let named: Vec<&str> = named.into_iter().flatten().collect();
            assert_eq!(named.join(", "), expected, "{mode} {ports}: {text}");
        }
    }

    #[test]
    fn the_lines_to_write_are_told_and_where_to_find_a_port_that_is_not_allocated() {
        let policies = [by_port(&json!("STRICT"), &json!({ "8080": "DISABLE" }))];
        let text = message(&policies, true).unwrap();
        let lines = "8012: { mode: DISABLE } and 10007: { mode: DISABLE } beside 8080";
        assert!(text.ends_with(lines), "{text}");
        let text = message(&policies, false).unwrap();
        assert!(
            text.contains("spec.ports of the ScaledWorkload shop"),
            "{text}"
        );
    }

    #[test]
    fn what_a_policy_leaves_unsaid_is_the_namespace_s_mode_or_else_the_mesh_s() {
        let ports = json!({ "8080": "DISABLE", "8012": "DISABLE" });
        let narrow = by_port(&Value::Null, &ports);
        let all = |namespace: &str, mode: &str| {
            policy(namespace, "all", &json!({ "mtls": { "mode": mode } }))
        };
        let is_found = |around: Vec<PeerAuthentication>| {
            let policies: Vec<_> = [vec![narrow.clone()], around].concat();
            message(&policies, true).is_some()
        };
        assert!(is_found(vec![]));
        assert!(is_found(vec![all("root", "STRICT")]));
        assert!(!is_found(vec![
            all("team", "DISABLE"),
            all("root", "STRICT")
        ]));
        assert!(!is_found(vec![
            all("team", "UNSET"),
            all("root", "DISABLE")
        ]));
        // Callers speak plain text with all of such a namespace, whatever is said by port.
        let strict = by_port(&json!("STRICT"), &ports);
        assert!(message(&[strict, all("team", "DISABLE")], true).is_none());
    }

    #[test]
    fn modes_by_port_count_in_the_oldest_policy_for_the_pods_and_nowhere_else() {
        let spec = json!({
            "selector": { "matchLabels": { "app": "shop" } },
            "portLevelMtls": { "8080": { "mode": "DISABLE" } },
        });
        assert!(message(&[policy("team", "p", &spec)], true).is_some());
        assert!(message(&[policy("root", "p", &spec)], true).is_none());
        let unselective = json!({ "portLevelMtls": spec["portLevelMtls"] });
        assert!(message(&[policy("team", "p", &unselective)], true).is_none());
        let aged = |name: &str, created: &str, spec: &Value| {
            let metadata =
                json!({ "name": name, "namespace": "team", "creationTimestamp": created });
            let policy = object(&json!({ "metadata": metadata, "spec": spec }));
            PeerAuthentication::from_object(&policy)
        };
        let plain = json!({ "selector": spec["selector"], "mtls": { "mode": "STRICT" } });
        let newer = aged("a", "2026-02-01T00:00:00Z", &spec);
        let older = aged("b", "2026-01-01T00:00:00Z", &plain);
        assert!(message(&[newer.clone(), older], true).is_none());
        let of_the_same_second = aged("b", "2026-02-01T00:00:00Z", &plain);
        assert!(message(&[of_the_same_second, newer], true).is_some());
    }
}
