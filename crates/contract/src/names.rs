//! Names of the labels, annotations and objects that Lull writes.

/// Label on every pod of an enrolled workload, added to the template by the webhook; its value is
/// [`label_value`] of the workload's name.
pub const POD_LABEL: &str = "lull.dev/pod";
/// Key of the sentinel selector that only our own endpoints match (value: the workload's uid).
pub const HELD_LABEL: &str = "lull.dev/held";
/// Label on every object that belongs to a workload; its value is [`label_value`] of the name.
pub const WORKLOAD_LABEL: &str = "lull.dev/workload";
/// Annotation on a public Service: JSON of what stood in its spec before Lull changed it.
pub const ORIGINAL_ANNOTATION: &str = "lull.dev/original";
/// Annotation on an injected pod template: JSON record of what the webhook added.
pub const INJECTED_ANNOTATION: &str = "lull.dev/injected";
/// Finalizer on a ScaledWorkload: it goes only after its Service is what it was.
pub const FINALIZER: &str = "lull.dev/leave";
/// Kubernetes' label for who writes a slice.
pub const SLICE_MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// `managed-by` value of slices that Lull writes.
pub const MANAGED_BY: &str = "lull.dev";
/// Field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "lull";
/// Name of the injected container.
pub const QUEUE_PROXY_CONTAINER: &str = "lull-queue-proxy";
/// Containers that some tools write into a template but that are not the user's app.
pub const NOT_APP_CONTAINERS: [&str; 2] = [QUEUE_PROXY_CONTAINER, "istio-proxy"];
/// Path on the queue-proxy's admin port that answers when its drain has ended; the webhook makes it
/// the preStop of the app's containers.
pub const WAIT_FOR_DRAIN: &str = "/wait-for-drain";
/// Istio's annotation that lists ports kept out of the sidecar's inbound capture.
pub const ISTIO_EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
/// Istio's annotation that lists the only ports that its sidecar captures; `*` = all.
pub const ISTIO_INCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
/// Istio's annotation that says whether its container is a native sidecar: it is, unless this is `false`.
pub const ISTIO_NATIVE_SIDECAR: &str = "sidecar.istio.io/nativeSidecar";
/// Istio's annotation with settings of the pod's own proxy, as YAML; they go before those of the mesh.
pub const ISTIO_PROXY_CONFIG: &str = "proxy.istio.io/config";
/// Kubernetes' label of nodes for their operating system.
pub const OS_LABEL: &str = "kubernetes.io/os";
/// Kubernetes' label of nodes for their zone, which it writes on the pods there, too.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The same for their region.
pub const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// Istio's container in a pod of the mesh.
pub const ISTIO_PROXY_CONTAINER: &str = "istio-proxy";
/// Label, and older annotation, by which a pod says whether it wants Istio's container.
pub const ISTIO_INJECT: &str = "sidecar.istio.io/inject";
/// Istio's annotation of a Service that lists the namespaces whose proxies are told of it; `~` = none.
pub const ISTIO_EXPORT_TO: &str = "networking.istio.io/exportTo";
/// Label of slices that multi-cluster controllers copy: Istio reads none that has it, kube-proxy does.
pub const MULTICLUSTER_SERVICE_LABEL: &str = "multicluster.kubernetes.io/service-name";

/// Longest label value and Service name that Kubernetes takes.
const MAX_LABEL: usize = 63;

/// Name of the ScaledWorkload of the object `name` of `kind`, by which Lull calls the workload
/// everywhere: a Deployment's own name, and `<name>.<kind>` for other kinds, since objects of
/// different kinds may share a name.
#[must_use]
pub fn workload_id(kind: &str, name: &str) -> String {
    match kind {
        "Deployment" => name.to_owned(),
        _ => format!("{name}.{}", kind.to_ascii_lowercase()),
    }
}

/// `name` as a label value: unchanged where it fits, else cut and made unique by a hash.
#[must_use]
pub fn label_value(name: &str) -> String {
    bounded(name, "")
}

/// Name of the private Service of a workload: `<name>-lull`, and `lull-<name>-lull` where the name begins
/// with a digit, as a Service's must not.
///
/// Service names have no `.`, so `shop.v1` and `shop-v1` would share one: who writes it looks whose it
/// is.
#[must_use]
pub fn private_service(workload: &str) -> String {
    let mut name = workload.replace('.', "-");
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert_str(0, "lull-");
    }
    bounded(&name, "-lull")
}

