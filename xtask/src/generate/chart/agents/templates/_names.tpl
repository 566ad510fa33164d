{{- define "agents.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- define "agents.selector" -}}
app.kubernetes.io/name: agents
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- /* Everything of an object's metadata but its name; takes the root, `wide` where an object has no namespace, and
     `namespace`, `name`, `labels` and `annotations` where it has its own. */}}
{{- define "agents.metadata" -}}
{{- if not .wide -}}
namespace: {{ .namespace | default .root.Release.Namespace }}
{{ end -}}
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
{{- /* Amounts by resource, as the controller reads them. */}}
{{- define "agents.amounts" -}}
{{- $amounts := list }}
{{- range $name, $amount := . }}
{{- $amounts = append $amounts (printf "%s=%s" $name (toString $amount)) }}
{{- end }}
{{- join "," $amounts }}
{{- end }}
{{- define "agents.account" -}}
{{ .Values.serviceAccount.name | default (include "agents.name" .) }}
{{- end }}
{{- /* The namespaces with objects of this chart, as a JSON list. */}}
{{- define "agents.namespaces" -}}
{{ .Values.namespaces | default (list .Release.Namespace) | toJson }}
{{- end }}
{{- /* What the schema could refuse only without saying why; all faults at once. */}}
{{- define "agents.faults" -}}
{{- $faults := list }}
{{- if eq .Values.image.tag "latest" }}
{{- $faults = append $faults "image.tag: latest means another image every day; name a version or a digest" }}
{{- end }}
{{- $decided := dict
  "AGENTS_ALLOWED_SERVICE_ACCOUNTS" "runs.allowedServiceAccounts"
  "AGENTS_ALL_NAMESPACES" "scope"
  "AGENTS_HEALTH_ADDRESS" "service.port"
  "AGENTS_IDENTITY" "the name of the pod"
  "AGENTS_LEASE_NAME" "the name of the release"
  "AGENTS_LEASE_NAMESPACE" "the namespace of the release"
  "AGENTS_NAMESPACE" "namespaces"
  "AGENTS_RUN_SERVICE_ACCOUNT" "runs.serviceAccount" }}
{{- range .Values.env }}
{{- if hasKey $decided .name }}
{{- $faults = append $faults (printf "env: %s is decided by %s" .name (get $decided .name)) }}
{{- end }}
{{- end }}
{{- if eq .Values.runs.serviceAccount (include "agents.account" .) }}
{{- $faults = append $faults "runs.serviceAccount: runs must not have the rights of the controller; name another account than its own" }}
{{- end }}
{{- $own := list (include "agents.account" .) (printf "%s/%s" .Release.Namespace (include "agents.account" .)) }}
{{- range .Values.runs.allowedServiceAccounts }}
{{- if has . $own }}
{{- $faults = append $faults "runs.allowedServiceAccounts: runs must not have the rights of the controller; leave out its own account" }}
{{- end }}
{{- end }}
{{- with $faults }}
{{- fail (printf "\n%s" (join "\n" .)) }}
{{- end }}
{{- end }}
