{{- define "svidecar.name" -}}
{{- default (printf "%s-webhook" .Release.Name) .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "svidecar.selector" -}}
app.kubernetes.io/name: svidecar-webhook
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "svidecar.labels" -}}
{{ include "svidecar.selector" . }}
app.kubernetes.io/part-of: svidecar
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end }}

{{- /* An image of repository, tag and digest: (list . .Values.image) */ -}}
{{- define "svidecar.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 0).Chart.AppVersion $image.tag }}
{{- end -}}
{{- end }}
