#!/usr/bin/env bash
# make network-policies: NetworkPolicies that are enforced, on users' pods, on callers and on Lull's own, on a cluster
# of its own. CLUSTER=kind or current: with the network plugin that is there, which must enforce them, too.
. "$(dirname "$0")/common.sh"
cd "$root"
cluster_options=(--network-policies)
# Callers are namespaces of the suite, and who scrapes is labelled for it: what else there is may do neither.
of_labelled() { echo "--set-string networkPolicy.$1[0].namespaceSelector.matchLabels.$2"; }
HELM_ARGS="${HELM_ARGS:-} --set networkPolicy.enabled=true $(of_labelled callersFrom lull-e2e=true)"
export HELM_ARGS="$HELM_ARGS $(of_labelled metricsFrom e2e-scraper=yes)"
build_tests
build_as_tests kubectl-lull
export E2E_KUBECTL_LULL=$CARGO_TARGET_DIR/debug/kubectl-lull
with_lull policies
say "NetworkPolicies"
run_tests network_policies
