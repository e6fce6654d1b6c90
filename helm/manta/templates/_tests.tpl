{{/* What `helm test` is told: addresses, names, a key, and weights as declared. */}}
{{- define "manta.testEnv" -}}
{{- $p := .Values.platform -}}
{{- $service := include "manta.serveService" . -}}
{{- $weights := dict -}}
{{- range $part := concat (default list $p.models) (default list $p.pipelines) -}}
{{- $split := dict -}}
{{- range concat (default list $part.variants) (default list $part.versions) -}}
{{- $_ := set $split .name (dig "weight" 100 .) -}}
{{- end -}}
{{- $_ := set $weights $part.name $split -}}
{{- end -}}
- {name: HOME, value: /tmp}
- {name: MANTA_URL, value: {{ printf "http://%s:%d" $service (int .Values.ports.http) | quote }}}
- {name: MANTA_GRPC, value: {{ printf "%s:%d" $service (int .Values.ports.grpc) | quote }}}
- {name: MANTA_TEST_SECONDS, value: {{ sub (int .Values.tests.timeoutSeconds) 20 | quote }}}
- {name: MANTA_TEST_MODELS, value: {{ include "manta.namesOf" $p.models | splitList " " | compact | toJson | quote }}}
- {name: MANTA_TEST_PIPELINES, value: {{ include "manta.namesOf" $p.pipelines | splitList " " | compact | toJson | quote }}}
- {name: MANTA_TEST_WEIGHTS, value: {{ toJson $weights | quote }}}
{{- if include "manta.hasKeys" $p }}
{{ include "manta.secretEnv" (list "MANTA_API_KEY" .Values.tests.apiKey.existingSecret .Values.tests.apiKey.key) }}
{{- end }}
{{- end -}}