/// Name of the EndpointSlice that lists activators for `service`: `<service>-lull` for IPv4,
/// `<service>-lull-ipv6` for IPv6.
#[must_use]
pub fn activator_slice(service: &str, ipv6: bool) -> String {
    format!("{service}-lull{}", if ipv6 { "-ipv6" } else { "" })
}

/// Name of the EndpointSlice that lists activators for `service` to all but Istio:
/// `<service>-lull-hidden` for IPv4, `<service>-lull-hidden-ipv6` for IPv6.
///
/// Another name than [`activator_slice`]: a slice that gets [`MULTICLUSTER_SERVICE_LABEL`] later is
/// forgotten by Istio with the endpoints that it had last.
#[must_use]
pub fn hidden_activator_slice(service: &str, ipv6: bool) -> String {
    format!("{service}-lull-hidden{}", if ipv6 { "-ipv6" } else { "" })
}

/// Name of the WorkloadEntry that tells Istio of `activator` (a pod's name) for a workload.
#[must_use]
pub fn activator_entry(workload: &str, activator: &str) -> String {
    format!("{}-{activator}", label_value(workload))
}

/// Name of the DestinationRule by which callers of `service` get a longer connect timeout, or call pods
/// before activators.
#[must_use]
pub fn connect_rule(service: &str) -> String {
    format!("{service}-lull")
}

fn bounded(name: &str, suffix: &str) -> String {
    if name.len() + suffix.len() <= MAX_LABEL {
        return format!("{name}{suffix}");
    }
    let hash = format!("-{:08x}", fnv1a(name.as_bytes()) & 0xffff_ffff);
    let keep = MAX_LABEL - suffix.len() - hash.len();
    let head: String = name.chars().take(keep).collect();
    format!("{}{hash}{suffix}", head.trim_end_matches(['-', '.', '_']))
}

/// FNV-1a, 64 bit (<http://www.isthe.com/chongo/tech/comp/fnv/>): stable over releases, unlike
/// std's hasher. Not for anything that an attacker may want to collide.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// [`fnv1a`] for choices among few: each bit knows every byte.
///
/// FNV's high bits hardly know the last bytes, in which names of pods differ, and its lowest bit is
/// no more than a parity. This finishes as MurmurHash3 does (fmix64).
#[must_use]
pub fn spread_hash(bytes: &[u8]) -> u64 {
    let mut hash = fnv1a(bytes);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_kept() {
        assert_eq!(private_service("shop"), "shop-lull");
        assert_eq!(label_value("shop"), "shop");
        assert_eq!(activator_slice("shop", false), "shop-lull");
        assert_ne!(
            hidden_activator_slice("shop", false),
            activator_slice("shop", false)
        );
        assert_eq!(
            activator_entry("shop", "lull-activator-1"),
            "shop-lull-activator-1"
        );
    }

    #[test]
    fn workloads_of_different_kinds_may_share_a_name() {
        assert_eq!(workload_id("Deployment", "shop"), "shop");
        assert_eq!(workload_id("StatefulSet", "shop"), "shop.statefulset");
        assert_eq!(private_service("shop.statefulset"), "shop-statefulset-lull");
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let (a, b) = ("a".repeat(70), format!("{}b", "a".repeat(69)));
        assert!(label_value(&a).len() <= 63 && private_service(&a).len() <= 63);
        assert_ne!(label_value(&a), label_value(&b));
        assert_ne!(private_service(&a), private_service(&b));
    }

    #[test]
    fn a_service_begins_with_a_letter_also_where_its_workload_does_not() {
        assert_eq!(private_service("2048"), "lull-2048-lull");
        let long = private_service(&format!("2{}", "a".repeat(70)));
        assert!(long.len() <= 63 && long.starts_with("lull-2a"), "{long}");
    }

    #[test]
    fn dots_do_not_reach_a_service_name() {
        assert_eq!(private_service("shop.v1"), "shop-v1-lull");
        assert_eq!(private_service("shop-v1"), private_service("shop.v1"));
    }
}
