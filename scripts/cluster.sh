#!/usr/bin/env bash
# cluster.sh up|mesh|load|install|install_older COMMIT|restore apply|restore delete|down|kubeconfig: a cluster by
# $CLUSTER (builtin, kind, current), Istio and Lull on it, or an older Lull in the place of that one; restore:
# the Job that gives workloads back where Lull is gone (docs/uninstall.md).
. "$(dirname "$0")/common.sh"
cd "$root"

kubeconfig() {
  case $CLUSTER in
    builtin) lull_cluster kubeconfig ;;
    kind) local file=$build/kind-$LULL_CLUSTER.kubeconfig
          mkdir -p "$build"
          kind get kubeconfig --name "$LULL_CLUSTER" >"$file"; echo "$file" ;;
    current) echo "${KUBECONFIG:-$HOME/.kube/config}" ;;
    *) die "CLUSTER=$CLUSTER: must be builtin, kind or current" ;;
  esac
}

up() { # [OPTIONS] of lull-cluster up
  need_toolchains
  case $CLUSTER in
    builtin)
      need_packages gcc libc6-dev make
      cargo build --locked -q -p lull-cluster
      lull_cluster build
      lull_cluster up "$@" >/dev/null ;;
    kind)
      command -v kind >/dev/null || die "kind is missing: https://kind.sigs.k8s.io/docs/user/quick-start"
      kind get clusters | grep -qx "$LULL_CLUSTER" || kind create cluster --name "$LULL_CLUSTER" --wait 3m ;;
    current) : ;;
    *) die "CLUSTER=$CLUSTER: must be builtin, kind or current" ;;
  esac
}

mesh() {
  [ "$CLUSTER" != builtin ] || { lull_cluster mesh; return; }
  KUBECONFIG=$(kubeconfig); export KUBECONFIG
  local kubectl; kubectl=$(tool kubectl)
  if [ "$CLUSTER" = kind ] && ! mesh_is_there >/dev/null; then istio; fi
  local missing; missing=$(mesh_is_there) ||
    die "CLUSTER=$CLUSTER: there is no $missing (docs/istio.md, The suite on other clusters)"
}

# What the suite asks of a mesh; says what is missing.
mesh_is_there() {
  local mode ports port
  "$kubectl" get crd workloadentries.networking.istio.io >/dev/null 2>&1 ||
    { echo "Istio on it"; return 1; }
  mode=$("$kubectl" -n istio-system get peerauthentications.security.istio.io default -o jsonpath='{.spec.mtls.mode}' 2>/dev/null) || true
  [ "$mode" = STRICT ] || { echo "PeerAuthentication default in istio-system that says STRICT"; return 1; }
  ports=$("$kubectl" -n istio-system get service istio-ingressgateway -o jsonpath='{.spec.ports[*].port}' 2>/dev/null) || true
  for port in 8080 8081; do
    [[ " $ports " == *" $port "* ]] || { echo "port $port of a Service istio-ingressgateway in istio-system"; return 1; }
  done
}

# Istio with its own images, from the charts of a release: the same parts as `lull-cluster mesh` installs.
istio() {
  local charts=${ISTIO:-}/manifests/charts helm
  [ -d "$charts/istio-control/istio-discovery" ] ||
    die "CLUSTER=kind: ISTIO must name the folder of an unpacked release of Istio (https://istio.io/latest/docs/setup/getting-started/#download)"
  helm=$(tool helm)
  istio_part() { step "$1" "$helm" upgrade --install "$@" --namespace istio-system --create-namespace --wait --timeout 5m; }
  istio_part istio-base "$charts/base"
  # Before istiod starts: its own webhook for such objects doesn't answer at first.
  step "mutual TLS everywhere" within 60 "$kubectl" apply -f tests/cluster/mesh/strict.json
  istio_part istiod "$charts/istio-control/istio-discovery" --set pilot.autoscaleEnabled=false
  istio_part istio-ingressgateway "$charts/gateway" --values tests/cluster/mesh/gateway.json
}

load() { # [FOLDER] with images
  local images=("${1:-$build}"/images/*.tar) image
  case $CLUSTER in
    builtin) lull_cluster load-image "${images[@]}" ;;
    kind) for image in "${images[@]}"; do kind load image-archive "$image" --name "$LULL_CLUSTER" || return; done ;;
    current) : ;; # its nodes pull them: install says so
  esac
}

install() {
  KUBECONFIG=$(kubeconfig); export KUBECONFIG
  # Not within a step, which keeps what is said to itself.
  [ "$CLUSTER" != current ] ||
    say "CLUSTER=current: its nodes must be able to pull ${IMAGE_REPOSITORY:-lull}/<component>:${IMAGE_TAG:-dev} (IMAGE_REPOSITORY, IMAGE_TAG)"
  step "images into the cluster" load
  # A tag stays the same while one develops: pods get the new image by a changed annotation.
  deploy charts/lull "$(images)" --set-string "pods.annotations.lull\.dev/images=$(loaded)"
}

install_older() { # COMMIT, of which scripts/images.sh has made the images
  KUBECONFIG=$(kubeconfig); export KUBECONFIG
  local folder helm
  folder=$(older_folder "$1"); helm=$(tool helm)
  step "images of $1 into the cluster" load "$folder"
  # With everything of it, the CRD, too: that is another one.
  step "helm uninstall lull" "$helm" uninstall lull --namespace "$LULL_NAMESPACE" --wait --timeout 3m
  deploy "$folder/sources/charts/lull" "image.repository=lull,image.tag=$(basename "$folder")"
}

deploy() { # CHART VALUES [OPTIONS] of helm
  local helm; helm=$(tool helm)
  step "helm upgrade --install lull" "$helm" upgrade --install lull "$1" \
    --namespace "$LULL_NAMESPACE" --create-namespace --wait --timeout 3m \
    --set "$2" "${@:3}" ${HELM_ARGS:-} || { pods_of_lull; exit 1; }
}

# Helm only says that its time is over.
pods_of_lull() { "$(tool kubectl)" -n "$LULL_NAMESPACE" get pods >&2 || true; }

# Changes with what is in the images that were loaded.
loaded() {
  [ "$CLUSTER" != current ] || { echo pulled; return; }
  local name
  for name in "${components[@]}"; do cat "$build/images/$name.tar" || return; done | cksum | cut -d' ' -f1
}

images() { echo "image.repository=${IMAGE_REPOSITORY:-lull},image.tag=${IMAGE_TAG:-dev}"; }

restore() { # apply|delete
  KUBECONFIG=$(kubeconfig); export KUBECONFIG
  local helm kubectl version
  helm=$(tool helm); kubectl=$(tool kubectl)
  # Helm alone knows of no cluster, and takes one that is too old for the chart.
  version=$("$kubectl" get --raw /version | sed -n 's/.*"gitVersion": *"\([^"]*\)".*/\1/p')
  "$helm" template lull charts/lull --namespace "$LULL_NAMESPACE" --kube-version "$version" --set "$(images)" ${HELM_ARGS:-} \
    --set restore.enabled=true --show-only templates/restore.yaml | "$kubectl" "$1" -f -
}

down() {
  case $CLUSTER in
    builtin) lull_cluster down ;;
    kind) kind delete cluster --name "$LULL_CLUSTER" ;;
    current) "$(tool helm)" uninstall lull --namespace "$LULL_NAMESPACE" --wait ;;
  esac
}

"$@"
