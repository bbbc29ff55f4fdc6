{{- define "tekton-wrap.labels" -}}
app.kubernetes.io/name: tekton-wrap
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What selects the webhook's pods, which no release may change. */}}
{{- define "tekton-wrap.selector" -}}
app.kubernetes.io/name: tekton-wrap
app.kubernetes.io/component: webhook
{{- end }}

{{- define "tekton-wrap.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default (printf "v%s" $.Chart.AppVersion) }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "tekton-wrap.priorityClassName" -}}
{{- if .Values.priorityClass.create -}}
{{ required "priorityClass.create and priorityClassName exclude each other" (ternary "tekton-wrap" "" (empty .Values.priorityClassName)) }}
{{- else -}}
{{ .Values.priorityClassName }}
{{- end -}}
{{- end }}
