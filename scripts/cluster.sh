#!/usr/bin/env bash
# cluster.sh up|mesh|install|install_older COMMIT|restore apply|restore delete|down|kubeconfig: a cluster by
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
      kind get clusters | grep -qx "$LULL_CLUSTER" || kind create cluster --name "$LULL_CLUSTER" ;;
    current) : ;;
    *) die "CLUSTER=$CLUSTER: must be builtin, kind or current" ;;
  esac
}

mesh() {
  case $CLUSTER in
    builtin) lull_cluster mesh ;;
    *) "$(tool kubectl)" --kubeconfig "$(kubeconfig)" get crd workloadentries.networking.istio.io >/dev/null ||
         die "CLUSTER=$CLUSTER: install Istio on it first (https://istio.io/latest/docs/setup)" ;;
  esac
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
  deploy charts/lull "$(images)"
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

deploy() { # CHART VALUES
  local helm; helm=$(tool helm)
  step "helm upgrade --install lull" "$helm" upgrade --install lull "$1" \
    --namespace "$LULL_NAMESPACE" --create-namespace --wait --timeout 3m \
    --set "$2" ${HELM_ARGS:-} || { pods_of_lull; exit 1; }
}

# Helm only says that its time is over.
pods_of_lull() { "$(tool kubectl)" -n "$LULL_NAMESPACE" get pods >&2 || true; }

images() { echo "image.repository=${IMAGE_REPOSITORY:-lull},image.tag=${IMAGE_TAG:-dev}"; }

restore() { # apply|delete
  KUBECONFIG=$(kubeconfig); export KUBECONFIG
  local helm kubectl
  helm=$(tool helm); kubectl=$(tool kubectl)
  "$helm" template lull charts/lull --namespace "$LULL_NAMESPACE" --set "$(images)" ${HELM_ARGS:-} \
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
