{{- /* Everything of an object's metadata but its name; takes the root, `wide` where an object has no namespace, and
     `labels` where it has its own. */}}
{{- define "extras.metadata" -}}
{{- if not .wide -}}
namespace: {{ .root.Release.Namespace }}
{{ end -}}
labels:
  app.kubernetes.io/name: agents-extras
  app.kubernetes.io/instance: {{ .root.Release.Name }}
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
app.kubernetes.io/instance: {{ .Values.release }}
{{- end }}
