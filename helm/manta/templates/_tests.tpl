{{/* Whether KubeRay moves traffic by a Gateway of its own. */}}
{{- define "manta.isIncremental" -}}
{{- if eq .Values.upgrade.type "NewClusterWithIncrementalUpgrade" -}}true{{- end -}}
{{- end -}}

{{/* The Service of KubeRay's Gateway, port 80: named as the Gateway API recommends (GEP-1762), and as Istio does. */}}
{{- define "manta.gatewayService" -}}
{{- printf "%s-gateway-%s" (include "manta.fullname" .) .Values.upgrade.incremental.gatewayClassName -}}
{{- end -}}

{{/* Where the REST API is inside the cluster. While an incremental upgrade runs, `<name>-serve-svc` may have no pod behind it. */}}
{{- define "manta.apiUrl" -}}
{{- if include "manta.isIncremental" . -}}
{{- printf "http://%s" (include "manta.gatewayService" .) -}}
{{- else -}}
{{- printf "http://%s:%d" (include "manta.serveService" .) (int .Values.ports.http) -}}
{{- end -}}
{{- end -}}

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
- {name: MANTA_URL, value: {{ default (include "manta.apiUrl" .) .Values.tests.url | quote }}}
- {name: MANTA_GRPC, value: {{ printf "%s:%d" $service (int .Values.ports.grpc) | quote }}}
- {name: MANTA_TEST_SECONDS, value: {{ sub (int .Values.tests.timeoutSeconds) 20 | quote }}}
- {name: MANTA_TEST_MODELS, value: {{ include "manta.namesOf" $p.models | splitList " " | compact | toJson | quote }}}
- {name: MANTA_TEST_PIPELINES, value: {{ include "manta.namesOf" $p.pipelines | splitList " " | compact | toJson | quote }}}
- {name: MANTA_TEST_WEIGHTS, value: {{ toJson $weights | quote }}}
{{- if include "manta.hasKeys" $p }}
{{ include "manta.secretEnv" (list "MANTA_API_KEY" .Values.tests.apiKey.existingSecret .Values.tests.apiKey.key) }}
{{- end }}
{{- end -}}
