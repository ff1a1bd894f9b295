{{- define "lull.labels" -}}
app.kubernetes.io/part-of: lull
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}

{{- /* Kinds that are scaled, as autoscaler and webhook read them. */ -}}
{{- define "lull.targets" -}}
apps/v1/deployments,apps/v1/statefulsets
{{- range .Values.targets }},{{ required "targets: each needs apiGroup, apiVersion and resource (plural)" .apiGroup }}/{{ required "targets: each needs apiVersion" .apiVersion }}/{{ required "targets: each needs resource (plural)" .resource }}{{ end }}
{{- end }}

{{- define "lull.selector" -}}
app.kubernetes.io/part-of: lull
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "lull.image" -}}
{{ .root.Values.image.repository }}/{{ .component }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
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

{{- /* Probes of every component: the admin port's pages. */ -}}
{{- define "lull.probes" -}}
readinessProbe:
  httpGet: { path: /ready, port: admin }
  periodSeconds: 1
  failureThreshold: 2
livenessProbe:
  httpGet: { path: /live, port: admin }
  periodSeconds: 10
  failureThreshold: 3
{{- end }}

{{- define "lull.spread" -}}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "lull.selector" . | nindent 14 }}
{{- end }}

{{- define "lull.podTemplate" -}}
metadata:
  labels:
    {{- include "lull.labels" . | nindent 4 }}
    sidecar.istio.io/inject: "false"
spec:
  serviceAccountName: lull-{{ .component }}
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  securityContext: {{ include "lull.podSecurityContext" . | nindent 4 }}
  {{- include "lull.spread" . | nindent 2 }}
  terminationGracePeriodSeconds: {{ .grace }}
  containers:
    - name: {{ .component }}
      image: {{ include "lull.image" . }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      securityContext: {{ include "lull.containerSecurityContext" . | nindent 8 }}
      resources: {{ toYaml .resources | nindent 8 }}
      {{- include "lull.probes" . | nindent 6 }}
      ports:
        - { name: admin, containerPort: 8022 }
        - { name: metrics, containerPort: 9091 }
        {{- with .ports }}
        {{- toYaml . | nindent 8 }}
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
        {{- with toString $value }}
        - { name: {{ $name }}, value: {{ . | quote }} }
        {{- end }}
        {{- end }}
{{- end }}

{{- define "lull.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: lull-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "lull.labels" . | nindent 4 }}
spec:
  replicas: {{ .replicas }}
  strategy:
    rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }
  selector:
    matchLabels:
      {{- include "lull.selector" . | nindent 6 }}
  template: {{ include "lull.podTemplate" . | nindent 4 }}
{{- end }}
