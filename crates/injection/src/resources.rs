//! What the sidecar asks for beside the app's containers, in any form that amounts have.

use lull_contract::annotations::SidecarResources;
use serde::Serialize;
use serde_json::Value;

/// What a container asks for, and how much it may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Resources<T> {
    /// What is kept free for it.
    pub requests: Amounts<T>,
    /// What it may have.
    pub limits: Amounts<T>,
}

/// Of each resource that Lull knows; `None` where nothing is said of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amounts<T> {
    /// CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<T>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<T>,
}

/// What of a pod, apart from the sidecar, decides about the sidecar's resources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodResources {
    /// Its quality of service is Guaranteed.
    pub is_guaranteed: bool,
    /// It says how much CPU all containers have together.
    pub has_cpu: bool,
    /// The same of memory.
    pub has_memory: bool,
}

/// What the sidecar gets where annotations and defaults say `asked`: as much, but equal requests and
/// limits where the pod would lose its Guaranteed class otherwise. What the pod says for all of its
/// containers together holds for the sidecar, too: the API server refuses containers that ask for more
/// than that.
#[must_use]
pub fn of_sidecar<T: Copy>(asked: Resources<T>, pod: PodResources) -> Resources<T> {
    let mut given = asked;
    if pod.is_guaranteed {
        // Requests go up to the limits: limits that come down to the requests would kill it.
        given.requests.memory = asked.limits.memory.or(asked.requests.memory);
        given.requests.cpu = asked.limits.cpu.or(asked.requests.cpu);
        given.limits = given.requests;
    }
    // A limit alone would be the request, too.
    if pod.has_cpu {
        (given.requests.cpu, given.limits.cpu) = (None, None);
    }
    if pod.has_memory {
        (given.requests.memory, given.limits.memory) = (None, None);
    }
    given
}

// === impl Resources ===

impl<T: PartialEq> Resources<T> {
    /// Kubernetes' rule for the class Guaranteed: limits of CPU and memory, and requests equal to
    /// them; an absent request is the limit.
    #[must_use]
    pub fn is_guaranteed(&self) -> bool {
        let is_equal = |request: &Option<T>, limit: &Option<T>| {
            limit.is_some() && (request.is_none() || request == limit)
        };
        is_equal(&self.requests.cpu, &self.limits.cpu)
            && is_equal(&self.requests.memory, &self.limits.memory)
    }
}

impl<'a> Resources<&'a Value> {
    /// As it stands in `owner`, a container or a pod's spec. The API server writes quantities in one
    /// form, so equal ones look equal.
    #[must_use]
    pub fn read(owner: &'a Value) -> Self {
        let of = |kind: &str| {
            let amounts = owner.get("resources").and_then(|all| all.get(kind));
            let get = |name: &str| amounts?.get(name);
            Amounts {
                cpu: get("cpu"),
                memory: get("memory"),
            }
        };
        Self {
            requests: of("requests"),
            limits: of("limits"),
        }
    }
}

impl<'a> From<&'a SidecarResources> for Resources<&'a str> {
    fn from(asked: &'a SidecarResources) -> Self {
        Self {
            requests: Amounts {
                cpu: Some(&asked.cpu_request),
                memory: Some(&asked.memory_request),
            },
            limits: Amounts {
                cpu: asked.cpu_limit.as_deref(),
                memory: Some(&asked.memory_limit),
            },
        }
    }
}

// === impl PodResources ===

impl PodResources {
    /// Of a pod with these containers (init containers among them, the sidecar not), which says `pod`
    /// for all of them together.
    #[must_use]
    pub fn of<T: PartialEq>(
        containers: impl IntoIterator<Item = Resources<T>>,
        pod: &Resources<T>,
    ) -> Self {
        let Resources { requests, limits } = pod;
        Self {
            is_guaranteed: containers
                .into_iter()
                .all(|container| container.is_guaranteed()),
            has_cpu: requests.cpu.is_some() || limits.cpu.is_some(),
            has_memory: requests.memory.is_some() || limits.memory.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn amounts(cpu: Option<u32>, memory: Option<u32>) -> Amounts<u32> {
        Amounts { cpu, memory }
    }

    #[test]
    fn what_the_sidecar_asks_for_follows_its_pod() {
        let asked = Resources {
            requests: amounts(Some(25), Some(16)),
            limits: amounts(None, Some(256)),
        };
        let guaranteed = PodResources {
            is_guaranteed: true,
            ..PodResources::default()
        };
        let of_pod = PodResources {
            has_cpu: true,
            has_memory: true,
            ..guaranteed
        };
        let rows = [
            (PodResources::default(), asked),
            (
                guaranteed,
                Resources {
                    requests: amounts(Some(25), Some(256)),
                    limits: amounts(Some(25), Some(256)),
                },
            ),
            (of_pod, Resources::default()),
        ];
        for (pod, expected) in rows {
            assert_eq!(of_sidecar(asked, pod), expected, "{pod:?}");
        }
        let limited = Resources {
            limits: amounts(Some(50), Some(256)),
            ..asked
        };
        assert!(of_sidecar(limited, guaranteed).is_guaranteed());
        assert_eq!(of_sidecar(limited, guaranteed).requests.cpu, Some(50));
    }

    #[test]
    fn a_pod_is_guaranteed_where_each_container_s_limits_are_its_requests() {
        let equal = json!({ "cpu": "1", "memory": "1Gi" });
        let rows = [
            (json!({ "limits": equal }), true),
            (json!({ "limits": equal, "requests": equal }), true),
            (
                json!({ "limits": equal, "requests": { "cpu": "500m" } }),
                false,
            ),
            (json!({ "limits": { "memory": "1Gi" } }), false),
            (json!({}), false),
        ];
        for (resources, expected) in rows {
            let container = json!({ "resources": resources });
            let other = json!({ "resources": { "limits": equal } });
            let containers = [&container, &other].map(Resources::read);
            let pod = PodResources::of(containers, &Resources::read(&json!({})));
            assert_eq!(pod.is_guaranteed, expected, "{resources}");
        }
    }
}
