{{- /* Labels and annotations of an object's metadata; `labels` and `annotations` are its own. */ -}}
{{- define "lull.meta" -}}
labels: {{ merge (include "lull.labels" . | fromYaml) (.labels | default dict) | toYaml | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "lull.labels" -}}
{{- $own := dict
  "app.kubernetes.io/part-of" "lull"
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/component" .component
  "app.kubernetes.io/managed-by" .root.Release.Service
  "app.kubernetes.io/version" .root.Chart.AppVersion }}
{{- merge $own (.root.Values.commonLabels | default dict) | toYaml }}
{{- end }}

{{- /* Kinds that are scaled, as autoscaler and webhook read them. */ -}}
{{- define "lull.targets" -}}
apps/v1/deployments,apps/v1/statefulsets
{{- range .Values.targets }},{{ .apiGroup }}/{{ .apiVersion }}/{{ .resource }}{{ end }}
{{- end }}

{{- define "lull.selector" -}}
app.kubernetes.io/part-of: lull
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* The same as text, as components look for their pods. */ -}}
{{- define "lull.selectorText" -}}
app.kubernetes.io/part-of=lull,app.kubernetes.io/instance={{ .root.Release.Name }},app.kubernetes.io/component={{ .component }}
{{- end }}

{{- define "lull.image" -}}
{{- $image := .root.Values.image }}
{{- $name := printf "%s/%s" $image.repository .component }}
{{- with get ($image.digests | default dict) .component }}
{{- $name }}@{{ . }}
{{- else }}
{{- $name }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{- /* Replicas of a component that there are at least. */ -}}
{{- define "lull.fewest" -}}
{{- $values := get .root.Values .component }}
{{- dig "autoscaling" "enabled" false $values | ternary (dig "autoscaling" "minReplicas" 0 $values) $values.replicas }}
{{- end }}

{{- define "lull.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "lull.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- /* No variables about the namespace's Services: of one that is called webhook there would be a WEBHOOK_PORT,
which is an option of the webhook's. */ -}}
{{- define "lull.noLinks" -}}
enableServiceLinks: false
{{- end }}

{{- /* Probes of every component: the admin port's pages. */ -}}
{{- define "lull.probes" -}}
readinessProbe:
  httpGet: { path: /ready, port: admin }
  periodSeconds: 1
  failureThreshold: 2
  timeoutSeconds: 5 # a node that is short of CPU is no reason to leave
livenessProbe:
  httpGet: { path: /live, port: admin }
  periodSeconds: 10
  failureThreshold: 3
  timeoutSeconds: 5
{{- end }}

{{- /* The value `pods`, with the component's own keys before the common ones. */ -}}
{{- define "lull.pods" -}}
{{- $own := dig "pods" dict (get .root.Values .component | default dict) }}
{{- range $key, $common := .root.Values.pods }}
{{ $key }}: {{ hasKey $own $key | ternary (get $own $key) $common | toJson }}
{{- end }}
{{- end }}

