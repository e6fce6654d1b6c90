{{/* Environment and volumes of every Ray pod. All nodes have the same, but for how workers end: Serve reads its settings on each. */}}

{{/* Takes (list $ isHead). */}}
{{- define "manta.env" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
{{- $cache := $values.modelCache.mountPath -}}
{{- range $name, $value := $root.Files.Get "files/serve-settings.yaml" | fromYaml -}}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{ end -}}
- {name: RAY_SERVE_HAPROXY_MAXCONN, value: {{ $values.proxy.maxConnections | int | quote }}}
- {name: RAY_SERVE_HAPROXY_NBTHREAD, value: {{ $values.proxy.threads | int | quote }}}
- {name: HOME, value: /tmp}
- {name: MANTA_CACHE, value: {{ $cache | quote }}}
{{- with include "manta.cacheGiB" $values.modelCache }}
- {name: MANTA_CACHE_GIB, value: {{ . | quote }}}
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
{{- if not (index . 1) }}
# Ray ends what runs on a node so many seconds after SIGTERM (30 by itself); 30 are left to it for that. Not on the head: the controller
# on it never goes idle, and it would wait for all of them.
- {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ sub (int $values.pod.terminationGracePeriodSeconds) 30 | max 0 | quote }}}
{{- end }}
{{- with $values.pod.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Most GiB of downloads, or nothing for no limit. The kubelet evicts a pod whose emptyDir is over its limit, and what engines compile is
in it too: so a tenth of it stays free. */}}
{{- define "manta.cacheGiB" -}}
{{- if .limitGiB -}}
{{- .limitGiB | int -}}
{{- else if not .persistence.enabled -}}
{{- $gib := divf (include "manta.bytes" .sizeLimit) 1073741824 | mulf 0.9 -}}
{{- ternary (floor $gib) (round $gib 2) (ge $gib 1.0) -}}
{{- end -}}
{{- end -}}

{{/* Takes (list NAME secret key). */}}
{{- define "manta.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef: {name: {{ index . 1 | quote }}, key: {{ index . 2 | quote }}}
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
    claimName: {{ default (include "manta.named" (list $root "models")) $values.modelCache.persistence.existingClaim | quote }}
  {{- else }}
  emptyDir: {sizeLimit: {{ $values.modelCache.sizeLimit }}}
  {{- end }}
{{- if $values.data.enabled }}
- name: data
  persistentVolumeClaim:
    claimName: {{ default (include "manta.named" (list $root "data")) $values.data.existingClaim | quote }}
{{- end }}
{{- if $values.apiKeys.existingSecret }}
# Optional, so that keys which stand in the values need no Secret; Routers that miss the file say so and do not start.
- name: api-keys
  secret: {secretName: {{ $values.apiKeys.existingSecret | quote }}, optional: true}
{{- end }}
{{- with $values.pod.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
