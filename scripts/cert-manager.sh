#!/usr/bin/env bash
# make cert-manager: the chart with webhook.certManager.enabled beside a real cert-manager, on a cluster of its own:
# the API server calls the webhook over the certificate that cert-manager issued, and a renewed one is served
# without a restart. CLUSTER=kind or current: with the cert-manager that is there.
. "$(dirname "$0")/common.sh"
cd "$root"
export HELM_ARGS="${HELM_ARGS:-} --set webhook.certManager.enabled=true"
host=lull-webhook.$LULL_NAMESPACE.svc

cert_manager_up() { # exports KUBECONFIG; sets helm, kubectl
  KUBECONFIG=$(scripts/cluster.sh kubeconfig); export KUBECONFIG
  helm=$(tool helm) kubectl=$(tool kubectl)
  if [ "$CLUSTER" = builtin ]; then
    say "cert-manager"
    local program chart
    program=$(lull_cluster path cert-manager)
    chart=$(lull_cluster path cert-manager-chart)
    step "image into the cluster" load_cert_manager "$program"
    step "helm upgrade --install cert-manager" install_cert_manager "$chart"
  else
    "$kubectl" get crd certificates.cert-manager.io >/dev/null ||
      die "CLUSTER=$CLUSTER: install cert-manager on it first (https://cert-manager.io/docs/installation)"
  fi
  step "cert-manager takes an Issuer" within 60 takes_issuer
}

load_cert_manager() { # PROGRAM
  local tar=$build/cert-manager.tar
  mkdir -p "$build"
  lull_cluster make-image localhost/cert-manager:test "$tar" --entrypoint '["/cert-manager"]' \
    --file "$1:/cert-manager" && lull_cluster load-image "$tar"
}

# Its own chart, with one image for all three processes. Liveness is asked of a server that ours has not.
install_cert_manager() { # CHART
  "$helm" upgrade --install cert-manager "$1" --namespace cert-manager --create-namespace --wait --timeout 3m \
    --values - <<'VALUES'
crds: { enabled: true }
startupapicheck: { enabled: false }
prometheus: { enabled: false }
livenessProbe: { enabled: false }
image: &image { repository: localhost/cert-manager, tag: test }
extraArgs: [controller]
webhook: { image: *image, extraArgs: [webhook] }
cainjector: { image: *image, extraArgs: [cainjector] }
VALUES
}

# Its own webhook is asked, for which its CA injector must have been at work.
takes_issuer() {
  "$kubectl" create --dry-run=server -f - <<'YAML'
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: { name: any, namespace: default }
spec: { selfSigned: {} }
YAML
}

of_lull() { "$kubectl" -n "$LULL_NAMESPACE" "$@"; }

issued() { of_lull get secret lull-webhook-tls -o 'jsonpath={.data.tls\.crt}' | base64 -d; }
authority() { of_lull get secret lull-webhook-tls -o 'jsonpath={.data.ca\.crt}'; }
trusted() { "$kubectl" get mutatingwebhookconfiguration lull-webhook -o 'jsonpath={.webhooks[*].clientConfig.caBundle}'; }
serial() { openssl x509 -noout -serial; }

# The configuration has two webhooks.
authority_is_trusted() {
  local ca; ca=$(authority)
  [ -n "$ca" ] && [ "$(trusted)" = "$ca $ca" ]
}

# The webhook ignores failures: where it can't be called, the Deployment comes back as it was.
is_injected() {
  "$kubectl" create --dry-run=server -f - -o 'jsonpath={.spec.template.spec.containers[*].name}' <<'YAML' |
apiVersion: apps/v1
kind: Deployment
metadata: { name: shop, namespace: default, annotations: { lull.dev/scale: "true" } }
spec:
  selector: { matchLabels: { app: shop } }
  template:
    metadata: { labels: { app: shop } }
    spec: { containers: [{ name: app, image: registry.invalid/app, ports: [{ containerPort: 8080 }] }] }
YAML
    grep -w lull-queue-proxy
}

webhook_pods() { # JSONPATH
  of_lull get pods -l app.kubernetes.io/part-of=lull,app.kubernetes.io/component=webhook -o "jsonpath=$1"
}

# Serial numbers that pods of the webhook show to one who trusts what the API server trusts, and nothing else.
served() {
  local ip ca shown
  ca=$(mktemp)
  trusted | cut -d' ' -f1 | base64 -d >"$ca"
  for ip in $(webhook_pods '{.items[*].status.podIP}'); do
    shown=$(on_a_node openssl s_client -connect "$ip:9443" -servername "$host" -verify_hostname "$host" \
      -verify_return_error -CAfile "$ca" </dev/null) && serial <<<"$shown" || echo "none by $ip"
  done | sort -u
  rm -f "$ca"
}

serve_what_is_issued() { [ "$(served)" = "$(issued | serial)" ]; }

# What `cmctl renew` does.
renew() {
  of_lull patch certificate lull-webhook --subresource status --type json -p '[{ "op": "add",
    "path": "/status/conditions/-", "value": { "type": "Issuing", "status": "True", "reason": "ManuallyTriggered",
    "message": "make cert-manager" } }]'
}

is_another_than() { # SERIAL
  [ "$(issued | serial)" != "$1" ]
}

# Which pods there are, and how often each was started again.
lives() { webhook_pods '{range .items[*]}{.metadata.uid} {.status.containerStatuses[0].restartCount} {end}'; }
none_was_restarted() { # LIVES
  [ "$(lives)" = "$1" ]
}

with_lull cert-manager cert_manager_up
step "the certificate is ready" of_lull wait certificate/lull-webhook --for condition=Ready --timeout 60s
step "the API server trusts its authority" within 60 authority_is_trusted
step "every webhook serves it" within 60 serve_what_is_issued
step "a Deployment gets its sidecar" is_injected
first=$(issued | serial) authority=$(authority) lives=$(lives)
step "it is renewed" renew
step "there is another one" within 60 is_another_than "$first"
step "every webhook serves the other one" within 180 serve_what_is_issued
step "without a restart" none_was_restarted "$lives"
step "the authority is the same" [ "$(authority)" = "$authority" ]
step "a Deployment gets its sidecar" is_injected
