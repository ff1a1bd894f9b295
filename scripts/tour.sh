#!/usr/bin/env bash
# make tour: Lull as somebody meets it who has a cluster and has never seen it, from install to uninstall; what
# is typed and what comes back is written to docs/tour.md. On a cluster of its own with Istio; CLUSTER=current:
# on the current one, which must be without Lull, and whose nodes can pull the images (IMAGE_REPOSITORY,
# IMAGE_TAG, APP_IMAGE).
. "$(dirname "$0")/common.sh"
cd "$root"
page=${TOUR_PAGE:-docs/tour.md} draft=$build/tour.md
namespace=tour
app=${APP_IMAGE:-lull-test/sample-app:dev}

cluster() {
  LULL_CLUSTER=${E2E_CLUSTER:-tour}; export LULL_CLUSTER
  cluster_up
  case $CLUSTER in
    builtin) down_at_exit mesh_up ;;
    *) down_at_exit ;;
  esac
  if [ "$CLUSTER" != current ]; then
    say "images"
    scripts/images.sh
    step "images into the cluster" scripts/cluster.sh load
  fi
  KUBECONFIG=$(scripts/cluster.sh kubeconfig); export KUBECONFIG
}

# kubectl, helm and the plugin by the names that people type.
tools() {
  local bin=$build/tour-bin name path
  command -v curl >/dev/null || die "curl is missing: install it"
  scripts/kubectl-lull.sh quick-release
  mkdir -p "$bin"
  for name in kubectl helm; do path=$(tool $name) && ln -sf "$path" "$bin/$name"; done
  ln -sf "$build/bin/kubectl-lull" "$bin/kubectl-lull"
  PATH=$bin:$PATH; export PATH
}

must_be_new_here() {
  ! helm status lull --namespace "$LULL_NAMESPACE" >/dev/null 2>&1 ||
    die "Lull is installed here: the tour begins without it. Take it away (helm uninstall lull -n $LULL_NAMESPACE) or take another cluster"
  ! kubectl get namespace $namespace >/dev/null 2>&1 ||
    die "there is a namespace $namespace already: kubectl delete namespace $namespace"
}

is_meshed() { kubectl get crd workloadentries.networking.istio.io >/dev/null 2>&1; }

# === the page

text() { printf '%s\n\n' "$*" >>"$draft"; }

# What belongs to the machine and not to the story.
scrub() {
  sed -e "s#$KUBECONFIG#~/.kube/config#g" -e "s#$root/##g" \
    ${IMAGE_REPOSITORY:+-e "s#$IMAGE_REPOSITORY#registry.example/lull#g"} ${APP_IMAGE:+-e "s#$APP_IMAGE#registry.example/app#g"}
}

block() { # COMMAND, WHAT IT SAID, CODE
  { printf '```console\n$ %s\n' "$1"
    [ -z "$2" ] || printf '%s\n' "$2"
    [ "$3" = 0 ] || printf '$ echo $?\n%s\n' "$3"
    printf '```\n\n'; } | scrub >>"$draft"
}

# Types a command, which must end with this code within so many seconds, into the page.
type_in() { # CODE, SECONDS, COMMAND
  local code=0 said began=$SECONDS
  printf '    %-58.58s' "${3%%$'\n'*}" >&2
  said=$(timeout "$2" bash -c "$3" 2>&1 </dev/null) || code=$?
  printf '%4d s\n' $((SECONDS - began)) >&2
  block "$3" "$said" "$code"
  [ "$code" = "$1" ] || { printf '%s\n' "$said" >&2; stopped "ended with $code and not with $1 (124: not within $2 s): $3"; }
}

stopped() {
  die "$1
What was written so far is in $draft. What the tour has made goes with:
  helm uninstall lull --namespace $LULL_NAMESPACE; kubectl delete namespace $namespace"
}

# Waits for what needs a moment and is nothing to read.
within() { # SECONDS, COMMAND...
  local end=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || stopped "not within $1 s: ${*:2}"
    sleep 0.5
  done
}

# === the story

opening() {
  local version mesh="without a mesh"
  version=$(kubectl version -o json | sed -n '/serverVersion/,$ s/.*"gitVersion": "v\([0-9.]*\).*/\1/p')
  if is_meshed; then mesh="with Istio"; fi
  text "# A tour"
  text "What somebody types who has a cluster and has never seen Lull, and what comes back. \`make tour\` has typed it, on Kubernetes $version $mesh, and has written this page."
}

an_app() {
  text "## An app"
  text "A Deployment with a Service, as there are many, and another pod that calls it. Nothing in them is of Lull."
  type_in 0 30 "kubectl create namespace $namespace"
  if is_meshed; then type_in 0 30 "kubectl label namespace $namespace istio-injection=enabled"; fi
  type_in 0 30 "kubectl -n $namespace create deployment hello --image=$app --port=8080 -- /sample-app serve"
  type_in 0 30 "kubectl -n $namespace expose deployment hello --port=80 --target-port=8080"
  type_in 0 30 "kubectl -n $namespace create deployment caller --image=$app -- /sample-app serve"
  within 180 kubectl -n $namespace rollout status deployment hello --timeout=10s
  within 180 kubectl -n $namespace rollout status deployment caller --timeout=10s
  call 30
}

call() { type_in 0 "$1" "kubectl -n $namespace exec deploy/caller -- /sample-app get http://hello/"; }

