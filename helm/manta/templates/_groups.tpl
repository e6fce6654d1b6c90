{{/* Worker groups: those that are written, else one for CPU and one for each kind of node that models need, in the order of
their first appearance. A change of this order, or a group that goes, makes KubeRay build a second cluster. */}}

{{- define "manta.groups" -}}
{{- $groups := list -}}
{{- range .Values.workerGroups -}}
{{- $groups = append $groups (include "manta.group" (list $ .) | fromYaml) -}}
{{- else -}}
{{- $groups = (include "manta.derivedGroups" . | fromYaml).groups -}}
{{- end -}}
{{- toYaml (dict "groups" $groups) -}}
{{- end -}}

{{/* A group with everything filled in. Takes (list $ group); what the group leaves out comes from `cpuWorkers` or `gpuWorkers`. */}}
{{- define "manta.group" -}}
{{- $root := index . 0 -}}
{{- $group := index . 1 -}}
{{- $gpus := dig "gpus" 0 $group | int -}}
{{- $base := ternary $root.Values.cpuWorkers $root.Values.gpuWorkers (eq $gpus 0) | deepCopy -}}
{{- $full := dict "gpus" $gpus "numOfHosts" 1 "minReplicas" 1 "maxReplicas" 1 "accelerator" "" -}}
{{- $keys := list "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" "idleTimeoutSeconds" "sharedMemory" -}}
{{- range $keys -}}
{{- $_ := set $full . (get $base .) -}}
{{- end -}}
{{- if eq $gpus 0 -}}
{{- $_ := set $full "cpus" $base.cpus -}}
{{- $_ := set $full "memory" $base.memory -}}
{{- else -}}
{{- $_ := set $full "resourceName" $base.resourceName -}}
{{- $_ := set $full "cpus" (mul $base.cpusPerAccelerator $gpus) -}}
{{- $_ := set $full "memory" (printf "%dGi" (mul $base.memoryGiBPerAccelerator $gpus)) -}}
{{- range $root.Values.acceleratorNodes -}}
{{- if eq .type (default "" $group.accelerator) -}}
{{- $full = mergeOverwrite $full (omit . "type" | deepCopy) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml (mergeOverwrite $full (deepCopy $group)) -}}
{{- end -}}

{{- define "manta.derivedGroups" -}}
{{- $root := . -}}
{{- $cpu := include "manta.cpuNeed" . | fromYaml -}}
{{- $per := .Values.cpuWorkers.cpus -}}
{{- $least := max .Values.cpuWorkers.minReplicas (divf $cpu.min $per | ceil | int) (int $cpu.minNodes) -}}
{{- $most := max $least .Values.cpuWorkers.maxReplicas (divf $cpu.max $per | ceil | int) -}}
{{- if $cpu.maxNodes -}}
{{- /* What an update starts waits for pods beside those that drain: Serve replaces a fifth of the replicas at a time. */ -}}
{{- $most = max $most (add $cpu.maxNodes (max 1 (divf $cpu.maxNodes 5 | ceil))) -}}
{{- end -}}
{{- $groups := list (include "manta.group" (list $ (dict "name" "cpu" "minReplicas" $least "maxReplicas" $most)) | fromYaml) -}}
{{- $needs := dict -}}
{{- $order := list -}}
{{- range (include "manta.gpuNeeds" . | fromYaml).needs -}}
{{- $name := printf "gpu-%s-%dx%d" (regexReplaceAll "[^a-z0-9]+" (lower .accelerator) "-" | trunc 30 | trimAll "-") (int .gpus) (int .numOfHosts) -}}
{{- if not (hasKey $needs $name) -}}
{{- $order = append $order $name -}}
{{- $_ := set $needs $name (dict "name" $name "accelerator" .accelerator "gpus" .gpus "numOfHosts" .numOfHosts "min" 0 "max" 0 "cpus" 0.0) -}}
{{- end -}}
{{- $need := get $needs $name -}}
{{- $_ := set $need "min" (add $need.min .min) -}}
{{- $_ := set $need "max" (add $need.max .max) -}}
{{- $_ := set $need "cpus" (maxf $need.cpus .cpus) -}}
{{- end -}}
{{- range $order -}}
{{- $need := get $needs . -}}
{{- $cpus := max (mul $root.Values.gpuWorkers.cpusPerAccelerator $need.gpus) (ceil $need.cpus | int) -}}
{{- $group := dict "name" . "gpus" $need.gpus "numOfHosts" $need.numOfHosts "cpus" $cpus -}}
{{- $_ := set $group "accelerator" (ternary "" $need.accelerator (eq $need.accelerator "any")) -}}
{{- $_ := set $group "minReplicas" $need.min -}}
{{- $_ := set $group "maxReplicas" (max 1 $need.max) -}}
{{- $groups = append $groups (include "manta.group" (list $root $group) | fromYaml) -}}
{{- end -}}
{{- toYaml (dict "groups" $groups) -}}
{{- end -}}
