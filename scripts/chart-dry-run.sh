#!/usr/bin/env bash
# make chart-dry-run: the API server itself judges every object of the chart, as by default and with everything on,
# in a dry run: fields, CEL of guard and webhook, rights; and what Lull makes once it runs. On API servers of the
# oldest and of the newest supported Kubernetes, without nodes; CLUSTER=kind or current: on that cluster, of whatever
# version, without Lull on it.
. "$(dirname "$0")/common.sh"
cd "$root"
chart=charts/lull golden=charts/golden namespace=lull-dry-run-$$

# Objects of operators that the cluster doesn't know are left out, and that is said.
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

render() { "$helm" template lull $chart --namespace "$namespace" --kube-version "$version" --skip-tests "$@"; }

# The server decodes, validates and admits each object. Not the test's: a Pod is refused before its account is
# really there.
server_takes() { # SET
  local all; mapfile -t all < <(arguments "$1")
  render "${all[@]}" | "$kubectl" apply --server-side --force-conflicts --dry-run=server -f -
}

# A Deployment as the webhook makes it, and with a native sidecar, as Istio's injector adds one to its pods. The
# sample has two fields that no Kubernetes knows, since the webhook keeps them; the server must know all others.
server_takes_injected() {
  local warnings seen others
  warnings=$(mktemp)
  seen=$("$kubectl" patch --local -f webhook/testdata/injected.json --type merge -p '{
      "metadata": { "namespace": "'"$namespace"'" },
      "spec": { "template": { "spec": { "initContainers": [
        { "name": "istio-proxy", "image": "proxyv2", "restartPolicy": "Always" } ] } } } }' -o json |
    "$kubectl" create --dry-run=server --validate=warn -f - -o \
      'jsonpath={.spec.template.spec.initContainers[0].restartPolicy} {.spec.template.spec.containers[*].name}' \
      2>"$warnings")
  others=$(grep -v someFutureField "$warnings"); rm -f "$warnings"
  echo "$seen"; echo "$others"
  [ "$seen" = "Always app lull-queue-proxy" ] && [ -z "$others" ]
}

# Not a dry run, which makes no kind that could be asked for.
definition_is_served() {
  render --show-only templates/scaledworkloads.yaml | "$kubectl" apply --server-side -f - &&
    "$kubectl" wait --for condition=Established --timeout 30s crd/scaledworkloads.lull.dev &&
    within 30 knows lull.dev &&
    "$kubectl" -n "$namespace" create -f tests/chart/scaledworkload.yaml &&
    "$kubectl" -n "$namespace" patch sw shop --subresource status --type merge \
      -p '{"status":{"state":"Asleep","mode":"Proxy"}}' &&
    "$kubectl" -n "$namespace" get sw shop | grep 'Proxy *Asleep'
}

judge() { # exports KUBECONFIG; sets helm, kubectl, version, without
  local set
  KUBECONFIG=$(scripts/cluster.sh kubeconfig); export KUBECONFIG
  helm=$(tool helm) kubectl=$(tool kubectl) without=()
  version=$("$kubectl" get --raw /version | sed -n 's/.*"gitVersion": *"\([^"]*\)".*/\1/p')
  say "Kubernetes $version"
  if "$kubectl" get crd scaledworkloads.lull.dev >/dev/null 2>&1; then
    die "Lull is installed here, and its objects would stand in the way: take a cluster without it"
  fi
  leave_out cert-manager.io webhook.certManager.enabled=false
  leave_out monitoring.coreos.com \
    monitoring.podMonitor.enabled=false,monitoring.podMonitor.queueProxies=false,monitoring.prometheusRule.enabled=false
  step "a namespace" "$kubectl" create namespace "$namespace"
  for set in defaults everything; do
    step "helm finds nothing wrong: $set" helm_takes "$set"
    step "the API server takes every object: $set" server_takes "$set"
  done
  step "the API server takes an injected workload" server_takes_injected
}

# An API server alone, gone at the end of the subshell that this runs in.
judge_built_in() { # oldest|newest
  local options=(--nodes 0) expected
  [ "$1" = newest ] || options+=(--oldest)
  LULL_CLUSTER=${E2E_CLUSTER:-dry-run}-$1; export LULL_CLUSTER
  cluster_up "${options[@]}"
  down_at_exit
  judge
  expected=$(sed -n 's/^kubeVersion: ">=\(1\.[0-9]*\)\..*/v\1./p' $chart/Chart.yaml)
  if [ "$1" = oldest ] && [[ $version != "$expected"* ]]; then
    die "the chart is for $expected and later: tests/cluster/components/kubernetes-oldest has $version"
  fi
  step "the API server serves ScaledWorkloads" definition_is_served
}

if [ "$CLUSTER" = builtin ]; then
  (judge_built_in oldest)
  (judge_built_in newest)
else
  LULL_CLUSTER=${E2E_CLUSTER:-dry-run}; export LULL_CLUSTER
  cluster_up
  if [ "$CLUSTER" = current ]; then
    trap '"$kubectl" delete namespace "$namespace" --wait=false --ignore-not-found' EXIT
  else
    down_at_exit
  fi
  judge
fi
