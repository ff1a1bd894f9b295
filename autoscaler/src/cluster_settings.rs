//! The cluster-wide settings, as far as this process makes them known: `/config`, and an Event for
//! an edit that was not taken.

use lull_cluster_settings::{Current, Rejected};
use serde_json::{Value, json};

use crate::{
    config::Args,
    context::{Context, Key},
};

/// What the admin page `/config` shows.
pub(crate) fn page(args: &Args, current: &Current) -> Value {
    let (first, last) = args.activator_ports.clone().into_inner();
    json!({
        "namespace": args.namespace,
        "podName": args.pod_name,
        "activatorSelector": args.activator_selector,
        "activatorPorts": format!("{first}-{last}"),
        "propagationDelay": args.propagation_delay,
        "wakeDeadline": args.wake_deadline,
        "peers": args.peers,
        "shards": args.shards.count(),
        "targets": args.targets.0.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "namespaces": args.namespaces.to_string(),
        "mesh": args.mesh,
        "meshRootNamespace": args.mesh_root_namespace,
        "settings": args.settings,
        "log": args.log,
        "logJson": args.log_json,
        "adminPort": args.admin_port,
        "pagePort": args.page_port,
        "pageHosts": args.page_hosts,
        "nameCallers": args.name_callers,
        "metricsPort": args.metrics_port,
        "clusterSettings": current.page(),
    })
}

/// Puts an Event on the ConfigMap whose newest edit is not taken, where that is this replica's and
/// `told`, the edit that it last told about, is another one.
pub(crate) fn tell_rejected(ctx: &Context, told: &mut Option<Rejected>) {
    let current = ctx.settings.borrow().clone();
    let Some(rejected) = &current.rejected else {
        return;
    };
    // Of all replicas, the one that would decide for a workload of this name.
    let key = Key {
        namespace: rejected.object.namespace.clone().unwrap_or_default(),
        name: rejected.object.name.clone().unwrap_or_default(),
    };
    if ctx.leadership.term(&key).is_none() {
        return;
    }
    if told.as_ref() != Some(rejected) {
        *told = Some(rejected.clone());
        let note = format!("Not taken, the last good settings stay: {rejected}");
        let object = rejected.object.clone();
        ctx.event(object, true, "SettingsRejected", note);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_page_has_the_arguments_and_the_settings_in_force() {
        let args = ["autoscaler", "--mesh", "istio"];
        let args = Args::try_parse_from(args).unwrap();
        let page = page(&args, &Current::default());
        assert_eq!(page["mesh"], "istio");
        assert_eq!(page["meshRootNamespace"], "istio-system");
        assert_eq!(page["propagationDelay"], "3s");
        assert_eq!(page["activatorPorts"], "10000-31999");
        assert_eq!(page["settings"], "lull-settings");
        let settings = &page["clusterSettings"];
        assert_eq!(settings["resourceVersion"], Value::Null);
        assert_eq!(settings["effective"]["settings"]["window"], "60s");
    }
}
