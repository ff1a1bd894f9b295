#!/usr/bin/env bash
# make demo: a cluster, Lull on it, and a workload that sleeps and wakes before your eyes.
. "$(dirname "$0")/common.sh"
cd "$root"
began=$SECONDS
lull_up
say "demo"
cargo build --locked -q -p lull-e2e --bin demo
"$CARGO_TARGET_DIR/debug/demo"
cat <<TEXT

Ready after $((SECONDS - began)) s. The cluster stays up. By hand:

  export KUBECONFIG=$KUBECONFIG
  alias k=$(tool kubectl)
  k get sw -A -w
  k -n demo get deployment,service,endpointslice,pod

Take it down with: $(by_cluster)make demo-down
TEXT
