#!/usr/bin/env bash
# make guard: writes as the autoscaler, on a cluster of its own with guard.enabled, as dry runs: what is not
# Lull's to do is refused by the policy that is meant to.
. "$(dirname "$0")/common.sh"
cd "$root"
export HELM_ARGS="${HELM_ARGS:-} --set guard.enabled=true"
with_lull guard
kubectl=$(tool kubectl)
namespace=guard-$$
# A cluster of its own goes as a whole.
[ "$CLUSTER" != current ] || trap '"$kubectl" delete namespace "$namespace" --wait=false --ignore-not-found' EXIT
as_autoscaler() { "$kubectl" --as "system:serviceaccount:$LULL_NAMESPACE:lull-autoscaler" "$@" --dry-run=server; }
patch() { as_autoscaler -n "$namespace" patch "$1" "$2" --type merge -p "$3" "${@:4}"; }

# Two Deployments, of which one is Lull's, and a Service with endpoints: Kubernetes' own controller makes
# their slice a moment later.
objects() {
  "$kubectl" create namespace "$namespace" &&
    "$kubectl" -n "$namespace" create deployment plain --image registry.invalid/app --port 8080 &&
    "$kubectl" -n "$namespace" create deployment ours --image registry.invalid/app --port 8080 &&
    "$kubectl" -n "$namespace" annotate deployment ours lull.dev/class=none lull.dev/scale=true &&
    "$kubectl" -n "$namespace" expose deployment plain --port 80 --target-port 8080 &&
    within 60 slice_is_there && within 60 is_injected
}

slice_is_there() {
  [ -n "$("$kubectl" -n "$namespace" get endpointslices -l kubernetes.io/service-name=plain -o name)" ]
}

# Without the sidecar nothing below would show that Lull may take it out.
is_injected() {
  "$kubectl" -n "$namespace" get deployment ours -o jsonpath='{.spec.template.spec.containers[*].name}' |
    grep -qw lull-queue-proxy
}

refused() { # MESSAGE, COMMAND...
  local said
  if said=$("${@:2}" 2>&1); then echo "let through: ${*:2}"; return 1; fi
  grep -qF -- "$1" <<<"$said" || { echo "$said"; return 1; }
}

# A new policy is in force a moment after it is there; each has its own.
in_force() {
  within 60 refused "touches only workloads" patch deployment plain '{"metadata":{"annotations":{"lull.dev/leave":"x"}}}' &&
    within 60 refused "its sentinel or back" patch service plain '{"spec":{"selector":{"app":"evil"}}}' &&
    within 60 refused "of its own" as_autoscaler -n "$namespace" delete endpointslice -l kubernetes.io/service-name=plain &&
    within 60 refused "in its own namespace" scale_in_lull_namespace
}

scale_in_lull_namespace() {
  as_autoscaler -n "$LULL_NAMESPACE" patch deployment lull-webhook --subresource scale --type merge -p '{"spec":{"replicas":0}}'
}

template() { printf '{"spec":{"template":{"spec":{%s}}}}' "$1"; }

foreign_writes_are_refused() {
  refused "the containers alone" patch deployment ours "$(template '"serviceAccountName":"admin"')" &&
    refused "own containers" as_autoscaler -n "$namespace" patch deployment ours --type json \
      -p '[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"registry.invalid/evil"}]' &&
    refused "labels, finalizers and owners" patch deployment ours '{"metadata":{"labels":{"a":"b"}}}' &&
    refused "lull.dev/leave alone" patch deployment ours '{"metadata":{"annotations":{"a":"b"}}}' &&
    refused "of the settings of istio-proxy" patch deployment ours \
      '{"spec":{"template":{"metadata":{"annotations":{"proxy.istio.io/config":"discoveryAddress: evil:15012"}}}}}' &&
    refused "the template alone" patch deployment ours '{"spec":{"paused":true}}' &&
    refused "in its own namespace" scale_in_lull_namespace &&
    refused "its sentinel or back" patch service plain '{"spec":{"selector":{"app":"evil"}}}' &&
    refused "target ports and the selector" patch service plain '{"spec":{"type":"NodePort"}}' &&
    refused "its named ports or back" as_autoscaler -n "$namespace" patch service plain --type json \
      -p '[{"op":"replace","path":"/spec/ports/0/targetPort","value":22}]' &&
    refused "but its private ones" as_autoscaler -n "$namespace" create service clusterip other --tcp 80:80 &&
    refused "of its own" as_autoscaler -n "$namespace" delete endpointslice -l kubernetes.io/service-name=plain
}

own_writes_are_let_through() {
  patch deployment ours '{"metadata":{"annotations":{"lull.dev/leave":"uninject"}}}' &&
    patch deployment ours '{"spec":{"replicas":0}}' --subresource scale &&
    patch service plain '{"metadata":{"annotations":{"lull.dev/original":"{}"}}}' &&
    patch service plain '{"spec":{"selector":{"app":null,"lull.dev/held":"uid"}}}' &&
    as_autoscaler -n "$namespace" patch service plain --type json \
      -p '[{"op":"replace","path":"/spec/ports/0/targetPort","value":"lull-8080"}]'
}

step "workloads and a Service" objects
step "the policies are in force" in_force
step "writes that are not Lull's are refused" foreign_writes_are_refused
step "Lull's own writes are let through" own_writes_are_let_through
step "clean up" "$kubectl" delete namespace "$namespace" --wait=false
