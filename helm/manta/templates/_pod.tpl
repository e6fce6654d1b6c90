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
    {{- with omit $values.pod.labels "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with include "manta.gangLabels" $root }}
    {{- . | nindent 4 }}
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
        {{- include "manta.env" $root | nindent 8 }}
      resources:
        {{- include "manta.resources" (list $root $node) | nindent 8 }}
      volumeMounts:
        {{- include "manta.volumeMounts" $root | nindent 8 }}
  volumes:
    {{- include "manta.volumes" (list $root $node) | nindent 4 }}
{{- end -}}

{{- define "manta.containerPorts" -}}
{{- $ports := (index . 0).Values.ports -}}
- {name: serve, containerPort: {{ $ports.http | int }}}
- {name: serve-grpc, containerPort: {{ $ports.grpc | int }}}
- {name: metrics, containerPort: 8080}
{{- if index . 1 }}
- {name: gcs-server, containerPort: 6379}
- {name: dashboard, containerPort: 8265}
- {name: client, containerPort: 10001}
- {name: as-metrics, containerPort: 44217}
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

{{- define "manta.gangLabels" -}}
{{- with .Values.scheduling.gang -}}
{{- if .enabled -}}
ray.io/gang-scheduling-enabled: "true"
{{- if .priorityClassName }}
ray.io/priority-class-name: {{ .priorityClassName }}
{{- end }}
{{- if .volcanoQueue }}
volcano.sh/queue-name: {{ .volcanoQueue }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}
