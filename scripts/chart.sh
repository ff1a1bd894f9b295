#!/usr/bin/env bash
# Chart checks that need no cluster: lint, golden renders, wrong values, the table of values, the CRD as
# the code has it, alerts and dashboards. --update writes the golden renders and the table anew.
. "$(dirname "$0")/common.sh"
cd "$root"
chart=charts/lull golden=charts/golden page=docs/chart.md

# Sets of values: their names, and what helm takes for each.
sets=(defaults everything)
values_of() { [ "$1" = defaults ] || printf '%s\n' --values "$golden/$1.values.yaml"; }

render() { "$helm" template lull $chart --namespace lull-system --kube-version 1.37.0 "$@"; }

# A set as it is rendered; CRD and dashboards have checks of their own.
rendered() {
  local arguments; mapfile -t arguments < <(values_of "$1")
  render "${arguments[@]}" | awk 'BEGIN { RS = ORS = "---\n" } NR > 1 && !/\/(scaledworkloads|dashboards)\.yaml\n/'
}

# The documentation with the table that values.yaml gives.
documented() {
  local table; table=$(awk -f scripts/chart-values.awk $chart/values.yaml) || return
  TABLE=$table awk '
    /^<!-- end of values -->$/ { print ENVIRON["TABLE"]; inside = 0 }
    !inside { print }
    /^<!-- values:/ { inside = 1 }' $page
}

update() {
  local text set
  text=$(documented) && printf '%s\n' "$text" >$page
  for set in "${sets[@]}"; do rendered "$set" >"$golden/$set.yaml"; done
}

lint() {
  local set arguments
  for set in "${sets[@]}"; do
    mapfile -t arguments < <(values_of "$set")
    "$helm" lint --strict $chart --namespace lull-system "${arguments[@]}" || return
  done
}

renders_are_golden() {
  local set
  for set in "${sets[@]}"; do diff -u "$golden/$set.yaml" <(rendered "$set") || return; done
}

oldest_renders_the_same() { diff <(render) <(render --kube-version 1.33.0); }

table_is_current() { diff -u $page <(documented); }

settings_are_text() {
  local map
  map=$(render --show-only templates/settings.yaml \
    --set settings.window=2m,settings.target=1000000,settings.server-timing=false) &&
    grep -qx '  window: "2m"' <<<"$map" && grep -qx '  target: "1000000"' <<<"$map" &&
    grep -qx '  server-timing: "false"' <<<"$map"
}

numbers_are_whole() {
  local pod
  pod=$(render --show-only templates/autoscaler.yaml --values - <<<'{ autoscaler: { extraEnv: { NUMBER: 1000000 } } }') &&
    grep -q '{ name: NUMBER, value: "1000000" }' <<<"$pod"
}

# A key with nothing behind it, as where all of its lines are comments, takes the default away.
nothing_is_as_empty() {
  diff <(render) <(render --values - <<'VALUES'
autoscaler: { extraEnv: null, serviceAccount: null }
pods: { labels: null, annotations: null }
commonLabels: null
settings: null
VALUES
  )
}

# One that is called webhook in Lull's namespace would be WEBHOOK_PORT in the webhook's pods.
services_are_no_variables() {
  local all; all=$(render --values $golden/everything.values.yaml) &&
    diff <(grep -c '^ *serviceAccountName:' <<<"$all") <(grep -c '^ *enableServiceLinks: false$' <<<"$all")
}

# It asks for it where a Service has an owner; elsewhere nobody gets it.
openshift_alone_gets_services_deleted() {
  local rule='- { apiGroups: [""], resources: [services], verbs: [delete] }' there elsewhere
  there=$(render --show-only templates/rbac.yaml --api-versions security.openshift.io/v1) &&
    elsewhere=$(render --show-only templates/rbac.yaml) &&
    grep -qF -- "$rule" <<<"$there" && ! grep -qF -- "$rule" <<<"$elsewhere"
}

