{{/* What models and stages need of nodes. */}}

{{/* One entry for each variant or embedder on accelerators: what one of its replicas takes, and how many there are. */}}
{{- define "manta.gpuNeeds" -}}
{{- $needs := list -}}
{{- range .Values.platform.models -}}
{{- range .variants -}}
{{- if .accelerator -}}
{{- $engine := default dict .engine -}}
{{- $tp := dig "tensor_parallel_size" 1 $engine | int -}}
{{- $pp := dig "pipeline_parallel_size" 1 $engine | int -}}
{{- $bounds := include "manta.bounds" (list . 1) | fromYaml -}}
{{- $cpus := mulf (dig "cpus" 1 .) $tp -}}
{{- $needs = append $needs (dict "accelerator" .accelerator "gpus" $tp "numOfHosts" $pp "cpus" $cpus "min" $bounds.min "max" $bounds.max "minNodes" $bounds.minNodes) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .Values.platform.embedders -}}
{{- if .accelerator -}}
{{- $bounds := include "manta.bounds" (list . 1) | fromYaml -}}
{{- $cpus := dig "threads" 1 . -}}
{{- $needs = append $needs (dict "accelerator" .accelerator "gpus" 1 "numOfHosts" 1 "cpus" $cpus "min" $bounds.min "max" $bounds.max "minNodes" $bounds.minNodes) -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "needs" $needs) -}}
{{- end -}}

{{/* CPU cores that all replicas without an accelerator take, and nodes that they have to be spread over, at their fewest and at their most. */}}
{{- define "manta.cpuNeed" -}}
{{- $min := 0.0 -}}
{{- $max := 0.0 -}}
{{- $minNodes := 0 -}}
{{- $maxNodes := 0 -}}
{{- range (include "manta.cpuStages" . | fromYaml).stages -}}
{{- $min = addf $min (mulf .cpus .parts .min) -}}
{{- $max = addf $max (mulf .cpus .parts .max) -}}
{{- $minNodes = max $minNodes (dig "minNodes" 0 .) -}}
{{- $maxNodes = max $maxNodes (dig "maxNodes" 0 .) -}}
{{- end -}}
{{- toYaml (dict "min" $min "max" $max "minNodes" $minNodes "maxNodes" $maxNodes) -}}
{{- end -}}

{{/* Every stage on CPU: `cpus` must be free on one node, `parts` times for each of its replicas. */}}
{{- define "manta.cpuStages" -}}
{{- $p := .Values.platform -}}
{{- $stages := list (dict "path" "rollouts" "cpus" 0.1 "parts" 1 "min" 1 "max" 1) -}}
{{- range $m, $model := $p.models -}}
{{- range $v, $variant := $model.variants -}}
{{- if not $variant.accelerator -}}
{{- $engine := default dict $variant.engine -}}
{{- $cpus := mulf (dig "cpus" 1 $variant) (dig "tensor_parallel_size" 1 $engine) -}}
{{- $stage := include "manta.bounds" (list $variant 1) | fromYaml -}}
{{- $_ := set $stage "path" (printf "models[%d].variants[%d]" $m $v) -}}
{{- $_ := set $stage "cpus" $cpus -}}
{{- $_ := set $stage "parts" (dig "pipeline_parallel_size" 1 $engine) -}}
{{- $stages = append $stages $stage -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $e, $embedder := $p.embedders -}}
{{- if not $embedder.accelerator -}}
{{- $stage := include "manta.bounds" (list $embedder 1) | fromYaml -}}
{{- $stages = append $stages (merge $stage (dict "path" (printf "embedders[%d]" $e) "cpus" (dig "threads" 1 $embedder) "parts" 1)) -}}
{{- end -}}
{{- end -}}
{{- if or $p.pipelines $p.vector_stores -}}
{{- $stage := include "manta.bounds" (list (default dict $p.retriever) 1) | fromYaml -}}
{{- $stages = append $stages (merge $stage (dict "path" "retriever" "cpus" (dig "retriever" "cpus" 0.5 $p) "parts" 1)) -}}
{{- end -}}
{{- if $p.vector_stores -}}
{{- $stages = append $stages (dict "path" "vector_stores" "cpus" (dig "cpus" 0.5 $p.vector_stores) "parts" 1 "min" 1 "max" 1) -}}
{{- end -}}
{{- if include "manta.hasKeys" $p -}}
{{- $stages = append $stages (dict "path" "auth" "cpus" 0.1 "parts" 1 "min" 1 "max" 1) -}}
{{- end -}}
{{- $stage := include "manta.bounds" (list (default dict $p.router) 2) | fromYaml -}}
{{- $stages = append $stages (merge $stage (dict "path" "router" "cpus" (dig "router" "cpus" 1 $p) "parts" 1)) -}}
{{- toYaml (dict "stages" $stages) -}}
{{- end -}}
