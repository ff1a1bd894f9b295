#!/usr/bin/env bash
# make mesh-load: hey -n 1000000 -c 300 through the ingress gateway of a mesh, to a workload that sleeps;
# writes its result into docs/performance.md (REQUESTS, CONNECTIONS, CONTAINER_CONCURRENCY, MINUTES).
. "$(dirname "$0")/common.sh"
cd "$root"
with_lull mesh-load mesh_up
cargo build --locked -q -p lull-cluster
hey=$(lull_cluster path hey)
cargo build --locked -q -p lull-e2e --bin meshload
on_a_node "$CARGO_TARGET_DIR/debug/meshload" --hey "$hey" \
  --requests "${REQUESTS:-1000000}" --connections "${CONNECTIONS:-300}" \
  --container-concurrency "${CONTAINER_CONCURRENCY:-0}" --minutes "${MINUTES:-25}"
