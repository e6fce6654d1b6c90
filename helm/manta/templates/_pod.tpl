{{/* The one pod template of head and workers. Takes (list $ node): node has kind (head, worker), gpus, cpus, memory,
sharedMemory, nodeSelector, tolerations, affinity, priorityClassName and, with gpus, resourceName. Nothing of `platform` may
come in here, and nothing that changes with the chart's version: either would build a second cluster. */}}

{{- define "manta.podTemplate" -}}
{{- $root := index . 0 -}}
{{- $node := index . 1 -}}
{{- $values := $root.Values -}}
{{- $isHead := eq $node.kind "head" -}}
metadata:
  labels:
    {{- include "manta.rayLabels" $root | nindent 4 }}
    {{- with $values.pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.pod.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "manta.serviceAccount" (list $root $node.kind) }}
  automountServiceAccountToken: {{ and $isHead $values.autoscaler.enabled }}
  {{- with include "manta.pullSecrets" $root | fromYamlArray }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.pod.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ $values.pod.terminationGracePeriodSeconds | int }}
  {{- if $values.autoscaler.enabled }}
  restartPolicy: Never
  {{- end }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" }}
  {{- with get $node $key }}
  {{ $key }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- if and (not $isHead) $values.pod.spreadAcrossZones }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: topology.kubernetes.io/zone
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "manta.rayLabels" $root | nindent 10 }}
  {{- end }}
  containers:
    - name: {{ ternary "ray-head" "ray-worker" $isHead }}
      image: {{ include "manta.image" (list $root (ternary $values.image.gpu $values.image.cpu (gt (int $node.gpus) 0))) }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      {{- with $values.pod.containerSecurityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- include "manta.containerPorts" (list $root $isHead) | nindent 8 }}
      env:
        {{- include "manta.env" (list $root $isHead) | nindent 8 }}
      resources:
        {{- include "manta.resources" (list $root $node) | nindent 8 }}
      volumeMounts:
        {{- include "manta.volumeMounts" $root | nindent 8 }}
  volumes:
    {{- include "manta.volumes" (list $root $node) | nindent 4 }}
{{- end -}}

{{- define "manta.containerPorts" -}}
{{- $values := (index . 0).Values -}}
{{- $ports := $values.ports -}}
- {name: serve, containerPort: {{ $ports.http | int }}}
- {name: serve-grpc, containerPort: {{ $ports.grpc | int }}}
- {name: metrics, containerPort: 8080}
{{- if index . 1 }}
- {name: gcs-server, containerPort: 6379}
- {name: dashboard, containerPort: 8265}
- {name: client, containerPort: 10001}
{{- if $values.autoscaler.enabled }}
- {name: as-metrics, containerPort: 44217}
{{- end }}
- {name: dash-metrics, containerPort: 44227}
{{- end }}
{{- end -}}

{{- define "manta.resources" -}}
{{- $root := index . 0 -}}
{{- $node := index . 1 -}}
{{- $requests := dict "cpu" ($node.cpus | toString) "memory" $node.memory -}}
{{- $limits := dict "memory" $node.memory -}}
{{- if $root.Values.pod.cpuLimits -}}
{{- $_ := set $limits "cpu" $requests.cpu -}}
{{- end -}}
{{- if gt (int $node.gpus) 0 -}}
{{- $_ := set $requests $node.resourceName ($node.gpus | toString) -}}
{{- $_ := set $limits $node.resourceName ($node.gpus | toString) -}}
{{- end -}}
{{- toYaml (dict "requests" $requests "limits" $limits) -}}
{{- end -}}

{{/* Ray's object store, in bytes: half of the shared memory, so that ranks of a replica have the other half. Ray itself would take 30 % of
the pod's memory; where that is more than /dev/shm has, it puts objects on the disk (/tmp). */}}
{{- define "manta.objectStoreBytes" -}}
{{- divf (include "manta.bytes" .) 2 | floor | int64 -}}
{{- end -}}

{{/* A quantity of Kubernetes, such as 1.5Gi, in bytes. */}}
{{- define "manta.bytes" -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 -}}
{{- $units = merge $units (dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) -}}
{{- $number := regexFind "^[0-9.]+" . -}}
{{- mulf $number (get $units (trimPrefix $number .)) | floor | int64 -}}
{{- end -}}
