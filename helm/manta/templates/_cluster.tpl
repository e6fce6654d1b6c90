{{/* Parts of the RayCluster's specification. */}}

{{- define "manta.serveServiceSpec" -}}
metadata:
  name: {{ include "manta.serveService" . }}
  labels:
    {{- include "manta.selectorLabels" . | nindent 4 }}
  {{- with .Values.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .Values.service.type }}
  ports:
    - {name: serve, port: {{ .Values.ports.http | int }}, targetPort: {{ .Values.ports.http | int }}, appProtocol: http}
    - {name: serve-grpc, port: {{ .Values.ports.grpc | int }}, targetPort: {{ .Values.ports.grpc | int }}, appProtocol: kubernetes.io/h2c}
{{- end -}}

{{/* What batch schedulers look for. KubeRay copies labels of a RayService to its RayClusters, and from there to pods where it has to. */}}
{{- define "manta.schedulingLabels" -}}
{{- $labels := dict -}}
{{- with .kueueQueue -}}
{{- $_ := set $labels "kueue.x-k8s.io/queue-name" . -}}
{{- end -}}
{{- if .gang.enabled -}}
{{- $_ := set $labels "ray.io/gang-scheduling-enabled" "true" -}}
{{- with .gang.priorityClassName -}}
{{- $_ := set $labels "ray.io/priority-class-name" . -}}
{{- end -}}
{{- with .gang.volcanoQueue -}}
{{- $_ := set $labels "volcano.sh/queue-name" . -}}
{{- end -}}
{{- end -}}
{{- if $labels -}}
{{- toYaml $labels -}}
{{- end -}}
{{- end -}}

{{/* Annotations of the RayService. */}}
{{- define "manta.annotations" -}}
{{- $annotations := deepCopy (default dict .Values.annotations) -}}
{{- if and .Values.scheduling.kueueQueue .Values.scheduling.kueueElastic -}}
{{- $_ := set $annotations "kueue.x-k8s.io/elastic-job" "true" -}}
{{- end -}}
{{- toYaml $annotations -}}
{{- end -}}

{{- define "manta.autoscaler" -}}
{{- with .Values.autoscaler -}}
{{- if .enabled -}}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ .idleTimeoutSeconds | int }}
  upscalingMode: {{ .upscalingMode }}
  resources:
    {{- toYaml .resources | nindent 4 }}
  {{- with $.Values.pod.containerSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  env:
    - {name: HOME, value: /tmp}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
{{- else -}}
enableInTreeAutoscaling: false
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Redis keeps what the head knows. No externalStorageNamespace: the old and the new cluster of an upgrade must not share one. */}}
{{- define "manta.gcs" -}}
{{- $gcs := .Values.gcsFaultTolerance -}}
{{- $redis := .Values.redis -}}
{{- if or $gcs.enabled $redis.enabled -}}
gcsFaultToleranceOptions:
  redisAddress: {{ default (printf "redis://%s:6379" (include "manta.named" (list . "redis"))) $gcs.redisAddress }}
  {{- with $gcs.username }}
  redisUsername:
    value: {{ . | quote }}
  {{- end }}
  {{- $secret := ternary $redis $gcs (and $redis.enabled (not $gcs.existingSecret)) }}
  {{- if $secret.existingSecret }}
  redisPassword:
    valueFrom:
      secretKeyRef: {name: {{ $secret.existingSecret | quote }}, key: {{ $secret.key | quote }}}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* A worker group. Takes (list $ group). The accelerator's type is a resource of the group: Ray finds it by itself on a running
node, but the autoscaler must know it before. */}}
{{- define "manta.workerGroup" -}}
{{- $root := index . 0 -}}
{{- $group := index . 1 -}}
{{- $resources := dict "CPU" ($group.cpus | toString) -}}
{{- if gt (int $group.gpus) 0 -}}
{{- $_ := set $resources "GPU" ($group.gpus | toString) -}}
{{- end -}}
{{- if $group.accelerator -}}
{{- $_ := set $resources (printf "accelerator_type:%s" $group.accelerator) "1" -}}
{{- end -}}
- groupName: {{ $group.name | quote }}
  replicas: {{ ternary $group.minReplicas $group.maxReplicas $root.Values.autoscaler.enabled | int }}
  minReplicas: {{ $group.minReplicas | int }}
  maxReplicas: {{ $group.maxReplicas | int }}
  numOfHosts: {{ $group.numOfHosts | int }}
  {{- if and $root.Values.autoscaler.enabled $group.idleTimeoutSeconds }}
  idleTimeoutSeconds: {{ $group.idleTimeoutSeconds | int }}
  {{- end }}
  rayStartParams:
    object-store-memory: {{ include "manta.objectStoreBytes" $group.sharedMemory | quote }}
    # KubeRay's own default.
    metrics-export-port: "8080"
  resources:
    {{- toYaml $resources | nindent 4 }}
  template:
    {{- include "manta.podTemplate" (list $root (set $group "kind" "worker")) | nindent 4 }}
{{- end -}}
