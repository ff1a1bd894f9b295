#!/usr/bin/env bash
# make e2e: the end-to-end suite on a cluster of its own (or kind, or the current one);
# E2E_FULL=1 adds what takes longer.
. "$(dirname "$0")/common.sh"
cd "$root"
lull_knows_rollouts
export HELM_ARGS="$HELM_ARGS --set autoscaler.extraEnv.AUTOSCALER_CRASH_ON_REQUEST=true"
with_lull e2e
E2E_HELM=$(tool helm); E2E_KUBECTL=$(tool kubectl); export E2E_HELM E2E_KUBECTL
E2E_PROMETHEUS=$(prometheus_folder)/prometheus; export E2E_PROMETHEUS
# As the workspace's tests are built: a static one is another build of every dependency.
cargo build --locked -q --workspace --bin kubectl-lull
export E2E_KUBECTL_LULL=$CARGO_TARGET_DIR/debug/kubectl-lull
say "suite"
cargo test --locked -p lull-e2e --features cluster ${E2E_ARGS:-} -- --test-threads "${E2E_THREADS:-6}"
if [ -n "${E2E_FULL:-}" ]; then
  say "autoscalers that crash after each write"
  cargo test --locked -p lull-e2e --features crashes --test crashes
fi
if [ "$CLUSTER" = builtin ]; then
  say "a minute without an API server"
  cargo test --locked -p lull-e2e --features outage --test outage
else
  say "a minute without an API server: left out, only that of CLUSTER=builtin can be stopped from here"
fi
# Namespaces that are kept never go, which is what this suite waits for.
[ -z "${E2E_KEEP:-}" ] || exit 0
say "uninstall"
cargo test --locked -p lull-e2e --features uninstall --test uninstall
[ -n "${E2E_FULL:-}" ] || exit 0
say "Lull is gone, workloads are not plain"
scripts/cluster.sh install
cargo test --locked -p lull-e2e --features restore --test restore
