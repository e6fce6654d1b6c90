{{/* Rules about what pods share, their labels, their memory and who schedules them. */}}

{{- define "manta.check.pods" -}}
{{ include "manta.check.podLabels" .Values.pod.labels }}
{{ include "manta.check.podEnv" . }}
{{ include "manta.check.podVolumes" . }}
{{ include "manta.check.scheduling" . }}
{{ include "manta.check.sharedVolume" (list "modelCache.persistence" .Values.modelCache.persistence) }}
{{ include "manta.check.sharedVolume" (list "data" .Values.data) }}
{{ include "manta.check.cacheLimit" .Values.modelCache }}
{{- range $path := list "head" "cpuWorkers" "gpuWorkers" }}
{{ include "manta.check.sharedMemory" (list $path (get $.Values $path).sharedMemory) }}
{{- end }}
{{- range $g, $group := .Values.workerGroups }}
{{- with $group.sharedMemory }}
{{ include "manta.check.sharedMemory" (list (printf "workerGroups[%d]" $g) .) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Labels of a pod template win over KubeRay's own, which its Services select by. */}}
{{- define "manta.check.podLabels" -}}
{{- $ours := list "part-of" "instance" "component" -}}
{{- $theirs := list "name" "created-by" -}}
{{- range $label, $_ := . }}
{{- $short := trimPrefix "app.kubernetes.io/" $label }}
{{- if and (ne $short $label) (has $short $ours) }}
pod.labels: selectors of the chart go by "{{ $label }}"; give your label another name
{{- else if or (hasPrefix "ray.io/" $label) (and (ne $short $label) (has $short $theirs)) }}
pod.labels: Services of KubeRay go by its own "{{ $label }}", and with another one they would find no pod; give your label another name
{{- end }}
{{- end }}
{{- end -}}

{{/* The API server refuses two entries of a name, the operator what it has fields for. */}}
{{- define "manta.check.podEnv" -}}
{{- $fields := dict "RAY_REDIS_ADDRESS" "gcsFaultTolerance.redisAddress" "REDIS_USERNAME" "gcsFaultTolerance.username" -}}
{{- $fields = merge $fields (dict "REDIS_PASSWORD" "gcsFaultTolerance.existingSecret" "RAY_enable_autoscaler_v2" "autoscaler.enabled") -}}
{{- $seen := list -}}
{{- range include "manta.env" (list . false) | fromYamlArray }}
{{- if hasKey $fields .name }}
pod.env: KubeRay refuses "{{ .name }}"; use `{{ get $fields .name }}`
{{- else if has .name $seen }}
pod.env: "{{ .name }}" stands twice, or the chart sets it, and Kubernetes refuses two of a name; leave it out. What the chart sets comes from `objectStore`, `huggingFace`, `modelCache`, `proxy`, `internalToken` and `pod`
{{- end }}
{{- $seen = append $seen .name -}}
{{- end -}}
{{- end -}}

{{- define "manta.check.podVolumes" -}}
{{- $volumes := list -}}
{{- range include "manta.volumes" (list . .Values.head) | fromYamlArray -}}
{{- $volumes = append $volumes .name -}}
{{- end -}}
{{- $paths := list -}}
{{- range include "manta.volumeMounts" . | fromYamlArray -}}
{{- $paths = append $paths (trimSuffix "/" .mountPath) -}}
{{- end }}
{{ include "manta.check.repeated" (list "pod.volumes: names, with those of the chart's own volumes," $volumes) }}
{{ include "manta.check.repeated" (list "pod.volumeMounts: mountPath, with those of `modelCache`, `data`, `apiKeys`, /tmp and /dev/shm," $paths) }}
{{- range $i, $mount := .Values.pod.volumeMounts }}
{{ include "manta.check.known" (list (printf "pod.volumeMounts[%d].name" $i) "volume" $mount.name (join " " $volumes)) }}
{{- end }}
{{- end -}}

{{/* Whether a volume of the pods has a path. Takes (list $ path). */}}
{{- define "manta.isMounted" -}}
{{- $path := index . 1 -}}
{{- range include "manta.volumeMounts" (index . 0) | fromYamlArray -}}
{{- if or (eq $path .mountPath) (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $path) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- define "manta.check.scheduling" -}}
{{- $scheduling := .Values.scheduling -}}
{{- if $scheduling.kueueQueue }}
{{- $annotations := include "manta.annotations" . | fromYaml }}
{{- if and .Values.autoscaler.enabled (ne (get $annotations "kueue.x-k8s.io/elastic-job") "true") }}
scheduling.kueueQueue: Kueue refuses a RayService with the autoscaler; set `autoscaler.enabled: false`, or `scheduling.kueueElastic: true` where Kueue has elastic jobs (its feature gate ElasticJobsViaWorkloadSlices)
{{- end }}
{{- if $scheduling.gang.enabled }}
scheduling.gang.enabled: Kueue admits all pods or none by itself, and two schedulers would wait for each other; use `scheduling.kueueQueue` or `scheduling.gang`, not both
{{- end }}
{{- end }}
{{- end -}}

{{/* The head and every worker mount it, on several nodes. Takes (list path claim). */}}
{{- define "manta.check.sharedVolume" -}}
{{- $path := index . 0 -}}
{{- $claim := index . 1 -}}
{{- if and $claim.enabled (not $claim.existingClaim) (not (has "ReadWriteMany" $claim.accessModes)) }}
{{ $path }}.accessModes: {{ join ", " $claim.accessModes }} lets pods of one node write to the volume, and head and workers are on several; use a storage class that knows ReadWriteMany. Where there is one node, make the claim yourself and name it in `{{ $path }}.existingClaim`
{{- end }}
{{- end -}}

{{- define "manta.check.cacheLimit" -}}
{{- if and .limitGiB (not .persistence.enabled) }}
{{- if ge (mulf .limitGiB 1073741824) (include "manta.bytes" .sizeLimit | float64) }}
modelCache.limitGiB: downloads may take {{ .limitGiB }} GiB, and a pod whose cache is over modelCache.sizeLimit ({{ .sizeLimit }}) is evicted; raise sizeLimit, lower this, or set it to 0 for nine tenths of sizeLimit
{{- end }}
{{- end }}
{{- end -}}

{{/* Ray does not start with less than 75 MiB. Takes (list path sharedMemory). */}}
{{- define "manta.check.sharedMemory" -}}
{{- if lt (include "manta.objectStoreBytes" (index . 1) | int64) 78643200 }}
{{ index . 0 }}.sharedMemory: half of {{ index . 1 }} is for Ray's object store, which needs 75Mi; write 256Mi or more
{{- end }}
{{- end -}}
