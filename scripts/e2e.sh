#!/usr/bin/env bash
# make e2e: the end-to-end suite on a cluster of its own (or kind, or the current one), with short races
# at its end (E2E_SEED, E2E_RACES_SECONDS; docs/races.md); E2E_FULL=1 adds what takes longer, but for the
# full races, which are those of make e2e-races.
. "$(dirname "$0")/common.sh"
cd "$root"
lull_knows_rollouts
export HELM_ARGS="$HELM_ARGS --set autoscaler.extraEnv.AUTOSCALER_CRASH_ON_REQUEST=true"
# What runs below; in full nearly everything.
programs=(together quiet load browser activators autoscalers races outage uninstall)
[ -z "${E2E_FULL:-}" ] || programs=()
build_tests "${programs[@]}"
# A static one is another build of every dependency.
build_as_tests kubectl-lull
export E2E_KUBECTL_LULL=$CARGO_TARGET_DIR/debug/kubectl-lull
with_lull e2e
E2E_HELM=$(tool helm); E2E_KUBECTL=$(tool kubectl); export E2E_HELM E2E_KUBECTL
E2E_PROMETHEUS=$(prometheus_folder)/prometheus; export E2E_PROMETHEUS
E2E_CHROMIUM=$(chromium_program); export E2E_CHROMIUM
threads=${E2E_THREADS:-6}
say "suite"
run_tests together -- --test-threads "$threads"
run_tests quiet load -- --test-threads "$threads"
say "the status page in a browser"
run_tests browser -- --test-threads 1
if [ "$CLUSTER" != current ]; then
  say "activators and autoscalers that end"
  run_tests activators autoscalers
  if [ -n "${E2E_FULL:-}" ]; then
    say "all of Lull gone, and back"
    run_tests gone -- --nocapture
  fi
else
  say "activators and autoscalers that end: left out, their processes must run on this machine to be killed"
fi
if [ -n "${E2E_FULL:-}" ]; then
  say "autoscalers that crash after each write"
  run_tests crashes -- --test-threads 1
  say "an upgrade of the chart and its CRD"
  run_tests chart_upgrade
fi
if [ "$CLUSTER" = builtin ]; then
  if [ -z "${E2E_FULL:-}" ]; then
    say "races"
    run_tests races -- --nocapture
  fi
  say "a minute without an API server"
  run_tests outage
else
  say "races, and a minute without an API server: left out, only the processes of CLUSTER=builtin can be held from here"
fi
if [ -n "${E2E_FULL:-}" ] && [ "$CLUSTER" = builtin ]; then
  say "Istio's kinds come later, and go again"
  E2E_ISTIO_KINDS=$(lull_cluster path istio-kinds); export E2E_ISTIO_KINDS
  run_tests mesh_kinds
fi
# Namespaces that are kept never go, which is what this suite waits for.
[ -z "${E2E_KEEP:-}" ] || exit 0
say "uninstall"
run_tests uninstall
[ -n "${E2E_FULL:-}" ] || exit 0
say "Lull is gone, workloads are not plain"
scripts/cluster.sh install
run_tests restore
