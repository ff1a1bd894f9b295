#!/usr/bin/env bash
# make e2e-mesh: the end-to-end suite inside an Istio mesh, on a cluster of its own (or kind, or the
# current one).
. "$(dirname "$0")/common.sh"
cd "$root"
with_lull e2e-mesh mesh_up
say "suite"
# Each meshed pod takes an Envoy of 100 MiB and a share of the machine to start it.
cargo test --locked -p lull-e2e --features mesh --test mesh --test gateways ${E2E_ARGS:-} -- --test-threads "${E2E_THREADS:-2}"
