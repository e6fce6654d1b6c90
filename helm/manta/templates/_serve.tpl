{{/* serveConfigV2: what `manta render` prints for the same platform. Helpers return YAML that callers parse again. */}}

{{- define "manta.serveConfig" -}}
{{- $p := .Values.platform -}}
{{- $budgeted := ne (dig "scaling" "max_accelerators" nil $p | toString) "<nil>" -}}
{{- $stores := $p.vector_stores -}}
{{- $store := default dict $p.vector_store -}}
{{- $apps := list (include "manta.app.rollouts" $p | fromYaml) -}}
{{- range $p.embedders -}}
{{- $apps = append $apps (include "manta.app.embedder" (list . $budgeted) | fromYaml) -}}
{{- end -}}
{{- range $model := $p.models -}}
{{- range $model.variants -}}
{{- if or (not (kindIs "invalid" .autoscaling)) (gt (dig "replicas" 1 . | int) 0) -}}
{{- $apps = append $apps (include "manta.app.llm" (list $model.name . $budgeted) | fromYaml) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if or $p.pipelines $stores -}}
{{- $apps = append $apps (include "manta.app.retriever" (list $p $store) | fromYaml) -}}
{{- end -}}
{{- if $stores -}}
{{- $apps = append $apps (include "manta.app.documents" (list $p $stores $store) | fromYaml) -}}
{{- end -}}
{{- if include "manta.hasKeys" $p -}}
{{- $limits := dict "name" "Limits" "num_replicas" 1 "max_ongoing_requests" 100000 "ray_actor_options" (dict "num_cpus" 0.1) -}}
{{- $apps = append $apps (include "manta.app" (list "limits" "build_limits" dict $limits) | fromYaml) -}}
{{- end -}}
{{- $apps = append $apps (include "manta.app.router" $p | fromYaml) -}}
{{- $config := dict "proxy_location" "EveryNode" "applications" $apps -}}
{{- $_ := set $config "http_options" (dict "host" "0.0.0.0" "port" .Values.ports.http "keep_alive_timeout_s" 75) -}}
{{- if dig "router" "grpc" true $p -}}
{{- $functions := list "serve_app.rpc.services:add_inference" "serve_app.rpc.services:add_health" -}}
{{- $_ := set $config "grpc_options" (dict "port" .Values.ports.grpc "grpc_servicer_functions" $functions) -}}
{{- end -}}
{{- $_ := set $config "logging_config" (dict "encoding" "TEXT" "enable_access_log" false) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Whether callers need a key. */}}
{{- define "manta.hasKeys" -}}
{{- $auth := default dict .auth -}}
{{- if or $auth.keys $auth.keys_file -}}true{{- end -}}
{{- end -}}

{{/* An application. Takes (list name builder args deployment). */}}
{{- define "manta.app" -}}
{{- $name := index . 0 -}}
{{- $health := dict "health_check_period_s" 10.0 "health_check_timeout_s" 120.0 -}}
{{- $app := dict "name" $name "route_prefix" nil "import_path" (printf "serve_app.apps:%s" (index . 1)) "args" (index . 2) -}}
{{- if eq $name "router" -}}
{{- $_ := set $app "route_prefix" "/" -}}
{{- end -}}
{{- toYaml (set $app "deployments" (list (merge (index . 3) $health))) -}}
{{- end -}}

{{/* Options that say how many replicas a stage has, in all and on a node. Takes (list stage fixed budgeted): fixed is its number without autoscaling. */}}
{{- define "manta.replicas" -}}
{{- $stage := index . 0 -}}
{{- $bounds := include "manta.bounds" (list $stage (index . 1)) | fromYaml -}}
{{- $policy := dict "policy_function" "autoscaling.policy:QueueDepthPolicy" "policy_kwargs" dict -}}
{{- $scaling := dict "upscale_delay_s" 0.0 "downscale_delay_s" 0.0 "metrics_interval_s" 1.0 "look_back_period_s" 5.0 "policy" $policy -}}
{{- $_ := set $scaling "min_replicas" (ternary 0 $bounds.min (index . 2)) -}}
{{- $_ := set $scaling "max_replicas" $bounds.max -}}
{{- $options := dict "autoscaling_config" $scaling -}}
{{- with $stage.max_replicas_per_node -}}
{{- $_ := set $options "max_replicas_per_node" (int .) -}}
{{- end -}}
{{- toYaml $options -}}
{{- end -}}

{{/* Fewest and most replicas of a stage, and the nodes that they need. Takes (list stage fixed). */}}
{{- define "manta.bounds" -}}
{{- $stage := index . 0 -}}
{{- $fixed := dig "replicas" (index . 1) $stage | int -}}
{{- $min := $fixed -}}
{{- $max := $fixed -}}
{{- if not (kindIs "invalid" $stage.autoscaling) -}}
{{- $min = dig "min_replicas" 1 $stage.autoscaling | int -}}
{{- $max = dig "max_replicas" 1 $stage.autoscaling | int -}}
{{- end -}}
{{- $bounds := dict "min" $min "max" $max "minNodes" 0 "maxNodes" 0 -}}
{{- with $stage.max_replicas_per_node -}}
{{- $_ := set $bounds "minNodes" (divf $min . | ceil | int) -}}
{{- $_ := set $bounds "maxNodes" (divf $max . | ceil | int) -}}
{{- end -}}
{{- toYaml $bounds -}}
{{- end -}}