# What the message must name, and a wrong value.
wrong_values() {
  cat <<'CASES'
activatr                                   activatr.replicas=2
/activator/replicas                        activator.replicas=two
/activator/replicas                        activator.replicas=-1
replica                                    activator.replica=3
/activator/resources/limits/memory         activator.resources.limits.memory=1GB
request                                    activator.resources.request.cpu=1
/activator/maxHeldPerWorkload              activator.maxHeldPerWorkload=0
/activator/terminationGracePeriodSeconds   activator.terminationGracePeriodSeconds=5
/activator/otlpEndpoint                    activator.otlpEndpoint=otel-collector:4318
/activator/autoscaling/enabled             activator.autoscaling.enabled=yes
activator.autoscaling.minReplicas          activator.autoscaling.enabled=true,activator.autoscaling.minReplicas=11
targetCPUUtilizationPercentage             activator.autoscaling.enabled=true,activator.autoscaling.targetCPUUtilizationPercentage=0
scaleDwn                                   activator.autoscaling.behavior.scaleDwn.x=1
/autoscaler/shards                         autoscaler.shards=65
/mesh/mode                                 mesh.mode=linkerd
/mesh/nativeSidecars                       mesh.nativeSidecars=auto
/mesh/inject                               mesh.inject=all
/mesh/revision                             mesh.inject=true,mesh.revision=Stable
mesh.inject                                mesh.revision=stable
/autoscaler/propagationDelay               autoscaler.propagationDelay=3
/autoscaler/wakeDeadline                   autoscaler.wakeDeadline=10min
/autoscaler/activatorPorts                 autoscaler.activatorPorts=10000
autoscaler.activatorPorts                  autoscaler.activatorPorts=31999-10000
autoscaler.activatorPorts                  autoscaler.activatorPorts=10000-99999
/autoscaler/extraEnv/AUTOSCALER_LOG         autoscaler.extraEnv.AUTOSCALER_LOG.level=debug
AUTOSCALER_LOG                             autoscaler.extraEnv.AUTOSCALER_LOG=debug
AUTOSCALER_SHARDS                          autoscaler.extraEnv.AUTOSCALER_SHARDS=3
/webhook/timeoutSeconds                    webhook.timeoutSeconds=31
/webhook/certManager/enabled                webhook.certManager.enabled=selfSigned
/webhook/certManager/issuerRef              webhook.certManager.issuerRef=platform
name                                       webhook.certManager.issuerRef.kind=ClusterIssuer
/webhook/pods/tolerations                  webhook.pods.tolerations=all
nodeselector                               webhook.pods.nodeselector.a=b
podAntiaffinity                            pods.affinity.podAntiaffinity.a=b
whenUnsatisfiable                          pods.topologySpreadConstraints[0].maxSkew=1,pods.topologySpreadConstraints[0].topologyKey=zone
/pods/annotations/a                        pods.annotations.a=1
app.kubernetes.io~1component               pods.labels.app\.kubernetes\.io/component=mine
app.kubernetes.io~1instance                commonLabels.app\.kubernetes\.io/instance=mine
/commonAnnotations/a                       commonAnnotations.a=true
/podDisruptionBudget/enabled               podDisruptionBudget.enabled=1
/image/tag                                 image.tag=12
/image/repository                          image.repository=registry.example/
/image/digests/webhook                     image.digests.webhook=latest
queueProxy                                 image.digests.queueProxy=latest
/image/pullPolicy                          image.pullPolicy=always
/imagePullSecrets/0                        imagePullSecrets[0]=registry
/log/level                                 log.level=verbose
/log/level                                 log.level=info\,kube=warn\,debug
/log/json                                  log.json=sometimes
resource                                   targets[0].apiGroup=argoproj.io,targets[0].apiVersion=v1alpha1
/targets/0/apiVersion                      targets[0].apiGroup=a.io,targets[0].apiVersion=a.io/v1,targets[0].resource=rollouts
/targets/0/resource                        targets[0].apiGroup=a.io,targets[0].apiVersion=v1,targets[0].resource=Rollout
/namespaces                                namespaces=shop
/namespaces/0                              namespaces[0]=Shop
lull-system                                namespaces[0]=lull-system
scale                                      settings.scale=true
max-scales                                 settings.max-scales=1
/settings/window                           settings.window=60
/settings/max-scale                        settings.max-scale=many
/settings/class                            settings.class=keda
/settings/server-timing                    settings.server-timing=on
/settings/sidecar-memory-limit             settings.sidecar-memory-limit=1GB
/networkPolicy/enabled                     networkPolicy.enabled=ingress
/networkPolicy/callersFrom/0               networkPolicy.callersFrom[0]=web
/networkPolicy/webhookFrom/0               networkPolicy.webhookFrom[0]=10.0.0.0/8
cidr                                       networkPolicy.metricsFrom[0].cidr=10.0.0.0/8
/guard/enabled                             guard.enabled=Deny
/guard/actions/0                           guard.actions[0]=Refuse
/guard/actions                             guard.actions=Deny
/guard/actions                             guard.actions[0]=Deny,guard.actions[1]=Warn
/monitoring/scrapeAnnotations              monitoring.scrapeAnnotations=on
podMonitr                                  monitoring.podMonitr.enabled=true
/monitoring/podMonitor/interval            monitoring.podMonitor.interval=15
prometheusRul                              monitoring.prometheusRul.enabled=true
/monitoring/prometheusRule/runbookUrl      monitoring.prometheusRule.runbookUrl=https://runbooks.example/#lull
/monitoring/dashboards/labels/a            monitoring.dashboards.labels.a=1
/queueProxy/pullPolicy                     queueProxy.pullPolicy=Sometimes
/queueProxy/otlpEndpoint                   queueProxy.otlpEndpoint=https://otel-collector:4318
/test/namespace                            test.namespace=Default
/test/timeout                              test.timeout=180
/uninstall/timeout                         uninstall.timeout=600
/restore/enabled                           restore.enabled=1
/serviceAccount                            webhook.serviceAccount.name=mine
CASES
}