{{- /* Where any pod of the chart may run, and who pulls its image. */ -}}
{{- define "lull.scheduling" -}}
{{- $pods := include "lull.pods" . | fromYaml }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $pods.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* How the pods of a component keep away from each other. */ -}}
{{- define "lull.spread" -}}
{{- $pods := include "lull.pods" . | fromYaml }}
{{- $selector := dict "matchLabels" (include "lull.selector" . | fromYaml) }}
affinity:
  {{- with $pods.affinity }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector: {{ toYaml $selector | nindent 12 }}
  {{- end }}
{{- with $pods.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{ hasKey . "labelSelector" | ternary . (merge (dict "labelSelector" $selector) .) | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Annotations by which a Prometheus that looks for them finds the metrics; never beside a PodMonitor. */ -}}
{{- define "lull.scrape" -}}
{{- with .root.Values.monitoring }}
{{- if and .scrapeAnnotations (not .podMonitor.enabled) -}}
prometheus.io/scrape: "true"
prometheus.io/port: "9091"
prometheus.io/path: /metrics
{{- end }}
{{- end }}
{{- end }}

{{- /* What Istio's injector is told of a pod of Lull's. One with `inbound`, the ports that others call, is in the
mesh where `mesh.inject` says so; all others never are. */ -}}
{{- define "lull.meshLabels" -}}
{{- if and .root.Values.mesh.inject .inbound -}}
sidecar.istio.io/inject: "true"
{{- with .root.Values.mesh.revision }}
istio.io/rev: {{ . | quote }}
{{- end }}
{{- else -}}
sidecar.istio.io/inject: "false"
{{- end }}
{{- end }}

{{- /* Who calls these ports has no certificate (kubelet, API server, Prometheus, another replica by its address), and
what these pods call is no Service: addresses of pods, and the API server, which has TLS of its own. So nothing
passes Envoy, and none of it waits for one. */ -}}
{{- define "lull.meshAnnotations" -}}
{{- if and .root.Values.mesh.inject .inbound -}}
sidecar.istio.io/rewriteAppHTTPProbers: "false"
traffic.sidecar.istio.io/excludeInboundPorts: {{ join "," .inbound | quote }}
traffic.sidecar.istio.io/includeOutboundIPRanges: ""
{{- end }}
{{- end }}

{{- /* A pod of `component`; `secret` names one that is mounted by its name. */ -}}
{{- define "lull.podTemplate" -}}
{{- $pods := include "lull.pods" . | fromYaml }}
{{- $labels := merge (include "lull.meshLabels" . | fromYaml) (include "lull.labels" . | fromYaml) ($pods.labels | default dict) -}}
metadata:
  labels: {{ toYaml $labels | nindent 4 }}
  {{- with merge (dict) ($pods.annotations | default dict) (include "lull.scrape" . | fromYaml) (include "lull.meshAnnotations" . | fromYaml) }}
  annotations: {{ toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: lull-{{ .component }}
  {{- include "lull.noLinks" . | nindent 2 }}
  securityContext: {{ include "lull.podSecurityContext" . | nindent 4 }}
  {{- with include "lull.scheduling" . | trim }}
  {{- nindent 2 . }}
  {{- end }}
  {{- include "lull.spread" . | trim | nindent 2 }}
  terminationGracePeriodSeconds: {{ int .grace }}
  containers:
    - name: {{ .component }}
      image: {{ include "lull.image" . }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      # kubectl describe shows the last lines of one that has failed.
      terminationMessagePolicy: FallbackToLogsOnError
      securityContext: {{ include "lull.containerSecurityContext" . | nindent 8 }}
      resources: {{ toYaml .resources | nindent 8 }}
      {{- include "lull.probes" . | nindent 6 }}
      ports:
        - { name: admin, containerPort: 8022 }
        - { name: metrics, containerPort: 9091 }
        {{- with .ports }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .secret }}
      volumeMounts:
        - { name: {{ . }}, mountPath: /{{ . }}, readOnly: true }
      {{- end }}
      env:
        - name: {{ .prefix }}_POD_NAME
          valueFrom: { fieldRef: { fieldPath: metadata.name } }
        - name: {{ .prefix }}_POD_IP
          valueFrom: { fieldRef: { fieldPath: status.podIP } }
        - name: {{ .prefix }}_NAMESPACE
          valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
        - { name: {{ .prefix }}_LOG, value: {{ .root.Values.log.level | quote }} }
        - { name: {{ .prefix }}_LOG_JSON, value: {{ .root.Values.log.json | quote }} }
        {{- range $name, $value := .env }}
        {{- /* toJson writes numbers as they are: a large one would come out as 1e+06 otherwise. */}}
        {{- with kindIs "string" $value | ternary $value (toJson $value) }}
        - { name: {{ $name }}, value: {{ . | quote }} }
        {{- end }}
        {{- end }}
  {{- with .secret }}
  volumes:
    - { name: {{ . }}, secret: { secretName: {{ . }} } }
  {{- end }}
{{- end }}

{{- define "lull.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: lull-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  {{- include "lull.meta" . | nindent 2 }}
spec:
  {{- if not (dig "autoscaling" "enabled" false (get .root.Values .component)) }}
  replicas: {{ (get .root.Values .component).replicas }}
  {{- end }}
  strategy:
    rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }
  selector:
    matchLabels: {{ include "lull.selector" . | nindent 6 }}
  template: {{ include "lull.podTemplate" . | nindent 4 }}
{{- end }}
