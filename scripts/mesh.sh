#!/usr/bin/env bash
# make mesh: a cluster with Istio, mutual TLS required, and Lull on it.
. "$(dirname "$0")/common.sh"
cd "$root"
began=$SECONDS
lull_up mesh_up
cat <<TEXT

Ready after $((SECONDS - began)) s. The cluster stays up. By hand:

  export KUBECONFIG=$KUBECONFIG
  alias k=$(tool kubectl)
  k create namespace shop && k label namespace shop istio-injection=enabled
  k get workloadentry,endpointslice,sw -A

Take it down with: $(by_cluster)make demo-down
TEXT
