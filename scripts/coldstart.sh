#!/usr/bin/env bash
# make coldstart: phases of 50 wakes, beside the same app as a plain Deployment patched 0 -> 1.
. "$(dirname "$0")/common.sh"
cd "$root"
LULL_CLUSTER=${E2E_CLUSTER:-coldstart}; export LULL_CLUSTER
scripts/cluster.sh up
if [ "$CLUSTER" != current ] && [ -z "${E2E_KEEP:-}" ]; then trap 'scripts/cluster.sh down' EXIT; fi
scripts/images.sh
scripts/cluster.sh install
KUBECONFIG=$(scripts/cluster.sh kubeconfig); export KUBECONFIG
cargo run --locked -q -p lull-e2e --bin coldstart -- --wakes "${WAKES:-50}"
