#!/usr/bin/env bash
# make dashboard: what the dashboard's panels show of a workload that sleeps, wakes, is under load and sleeps again
# on the current cluster, by a real Prometheus and as the suite asks it; pictures go to docs/pictures.
. "$(dirname "$0")/common.sh"
cd "$root"
KUBECONFIG=${KUBECONFIG:-$(scripts/cluster.sh kubeconfig)}; export KUBECONFIG
E2E_KUBECTL=$(tool kubectl); export E2E_KUBECTL
E2E_PROMETHEUS=$(prometheus_folder)/prometheus; export E2E_PROMETHEUS
export E2E_PICTURES=$root/docs/pictures
build_tests
run_tests together -- --nocapture dashboards::
