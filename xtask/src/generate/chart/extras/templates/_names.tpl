{{- /* Everything of an object's metadata but its name; takes the root, `wide` where an object has no namespace, and
     `labels` where it has its own. */}}
{{- define "extras.metadata" -}}
{{- $values := .root.Values }}
{{- range $value, $names := dict "labels" $values.labels "serviceMonitor.labels" $values.serviceMonitor.labels "prometheusRule.labels" $values.prometheusRule.labels "dashboard.labels" $values.dashboard.labels }}
{{- range $name, $_ := $names }}
{{- if or (has $name (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart")) (hasPrefix "rbac.authorization.k8s.io/aggregate-to-" $name) }}
{{- fail (printf "%s: %s is a label of the chart's own" $value $name) }}
{{- end }}
{{- end }}
{{- end -}}
{{- if not .wide -}}
namespace: {{ .root.Release.Namespace | quote }}
{{ end -}}
labels:
  app.kubernetes.io/name: agents-extras
  app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
  {{- range $name, $value := merge dict (.labels | default dict) .root.Values.labels }}
  {{ $name }}: {{ $value | quote }}
  {{- end }}
{{- with .root.Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- /* The pods and the Service of the controller. */}}
{{- define "extras.controller" -}}
app.kubernetes.io/name: agents
app.kubernetes.io/instance: {{ .Values.release | quote }}
{{- end }}