# Says what is wrong with every second case: from the first on, or (0) from the second.
taken_or_unnamed() { # 1|0
  local named value said
  wrong_values | awk -v which="$1" 'NR % 2 == which' | while read -r named value; do
    if said=$(render --set "$value" 2>&1 >/dev/null); then echo "$value is taken"
    elif ! grep -qF -- "$named" <<<"$said"; then echo "$value: $named is not named in: $said"; fi
  done
}

# Two at a time: each is a run of helm.
wrong_values_are_refused() {
  local faults
  faults=$(taken_or_unnamed 1 & taken_or_unnamed 0 && wait $!) || return
  [ -z "$faults" ] || { echo "$faults"; return 1; }
}

rules_are_right() {
  "$promtool" check rules $chart/rules/*.yaml && "$promtool" test rules tests/prometheus/*.yaml
}

# As `helm upgrade --reuse-values` has it, which takes the defaults of the chart that is replaced.
older_values_mean_the_same() { diff <(render) <(render --set mesh.nativeSidecars=null,mesh.inject=null); }

alerts() { sed -n 's/^ *- alert: //p' $chart/rules/*.yaml; }

# What is compared: alerts, what a scenario sees firing, entries of the runbook, and where alerts lead to.
alerts_have_scenarios_and_entries() {
  local firing="s/^ *- labels: 'ALERTS{alertname=\"\(Lull[A-Za-z]*\)\".*/\1/p"
  diff <(alerts | sort) <(sed -n "$firing" tests/prometheus/*.yaml | sort -u) &&
    diff <(alerts | sort) <(sed -n 's/^## \(Lull[A-Za-z]*\)$/\1/p' docs/runbook.md | sort) &&
    diff <(alerts | tr A-Z a-z) <(sed -n 's/^ *runbook_url: docs\/runbook\.md#//p' $chart/rules/*.yaml)
}

dashboards_are_shipped() {
  render --set monitoring.dashboards.enabled=true --show-only templates/dashboards.yaml |
    sed -n '/^  lull\.json: |$/,$ s/^    //p' | diff $chart/dashboards/lull.json -
}

crd_is_current() { diff <("$CARGO_TARGET_DIR/debug/autoscaler" crd) $chart/templates/scaledworkloads.yaml; }

CLUSTER=builtin need_toolchains
build_as_tests lull-cluster autoscaler
lull_cluster build
helm=$(lull_cluster path helm)
promtool=$(prometheus_folder)/promtool
if [ "${1:-}" = --update ]; then update; fi
step "helm lint" lint
step "golden renders (else: make chart-update)" renders_are_golden
step "the oldest Kubernetes gets the same" oldest_renders_the_same
step "wrong values are refused by name" wrong_values_are_refused
step "settings reach their ConfigMap as text" settings_are_text
step "numbers are not rounded" numbers_are_whole
step "a key without a value is as an empty one" nothing_is_as_empty
step "values of an older chart mean what they meant" older_values_mean_the_same
step "Services are no variables of Lull's pods" services_are_no_variables
step "the right to delete Services is OpenShift's alone" openshift_alone_gets_services_deleted
step "docs/chart.md has every value (else: make chart-update)" table_is_current
step "every alert fires and clears" rules_are_right
step "every alert has a scenario and an entry in docs/runbook.md" alerts_have_scenarios_and_entries
step "dashboards are in their ConfigMap" dashboards_are_shipped
step "CRD in the chart is what the code says (else: make crd)" crd_is_current
