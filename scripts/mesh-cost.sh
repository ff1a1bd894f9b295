#!/usr/bin/env bash
# make mesh-cost: istiod's pushes for a sleep and a wake, and cold starts in the mesh by phase, beside the
# same app as a plain Deployment and beside both outside of the mesh (CYCLES, WAKES).
. "$(dirname "$0")/common.sh"
cd "$root"
with_lull mesh-cost mesh_up
cargo run --locked -q -p lull-e2e --bin meshcost -- --cycles "${CYCLES:-5}" --wakes "${WAKES:-20}"
