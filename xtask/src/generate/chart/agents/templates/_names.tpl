{{- define "agents.name" -}}
{{ .Release.Name | trunc 50 | trimAll "-." }}
{{- end }}
{{- define "agents.selector" -}}
app.kubernetes.io/name: agents
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}
{{- /* Everything of an object's metadata but its name; takes the root, `wide` where an object has no namespace, and
     `namespace`, `name`, `labels` and `annotations` where it has its own. */}}
{{- define "agents.metadata" -}}
{{- if not .wide -}}
namespace: {{ .namespace | default .root.Release.Namespace | quote }}
{{ end -}}
labels:
  app.kubernetes.io/name: {{ .name | default "agents" }}
  app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
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
{{- if and .Values.service.create (not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "agents.name" .))) }}
{{- $faults = append $faults (printf "the name of the release: %s is no name of a Service, which begins with a letter and has no dot; name the release otherwise, or set service.create to false" .Release.Name) }}
{{- end }}
{{- range $value, $names := dict "labels" .Values.labels "podLabels" .Values.podLabels }}
{{- range $name, $_ := $names }}
{{- if has $name (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart") }}
{{- $faults = append $faults (printf "%s: %s is a label of the chart's own" $value $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $value, $names := dict "annotations" .Values.annotations "podAnnotations" .Values.podAnnotations }}
{{- range $name, $_ := $names }}
{{- if or (eq $name "checksum/config") (and (eq $value "annotations") (hasPrefix "helm.sh/hook" $name)) }}
{{- $faults = append $faults (printf "%s: %s is an annotation of the chart's own" $value $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $value, $amounts := dict "runs.install.requests" .Values.runs.install.requests "runs.install.limits" .Values.runs.install.limits }}
{{- $seen := dict }}
{{- range splitList "," $amounts }}
{{- $name := splitList "=" . | first | trim }}
{{- if and $name (hasKey $seen $name) }}
{{- $faults = append $faults (printf "%s: %s is given twice" $value $name) }}
{{- end }}
{{- $_ := set $seen $name true }}
{{- end }}
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
