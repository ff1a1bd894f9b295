#!/usr/bin/env bash
# make chart-dry-run: the API server itself judges every object of the chart, as by default and with everything on,
# in a dry run: fields, CEL of guard and webhook, rights. On a cluster of its own; CLUSTER=current: the current one,
# of whatever version, without Lull on it.
. "$(dirname "$0")/common.sh"
cd "$root"
chart=charts/lull golden=charts/golden namespace=lull-dry-run-$$
LULL_CLUSTER=${E2E_CLUSTER:-dry-run}; export LULL_CLUSTER
cluster_up
down_at_exit
KUBECONFIG=$(scripts/cluster.sh kubeconfig); export KUBECONFIG
helm=$(tool helm) kubectl=$(tool kubectl)

if "$kubectl" get crd scaledworkloads.lull.dev >/dev/null 2>&1; then
  die "Lull is installed here, and its objects would stand in the way: take a cluster without it"
fi

# Objects of operators that the cluster doesn't know are left out, and that is said.
without=()
knows() { [ -n "$("$kubectl" api-resources --api-group "$1" -o name)" ]; }
leave_out() { # API GROUP, VALUES
  knows "$1" && return
  say "no $1 on this cluster: its objects are not judged"
  without+=(--set "$2")
}

arguments() { # SET
  # Namespaces that are written to must be there.
  [ "$1" = defaults ] || printf '%s\n' --values "$golden/$1.values.yaml" --set 'namespaces={default}'
  [ ${#without[@]} -eq 0 ] || printf '%s\n' "${without[@]}"
}

# Helm asks the server for its version and for the schemas of all kinds.
helm_takes() { # SET
  local all; mapfile -t all < <(arguments "$1")
  "$helm" install lull $chart --namespace "$namespace" --dry-run=server "${all[@]}" >/dev/null
}

# The server decodes, validates and admits each object. Not the test's: a Pod is refused before its account is
# really there. What is rendered is the same for every version (make chart).
server_takes() { # SET
  local all; mapfile -t all < <(arguments "$1")
  "$helm" template lull $chart --namespace "$namespace" --kube-version 1.37.0 --skip-tests "${all[@]}" |
    "$kubectl" apply --server-side --force-conflicts --dry-run=server -f -
}

say "Kubernetes $("$kubectl" get --raw /version | sed -n 's/.*"gitVersion": *"\([^"]*\)".*/\1/p')"
leave_out cert-manager.io webhook.certManager.enabled=false
leave_out monitoring.coreos.com \
  monitoring.podMonitor.enabled=false,monitoring.podMonitor.queueProxies=false,monitoring.prometheusRule.enabled=false
if [ "$CLUSTER" = current ]; then trap '"$kubectl" delete namespace "$namespace" --wait=false' EXIT; fi
step "a namespace" "$kubectl" create namespace "$namespace"
for set in defaults everything; do
  step "helm finds nothing wrong: $set" helm_takes "$set"
  step "the API server takes every object: $set" server_takes "$set"
done
step "clean up" "$kubectl" delete namespace "$namespace" --wait=false --ignore-not-found
