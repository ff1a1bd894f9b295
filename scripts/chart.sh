#!/usr/bin/env bash
# Chart checks that need no cluster: lint, render, and the CRD as the code has it.
. "$(dirname "$0")/common.sh"
cd "$root"
CLUSTER=builtin need_toolchains
cargo build --locked -q -p lull-cluster -p autoscaler
lull_cluster build
helm=$(lull_cluster path helm)
step "helm lint" "$helm" lint --strict charts/lull
step "helm template" "$helm" template lull charts/lull --namespace lull-system --kube-version 1.37.0
settings_are_text() {
  local map
  map=$("$helm" template lull charts/lull --kube-version 1.37.0 --show-only templates/settings.yaml \
    --set settings.window=2m,settings.target=1000000,settings.server-timing=false)
  grep -qx '  window: "2m"' <<<"$map" && grep -qx '  target: "1000000"' <<<"$map" &&
    grep -qx '  server-timing: "false"' <<<"$map"
}
step "settings reach their ConfigMap as text" settings_are_text
crd_is_current() { diff <("$CARGO_TARGET_DIR/debug/autoscaler" crd) charts/lull/templates/scaledworkloads.yaml; }
step "CRD in the chart is what the code says (else: make crd)" crd_is_current
