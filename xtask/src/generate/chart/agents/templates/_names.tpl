{{- define "agents.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- define "agents.selector" -}}
app.kubernetes.io/name: agents
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- /* Everything of an object's metadata but its name and namespace; takes the root, and `name`, `labels` and
     `annotations` where an object has its own. */}}
{{- define "agents.metadata" -}}
labels:
  app.kubernetes.io/name: {{ .name | default "agents" }}
  app.kubernetes.io/instance: {{ .root.Release.Name }}
  app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
  {{- range $name, $value := merge dict (.labels | default dict) .root.Values.labels }}
  {{ $name }}: {{ $value | quote }}
  {{- end }}
{{- with merge dict (.annotations | default dict) .root.Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- define "agents.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}
{{- define "agents.account" -}}
{{ .Values.serviceAccount.name | default (include "agents.name" .) }}
{{- end }}
{{- /* The namespaces with objects of this chart, as a JSON list. */}}
{{- define "agents.namespaces" -}}
{{ .Values.namespaces | default (list .Release.Namespace) | toJson }}
{{- end }}
