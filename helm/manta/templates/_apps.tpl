{{/* One helper for each Serve application: args hold what the operator wrote, without what may change in place. */}}

{{- define "manta.app.rollouts" -}}
{{- $args := dict "state_uri" (dig "rollouts" "state_uri" nil .) -}}
{{- $deployment := dict "name" "Rollouts" "num_replicas" 1 "max_ongoing_requests" 100000 "user_config" (dict "platform" .) -}}
{{- $_ := set $deployment "ray_actor_options" (dict "num_cpus" 0.1) -}}
{{- include "manta.app" (list "rollouts" "build_rollouts" $args $deployment) -}}
{{- end -}}

{{- define "manta.app.embedder" -}}
{{- $embedder := index . 0 -}}
{{- $budgeted := and (index . 1) $embedder.accelerator | not | not -}}
{{- $deployment := include "manta.replicas" (list $embedder 1 $budgeted) | fromYaml -}}
{{- $_ := set $deployment "name" "Embedder" -}}
{{- $_ := set $deployment "max_ongoing_requests" 256 -}}
{{- $_ := set $deployment "max_queued_requests" 1024 -}}
{{- $placement := include "manta.placement" (list $embedder.accelerator (dig "threads" 1 $embedder) 1 1) | fromYaml -}}
{{- $_ := set $deployment "ray_actor_options" $placement.ray_actor_options -}}
{{- $args := dict "config" (omit $embedder "replicas" "autoscaling" "max_replicas_per_node") -}}
{{- include "manta.app" (list (printf "embedder.%s" $embedder.name) "build_embedder" $args $deployment) -}}
{{- end -}}

{{- define "manta.app.llm" -}}
{{- $model := index . 0 -}}
{{- $variant := index . 1 -}}
{{- $budgeted := and (index . 2) $variant.accelerator | not | not -}}
{{- $engine := default dict $variant.engine -}}
{{- $tp := dig "tensor_parallel_size" 1 $engine | int -}}
{{- $pp := dig "pipeline_parallel_size" 1 $engine | int -}}
{{- $deployment := include "manta.replicas" (list $variant 1 $budgeted) | fromYaml -}}
{{- $deployment = merge $deployment (include "manta.placement" (list $variant.accelerator (dig "cpus" 1 $variant) $tp $pp) | fromYaml) -}}
{{- $_ := set $deployment "name" "LLM" -}}
{{- $_ := set $deployment "max_ongoing_requests" 100000 -}}
{{- $_ := set $deployment "graceful_shutdown_timeout_s" (dig "drain_timeout_s" 600 $variant) -}}
{{- $args := dict "model" $model "config" (omit $variant "weight" "replicas" "autoscaling" "max_replicas_per_node" "max_leases" "price_per_hour") -}}
{{- include "manta.app" (list (printf "llm.%s.%s" $model $variant.name) "build_llm" $args $deployment) -}}
{{- end -}}

{{/* What a replica reserves: a bundle for each pipeline stage. Takes (list accelerator cpusOfARank TP PP). */}}
{{- define "manta.placement" -}}
{{- $accelerator := index . 0 -}}
{{- $tp := index . 2 -}}
{{- $cpus := mulf (index . 1) $tp -}}
{{- $actor := dict "num_cpus" $cpus -}}
{{- $bundle := dict "CPU" $cpus -}}
{{- if $accelerator -}}
{{- $_ := set $actor "num_gpus" $tp -}}
{{- $_ := set $bundle "GPU" $tp -}}
{{- if ne $accelerator "any" -}}
{{- $_ := set $actor "accelerator_type" $accelerator -}}
{{- $_ := set $bundle (printf "accelerator_type:%s" $accelerator) 0.001 -}}
{{- end -}}
{{- end -}}
{{- $placement := dict "ray_actor_options" $actor -}}
{{- if gt (index . 3) 1 -}}
{{- $bundles := list -}}
{{- range until (index . 3) -}}
{{- $bundles = append $bundles $bundle -}}
{{- end -}}
{{- $_ := set $placement "placement_group_bundles" $bundles -}}
{{- $_ := set $placement "placement_group_strategy" "PACK" -}}
{{- end -}}
{{- toYaml $placement -}}
{{- end -}}

{{- define "manta.app.retriever" -}}
{{- $p := index . 0 -}}
{{- $retriever := default dict $p.retriever -}}
{{- $pairs := list -}}
{{- range $p.pipelines -}}
{{- range $version := .versions -}}
{{- range prepend (dig "overrides" "collections" list $version) $version.collection -}}
{{- $pairs = append $pairs (printf "%s %s" $version.embedder .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $bindings := list -}}
{{- range $pairs | uniq | sortAlpha -}}
{{- $bindings = append $bindings (splitList " " .) -}}
{{- end -}}
{{- $args := dict "bindings" $bindings "store" (index . 1) "config" (omit $retriever "replicas" "autoscaling" "max_replicas_per_node" "cpus") -}}
{{- $deployment := include "manta.replicas" (list $retriever 1 false) | fromYaml -}}
{{- $_ := set $deployment "name" "Retriever" -}}
{{- $_ := set $deployment "max_ongoing_requests" 256 -}}
{{- $_ := set $deployment "max_queued_requests" 1024 -}}
{{- $_ := set $deployment "ray_actor_options" (dict "num_cpus" (dig "cpus" 0.5 $retriever)) -}}
{{- include "manta.app" (list "retriever" "build_retriever" $args $deployment) -}}
{{- end -}}

{{- define "manta.app.documents" -}}
{{- $stores := index . 1 -}}
{{- $store := index . 2 -}}
{{- $source := "" -}}
{{- range (index . 0).embedders -}}
{{- if eq .name $stores.embedder -}}
{{- $source = .source -}}
{{- end -}}
{{- end -}}
{{- $uri := default (printf "%s-documents" (regexReplaceAll "/+$" (default "" $store.uri) "")) $stores.uri -}}
{{- $args := dict "config" (omit $stores "cpus" "uri") "store" $store "uri" $uri "embedder_source" $source -}}
{{- $deployment := dict "name" "Documents" "num_replicas" 1 "max_ongoing_requests" 256 "max_queued_requests" 1024 -}}
{{- $_ := set $deployment "ray_actor_options" (dict "num_cpus" (dig "cpus" 0.5 $stores)) -}}
{{- include "manta.app" (list "documents" "build_documents" $args $deployment) -}}
{{- end -}}

{{- define "manta.app.router" -}}
{{- $router := default dict .router -}}
{{- $most := max 67108864 (add (dig "limits" "max_body_bytes" 10485760 . | int64) 1048576) -}}
{{- $env := dict "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD" "0" "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE" ($most | toString) -}}
{{- $deployment := include "manta.replicas" (list $router 2 false) | fromYaml -}}
{{- $_ := set $deployment "name" "Router" -}}
{{- $_ := set $deployment "max_ongoing_requests" (dig "max_open_requests" 10000 $router) -}}
{{- $_ := set $deployment "max_queued_requests" 1024 -}}
{{- $_ := set $deployment "backpressure_config" (dict "status_code" 429 "retry_after_s" 5.0) -}}
{{- $_ := set $deployment "graceful_shutdown_timeout_s" (dig "drain_timeout_s" 600 $router) -}}
{{- $options := dict "num_cpus" (dig "cpus" 1 $router) "runtime_env" (dict "env_vars" $env) -}}
{{- $_ := set $deployment "ray_actor_options" $options -}}
{{- include "manta.app" (list "router" "build_router" dict $deployment) -}}
{{- end -}}
