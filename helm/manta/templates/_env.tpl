{{/* Environment and volumes of every Ray pod. All nodes have the same: Serve reads its settings on each of them. */}}

{{- define "manta.env" -}}
{{- $values := .Values -}}
{{- $cache := $values.modelCache.mountPath -}}
{{- range $name, $value := .Files.Get "files/serve-settings.yaml" | fromYaml -}}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{ end -}}
- {name: RAY_SERVE_HAPROXY_MAXCONN, value: {{ $values.proxy.maxConnections | int | quote }}}
- {name: RAY_SERVE_HAPROXY_NBTHREAD, value: {{ $values.proxy.threads | int | quote }}}
- {name: HOME, value: /tmp}
- {name: MANTA_CACHE, value: {{ $cache | quote }}}
{{- with $values.modelCache.limitGiB }}
- {name: MANTA_CACHE_GIB, value: {{ . | int | quote }}}
{{- end }}
- {name: VLLM_CACHE_ROOT, value: {{ printf "%s/vllm" $cache | quote }}}
- {name: HF_HOME, value: {{ printf "%s/huggingface" $cache | quote }}}
{{ include "manta.secretEnv" (list "MANTA_INTERNAL_TOKEN" $values.internalToken.existingSecret $values.internalToken.key) }}
{{- with $values.huggingFace }}
{{- if .existingSecret }}
{{ include "manta.secretEnv" (list "HF_TOKEN" .existingSecret .key) }}
{{- end }}
{{- end }}
{{- with $values.objectStore }}
{{- if .existingSecret }}
{{ include "manta.secretEnv" (list "AWS_ACCESS_KEY_ID" .existingSecret .accessKeyIdKey) }}
{{ include "manta.secretEnv" (list "AWS_SECRET_ACCESS_KEY" .existingSecret .secretAccessKeyKey) }}
{{- end }}
{{- if .endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ .endpoint | quote }}}
{{- end }}
{{- if .region }}
- {name: AWS_REGION, value: {{ .region | quote }}}
{{- end }}
{{- end }}
{{- with $values.pod.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes (list NAME secret key). */}}
{{- define "manta.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef: {name: {{ index . 1 }}, key: {{ index . 2 }}}
{{- end -}}

{{- define "manta.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: shared-mem, mountPath: /dev/shm}
- {name: model-cache, mountPath: {{ .Values.modelCache.mountPath }}}
{{- if .Values.data.enabled }}
- {name: data, mountPath: {{ .Values.data.mountPath }}}
{{- end }}
{{- if .Values.apiKeys.existingSecret }}
- {name: api-keys, mountPath: {{ .Values.apiKeys.mountPath }}, readOnly: true}
{{- end }}
{{- with .Values.pod.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes (list $ node). */}}
{{- define "manta.volumes" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
- name: tmp
  emptyDir: {}
- name: shared-mem
  emptyDir: {medium: Memory, sizeLimit: {{ (index . 1).sharedMemory }}}
- name: model-cache
  {{- if $values.modelCache.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ default (include "manta.named" (list $root "models")) $values.modelCache.persistence.existingClaim }}
  {{- else }}
  emptyDir: {sizeLimit: {{ $values.modelCache.sizeLimit }}}
  {{- end }}
{{- if $values.data.enabled }}
- name: data
  persistentVolumeClaim:
    claimName: {{ default (include "manta.named" (list $root "data")) $values.data.existingClaim }}
{{- end }}
{{- if $values.apiKeys.existingSecret }}
# Optional, so that keys which stand in the values need no Secret; Routers that miss the file say so and do not start.
- name: api-keys
  secret: {secretName: {{ $values.apiKeys.existingSecret }}, optional: true}
{{- end }}
{{- with $values.pod.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
