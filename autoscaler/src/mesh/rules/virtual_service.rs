//! VirtualServices: how long a request may take.

use std::time::Duration;

use kube::core::DynamicObject;
use serde_json::Value;

use super::{EVERYWHERE, Kind, OF_USERS, duration, items, place_of, touched_about};
use crate::{cache::Keys, mesh::Host};

/// A VirtualService, as much of it as limits a request's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualService {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Its routes that have a limit.
    pub routes: Vec<TimedRoute>,
    /// Namespace of all Services that these lead to; empty: of more than one.
    about: Option<String>,
}

/// A way to Services that has a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedRoute {
    /// Where it leads.
    pub hosts: Vec<Host>,
    /// Longest time of a request, further tries included.
    pub timeout: Option<Duration>,
    /// Longest time of one try.
    pub per_try_timeout: Option<Duration>,
}

// === impl VirtualService ===

impl VirtualService {
    pub(super) const KIND: Kind<Self> = Kind {
        group: "networking.istio.io",
        kind: "VirtualService",
        plural: "virtualservices",
        keys: Keys {
            place: |service| {
                let place = format!("{}/{}", service.namespace, service.name);
                (String::new(), place)
            },
            group: |service| service.about.as_deref(),
            part: |_| OF_USERS,
            alike: |a, b| a == b,
        },
        touched: |service| {
            let hosts = service.routes.iter().flat_map(|route| &route.hosts);
            touched_about(hosts, &service.namespace)
        },
        kept: Self::from_object,
    };

    /// What is kept of `object`.
    pub(crate) fn from_object(object: &DynamicObject) -> Self {
        let (namespace, name) = place_of(object);
        let routes: Vec<TimedRoute> = items(&object.data["spec"]["http"])
            .iter()
            .filter_map(|route| TimedRoute::read(route, &namespace))
            .collect();
        Self {
            about: about(&routes),
            namespace,
            name,
            routes,
        }
    }
}

/// The one namespace that `routes` lead to, if it is one.
fn about(routes: &[TimedRoute]) -> Option<String> {
    let hosts = routes.iter().flat_map(|route| &route.hosts);
    let mut namespaces = hosts.filter_map(Host::namespace);
    let first = namespaces.next()?;
    let is_one = namespaces.all(|other| other == first);
    Some(if is_one { first } else { EVERYWHERE }.to_owned())
}

// === impl TimedRoute ===

impl TimedRoute {
    /// `None` where there is no limit.
    fn read(route: &Value, namespace: &str) -> Option<Self> {
        // Zero: none.
        let limit = |text: &Value| duration(text).filter(|limit| !limit.is_zero());
        let timeout = limit(&route["timeout"]);
        let per_try_timeout = limit(&route["retries"]["perTryTimeout"]);
        timeout.or(per_try_timeout)?;
        let destinations = items(&route["route"]).iter();
        let hosts = destinations.map(|to| Host::read(&to["destination"]["host"], namespace));
        Some(Self {
            hosts: hosts.collect(),
            timeout,
            per_try_timeout,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mesh::rules::tests::object;

    fn read(http: &Value) -> VirtualService {
        let metadata = json!({ "name": "v", "namespace": "edge" });
        let spec = json!({ "http": http });
        VirtualService::from_object(&object(&json!({ "metadata": metadata, "spec": spec })))
    }

    fn to(host: &str) -> Value {
        json!([{ "destination": { "host": host } }])
    }

    #[test]
    fn only_routes_with_a_limit_are_kept_and_found_by_where_they_lead() {
        let untimed = json!({ "route": to("bank"), "timeout": "0s" });
        let timed = json!({ "route": to("shop.team.svc.cluster.local"), "timeout": "2s" });
        let tried = json!({ "route": to("shop"), "retries": { "perTryTimeout": "1s" } });
        let none = read(&json!([untimed]));
        assert!(none.routes.is_empty() && none.about.is_none());
        let one = read(&json!([untimed, timed]));
        assert_eq!(one.routes.len(), 1);
        assert_eq!(one.about.as_deref(), Some("team"));
        let two = read(&json!([timed, tried]));
        assert_eq!(two.about.as_deref(), Some(EVERYWHERE));
        assert_eq!(two.routes[1].per_try_timeout, Some(Duration::from_secs(1)));
    }
}
