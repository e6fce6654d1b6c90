{{/* Written groups must hold the fewest replicas of everything at a time: else some of them never start, and KubeRay never calls the
RayService ready. Only sums are looked at, and pods for replicas that share none: replicas that do not fit onto the pods one by one may pass.
Not looked at where groups follow from the models, since those have the room. */}}

{{- define "manta.check.room" -}}
{{- $groups := (include "manta.groups" . | fromYaml).groups -}}
{{- $needs := (include "manta.gpuNeeds" . | fromYaml).needs -}}
{{- $kinds := list -}}
{{- range $needs -}}
{{- $kinds = append $kinds .accelerator -}}
{{- end -}}
{{- range $kind := $kinds | uniq -}}
{{ include "manta.check.acceleratorRoom" (list $kind $needs $groups) }}
{{ end -}}
{{- $cpus := (include "manta.cpuNeed" . | fromYaml).min -}}
{{- range $needs -}}
{{- $cpus = addf $cpus (mulf .cpus .numOfHosts .min) -}}
{{- end -}}
{{- $room := 0.0 -}}
{{- range $groups -}}
{{- $room = addf $room (mulf .cpus .numOfHosts .maxReplicas) -}}
{{- end -}}
{{- if gt (round $cpus 3) (float64 $room) }}
workerGroups: the fewest replicas of all stages take {{ round $cpus 1 }} CPU together, and all groups at their most have {{ $room }}; raise `maxReplicas` or `cpus` of a group
{{- end }}
{{- range $stage := (include "manta.cpuStages" . | fromYaml).stages -}}
{{- $pods := 0 -}}
{{- range $groups -}}
{{- if ge (float64 .cpus) (float64 $stage.cpus) -}}
{{- $pods = add $pods (mul .numOfHosts .maxReplicas) -}}
{{- end -}}
{{- end -}}
{{- if gt (dig "minNodes" 0 $stage | int) (int $pods) }}
platform.{{ .path }}.max_replicas_per_node: {{ .min }} replicas need {{ .minNodes }} pods with {{ .cpus }} CPU each, and the worker groups at their most have {{ $pods }}; raise `maxReplicas` of a group
{{- end }}
{{- end }}
{{- end -}}

{{/* Takes (list kind needs groups). A group that does not say what it has may have any kind. */}}
{{- define "manta.check.acceleratorRoom" -}}
{{- $kind := index . 0 -}}
{{- $need := 0 -}}
{{- range index . 1 -}}
{{- if or (eq $kind "any") (eq .accelerator $kind) -}}
{{- $need = add $need (mul .min .gpus .numOfHosts) -}}
{{- end -}}
{{- end -}}
{{- $room := 0 -}}
{{- range index . 2 -}}
{{- if or (eq $kind "any") (has .accelerator (list "" $kind)) -}}
{{- $room = add $room (mul .gpus .numOfHosts .maxReplicas) -}}
{{- end -}}
{{- end -}}
{{- range $need := index . 1 -}}
{{- if eq $kind .accelerator -}}
{{- $pods := 0 -}}
{{- range index $ 2 -}}
{{- if and (ge (int .gpus) (int $need.gpus)) (or (eq $kind "any") (has .accelerator (list "" $kind))) -}}
{{- $pods = add $pods (mul .numOfHosts .maxReplicas) -}}
{{- end -}}
{{- end -}}
{{- if gt (int .minNodes) (int $pods) }}
workerGroups: {{ .min }} replicas on {{ .gpus }} accelerators ({{ $kind }}) each need {{ .minNodes }} pods (`max_replicas_per_node`), and the groups at their most have {{ $pods }}; raise `maxReplicas` of a group
{{- end }}
{{- end -}}
{{- end -}}
{{- if gt (int $need) (int $room) }}
workerGroups: the fewest replicas of all variants and embedders take {{ $need }} accelerators ({{ $kind }}) together, and the groups at their most have {{ $room }}; raise `maxReplicas` of a group
{{- end }}
{{- end -}}
