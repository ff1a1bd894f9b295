#!/usr/bin/env bash
# make knative: Lull beside Knative Serving: the two queue-proxies on loopback, then cold starts by either and by a
# bare patch, in turns on one cluster that has both. What comes of it stands in docs/comparison.md. Knative comes from its Go modules, with its own manifests
# and defaults, without what needs more than one replica or a networking layer: its Service for a revision is
# called by name.
. "$(dirname "$0")/common.sh"
cd "$root"
[ "$CLUSTER" = builtin ] || die "CLUSTER=$CLUSTER: make knative measures on its own cluster only"

knative_up() {
  KUBECONFIG=$(scripts/cluster.sh kubeconfig); export KUBECONFIG
  kubectl=$(tool kubectl)
  say "Knative Serving"
  manifests=$(lull_cluster path knative-manifests)/core
  local networking caching
  networking=$(lull_cluster path knative-networking-manifests)
  caching=$(lull_cluster path knative-caching-manifests)
  step "images into the cluster" load_knative
  # The order of its own release: kinds, rights, settings, programs, and what calls the webhook once that is there.
  step "kinds" apply "$manifests"/300-resources/*.yaml "$networking"/{certificate,domain-claim,ingress,serverlessservice}.yaml "$caching/image.yaml"
  step "namespace and rights" apply "$manifests"/100-namespace.yaml "$manifests"/200-serviceaccount.yaml "$manifests"/200-roles/*.yaml
  step "settings" settings "$networking/config-network.yaml"
  step "programs" apply "$manifests"/deployments/{controller,activator,autoscaler,webhook}.yaml "$manifests/webhooks/secret.yaml"
  step "they are ready" "$kubectl" -n knative-serving wait deployment --all --for condition=Available --timeout 120s
  step "webhooks" apply "$manifests"/webhooks/{configmap-validation,defaulting,resource-validation}.yaml
  step "a Service of Knative's is taken" within 60 takes_service
}

load_knative() {
  local name tar program
  mkdir -p "$build"
  for name in controller activator autoscaler queue webhook; do
    tar=$build/knative-$name.tar
    program=$(lull_cluster path "knative-$name") || return
    lull_cluster make-image "localhost/knative-$name:test" "$tar" --entrypoint "[\"/$name\"]" --user 65532 \
      --file "$program:/$name" && lull_cluster load-image "$tar" && rm "$tar" || return
  done
}

apply() { # FILE..., with the images that are loaded
  local file
  for file in "$@"; do
    echo ---
    sed -E 's#ko://knative.dev/serving/cmd/([a-z]+)#localhost/knative-\1:test#' "$file"
  done | "$kubectl" apply --server-side --force-conflicts -f -
}

# No registry is asked which image a tag means.
settings() { # FILE..., beside Knative's own
  apply "$manifests"/configmaps/*.yaml "$@" &&
    "$kubectl" -n knative-serving patch configmap config-deployment --type merge \
      -p '{ "data": { "registries-skipping-tag-resolving": "localhost,index.docker.io" } }'
}

takes_service() {
  "$kubectl" create --dry-run=server -f - <<'YAML'
apiVersion: serving.knative.dev/v1
kind: Service
metadata: { name: any, namespace: default }
spec: { template: { spec: { containers: [{ image: localhost/any }] } } }
YAML
}

need_toolchains
cargo build --locked -q -p lull-cluster
queue=$(lull_cluster path knative-queue)
scripts/bench.sh queue-proxy --knative "$queue" --rounds "${ROUNDS:-5}"
with_lull knative knative_up
cargo run --locked -q -p lull-e2e --bin coldstart -- --wakes "${WAKES:-50}" --knative
