#!/usr/bin/env bash
# make e2e-mesh: the end-to-end suite inside an Istio mesh, on a cluster of its own (or kind, or the
# current one); E2E_FULL=1 adds what takes longer: more cycles, long wakes, ways of injection, a Redis, plain
# text, policies, pushes and faults of the mesh, crashes of the autoscaler, and Lull's own pods in it.
# E2E_SHORT=1 (make e2e-mesh-short): the part of it that fits into 4 minutes, of which 2 are the cluster.
. "$(dirname "$0")/common.sh"
cd "$root"

# One of each sort: callers inside and outside, an identity, a policy, a gateway, gRPC and WebSocket, raw
# TCP, and sleep and wake under load, which here are 3 cycles.
short=(
  the_app_sees_who_called_awake_and_woken
  a_policy_on_identities_holds_awake_and_woken
  a_caller_outside_the_mesh_is_refused_awake_and_woken
  cycles_of_sleep_and_wake_under_load_answer_every_request
  a_gateway_wakes_both_workloads_behind_the_paths_of_an_external_host
  http2_as_grpc_speaks_it_and_upgrades_wake
  a_tcp_server_that_speaks_first_is_woken_by_its_first_connection
)

# A name that no test has would be left out in silence.
short_is_there() {
  local there name
  there=$(run_tests mesh gateways -- --list --format terse) || return
  for name in "${short[@]}"; do
    grep -qx "$name: test" <<<"$there" || die "scripts/e2e-mesh.sh: no test is called $name"
  done
}

# For mesh_crashes alone; whoever doesn't ask for a crash never sees one.
export HELM_ARGS="${HELM_ARGS:-} --set autoscaler.extraEnv.AUTOSCALER_CRASH_ON_REQUEST=true"
programs=()
[ -z "${E2E_SHORT:-}" ] || programs=(mesh gateways)
build_tests "${programs[@]}"
# Each meshed pod takes an Envoy of 100 MiB and a share of the machine to start it.
threads=${E2E_THREADS:-2}
if [ -n "${E2E_SHORT:-}" ]; then
  short_is_there
  with_lull e2e-mesh mesh_up
  say "suite, the short part"
  run_tests mesh gateways -- --test-threads "$threads" --exact "${short[@]}"
  exit 0
fi
mesh_and_redis() { mesh_up && { [ -z "${E2E_FULL:-}" ] || scripts/redis-image.sh; }; }
with_lull e2e-mesh mesh_and_redis
E2E_HELM=$(tool helm); export E2E_HELM
E2E_KUBECTL=$(tool kubectl); export E2E_KUBECTL
say "suite"
run_tests mesh gateways mesh_tickets -- --test-threads "$threads"
[ -n "${E2E_FULL:-}" ] || exit 0
say "long wakes, many streams"
run_tests mesh_wakes -- --test-threads "$threads"
say "ways of Istio's container, a real Redis"
run_tests mesh_injection mesh_redis -- --test-threads "$threads"
say "plain text permitted, and nothing else"
run_tests mesh_modes -- --test-threads "$threads"
if [ "$CLUSTER" = current ]; then
  say "the mesh itself: left out, CLUSTER=current may have others on it, who would be denied and left without istiod"
  exit 0
fi
say "the mesh itself: its policies, its pushes, its faults"
# istiod is everybody's: one after the other.
run_tests mesh_wide mesh_faults mesh_phases -- --test-threads 1
say "autoscalers that crash after each write to Istio"
run_tests mesh_crashes -- --test-threads 1
say "Lull's own pods inside of the mesh"
run_tests mesh_inside