install() {
  text "## Install"
  type_in 0 240 "helm install lull charts/lull --namespace $LULL_NAMESPACE --create-namespace \\
    --set image.repository=${IMAGE_REPOSITORY:-lull},image.tag=${IMAGE_TAG:-dev} ${HELM_ARGS:+$HELM_ARGS }--wait --timeout 3m"
  text "Is everything there?"
  within 60 kubectl lull doctor
  type_in 0 60 "kubectl lull doctor"
}

enrol() {
  text "## Plan, then on"
  text "What would Lull do with it, and does anything stand in the way? This changes nothing."
  type_in 0 60 "kubectl lull plan deploy/hello -n $namespace"
  text "It sleeps after a minute without a call. Nobody wants to wait for that here, so 6 seconds, the least there is."
  type_in 0 30 "kubectl -n $namespace annotate deployment hello lull.dev/window=6s"
  type_in 0 330 "kubectl lull on deploy/hello -n $namespace"
}

sleep_and_wake() {
  text "## Asleep"
  type_in 0 200 "kubectl -n $namespace wait scaledworkload/hello --for=jsonpath='{.status.state}'=Asleep --timeout=3m"
  type_in 0 60 "kubectl lull list -n $namespace"
  within 120 no_pod_is_left
  type_in 0 30 "kubectl -n $namespace get deployment,pods"
  text "The Service has endpoints all the same. They are Lull's activators."
  type_in 0 30 "kubectl -n $namespace get endpointslices"
  text "## Awake, by a call"
  text "The same call as before. It has to wait for a pod, and gets its answer."
  call 90
  text "Who was that, and what took how long?"
  within 30 wake_is_written
  type_in 0 60 "kubectl lull why deploy/hello -n $namespace"
}

no_pod_is_left() { [ -z "$(kubectl -n $namespace get pods -l app=hello -o name)" ]; }

# With its end, which is known once the first answer has been told of.
wake_is_written() {
  [ -n "$(kubectl -n $namespace get scaledworkload hello -o jsonpath='{.status.wakes[0].totalMs}')" ]
}

status_page() {
  local said=$build/tour-ui url ui
  text "## The page"
  text "The autoscaler serves a page with all of this, live. \`kubectl lull ui\` opens it here; a browser shows it as in [the status page](status-page.md), and scripts read the same as JSON."
  timeout 60 kubectl-lull ui >"$said" 2>&1 </dev/null & ui=$!
  within 20 grep -q http:// "$said"
  url=$(sed -n 's#.*\(http://[0-9.:]*/\).*#\1#p' "$said")
  block "kubectl lull ui &" "$(head -1 "$said")" 0
  type_in 0 30 "curl -sS --fail ${url}workloads"
  kill $ui 2>/dev/null || true
  wait $ui 2>/dev/null || true
}

# Breaks a component, has doctor name it, and puts it right by doctor's own words.
break_and_fix() { # COMPONENT, WHAT IS LOST
  local fix
  text "## Something breaks: no $1"
  text "$2"
  type_in 0 30 "kubectl -n $LULL_NAMESPACE scale deployment lull-$1 --replicas 0"
  within 180 component_is_gone "$1"
  text "\`doctor\` names it, says what to do, and ends with 3."
  within 30 doctor_says "$1 is scaled to 0"
  type_in 3 60 "kubectl lull doctor"
  # It ends with 3 here.
  fix=$({ kubectl lull doctor 2>/dev/null || true; } | sed -n "/$1 is scaled to 0/,/fix:/ s/^ *fix: //p")
  [ -n "$fix" ] || stopped "doctor has no fix for: $1 is scaled to 0"
  text "As it says:"
  type_in 0 30 "$fix"
  type_in 0 130 "kubectl -n $LULL_NAMESPACE rollout status deployment lull-$1 --timeout=2m"
  within 90 doctor_says "0 problems, 0 warnings"
  type_in 0 60 "kubectl lull doctor"
}

component_is_gone() { [ -z "$(kubectl -n "$LULL_NAMESPACE" get pods -l "app.kubernetes.io/component=$1" -o name)" ]; }

# With whatever code it ends.
doctor_says() { grep -qF -- "$1" <<<"$(kubectl lull doctor 2>&1)"; }

take_off() {
  text "## Off"
  type_in 0 330 "kubectl lull off deploy/hello -n $namespace"
  text "The Service points at the app again, and the sidecar is gone."
  as_it_was
  text "## Uninstall"
  type_in 0 330 "helm uninstall lull --namespace $LULL_NAMESPACE --wait --timeout 5m"
  type_in 1 30 "kubectl get crd scaledworkloads.lull.dev"
  call 60
  type_in 0 120 "kubectl delete namespace $namespace"
}

as_it_was() {
  within 180 kubectl -n $namespace rollout status deployment hello --timeout=10s
  type_in 0 30 "kubectl -n $namespace get service hello -o jsonpath='{.spec.ports[0].targetPort}{\"\\n\"}'"
  type_in 0 30 "kubectl -n $namespace get deployment hello -o jsonpath='{.spec.template.spec.containers[*].name}{\"\\n\"}'"
}

cluster
tools
must_be_new_here
mkdir -p "$build" && : >"$draft"
say "tour"
opening
an_app
install
enrol
sleep_and_wake
status_page
break_and_fix activator "What is awake goes on. What sleeps can't be woken by its callers, so Lull wakes it after 15 s."
break_and_fix webhook "What is enrolled goes on, and nothing new is."
take_off
sed -e '$ { /^$/d }' "$draft" >"$page"
say "$page"
