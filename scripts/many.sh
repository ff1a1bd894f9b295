#!/usr/bin/env bash
# make many: 5,000 sleeping workloads, what they cost the activators, and cold starts among them.
. "$(dirname "$0")/common.sh"
cd "$root"
LULL_CLUSTER=${E2E_CLUSTER:-many}; export LULL_CLUSTER
scripts/cluster.sh up
if [ "$CLUSTER" != current ] && [ -z "${E2E_KEEP:-}" ]; then trap 'scripts/cluster.sh down' EXIT; fi
scripts/images.sh
scripts/cluster.sh install
KUBECONFIG=$(scripts/cluster.sh kubeconfig); export KUBECONFIG
cargo build --locked -q -p lull-e2e --bins
cargo run --locked -q -p lull-e2e --bin many -- --workloads "${WORKLOADS:-5000}"
cargo run --locked -q -p lull-e2e --bin coldstart -- --wakes "${WAKES:-20}"
