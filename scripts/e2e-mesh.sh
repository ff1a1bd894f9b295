#!/usr/bin/env bash
# make e2e-mesh: the end-to-end suite inside an Istio mesh, on a cluster of its own (or kind, or the
# current one); E2E_FULL=1 adds what takes longer: more cycles, long wakes, and faults of the mesh.
. "$(dirname "$0")/common.sh"
cd "$root"
with_lull e2e-mesh mesh_up
say "suite"
# Each meshed pod takes an Envoy of 100 MiB and a share of the machine to start it.
suite() { # THREADS TEST...
  local threads=$1 test tests=(); shift
  for test in "$@"; do tests+=(--test "$test"); done
  cargo test --locked -p lull-e2e --features mesh "${tests[@]}" ${E2E_ARGS:-} -- --test-threads "$threads"
}
suite "${E2E_THREADS:-2}" mesh gateways
[ -n "${E2E_FULL:-}" ] || exit 0
say "long wakes, many streams"
suite "${E2E_THREADS:-2}" mesh_wakes
say "faults of the mesh"
# istiod is everybody's: one after the other.
suite 1 mesh_faults
