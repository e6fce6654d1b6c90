{{/* The load test of `loadTest`: a Job of Helm's hooks. Nothing of it reaches Ray's pods. */}}

{{- define "manta.loadTestHook" -}}
{{- ternary "test" "post-install,post-upgrade" (eq .hook "test") -}}
{{- end -}}

{{- define "manta.loadTestArgs" -}}
{{- $values := .Values.loadTest -}}
- {{ ternary "/load-test/scenario.yaml" $values.name (not (empty $values.scenario)) }}
- --url={{ default (include "manta.apiUrl" .) $values.url }}
- --grpc={{ printf "%s:%d" (include "manta.serveService" .) (int .Values.ports.grpc) }}
- --gate=/load-test/gates.yaml
- --settle={{ $values.settleSeconds | int }}s
- --wait={{ $values.waitSeconds | int }}s
- --publish
{{- end -}}

{{- define "manta.loadTestEnv" -}}
- {name: HOME, value: /tmp}
{{- if include "manta.hasKeys" .Values.platform }}
{{ include "manta.secretEnv" (list "MANTA_API_KEY" .Values.loadTest.apiKey.existingSecret .Values.loadTest.apiKey.key) }}
{{- end }}
{{- end -}}
