#!/usr/bin/env bash
# make demo: a cluster, Lull on it, and a workload that sleeps and wakes before your eyes.
. "$(dirname "$0")/common.sh"
cd "$root"
began=$SECONDS
if [ "$CLUSTER" = builtin ] && [ "$(id -u)" != 0 ]; then
  die "the built-in cluster needs root (network namespaces, containerd); or use CLUSTER=kind"
fi
say "cluster ($CLUSTER)"
scripts/cluster.sh up
say "images"
scripts/images.sh
say "Lull"
scripts/cluster.sh install
KUBECONFIG=$(scripts/cluster.sh kubeconfig); export KUBECONFIG
say "demo"
cargo build --locked -q -p lull-e2e --bin demo
"$CARGO_TARGET_DIR/debug/demo"
cat <<TEXT

Ready after $((SECONDS - began)) s. The cluster stays up. By hand:

  export KUBECONFIG=$KUBECONFIG
  alias k=$(tool kubectl)
  k get sw -A -w
  k -n demo get deployment,service,endpointslice,pod

Take it down with: make demo-down
TEXT
