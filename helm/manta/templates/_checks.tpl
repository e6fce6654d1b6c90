{{/* Rules between values that no schema can say, in the words of `manta validate`. All problems are told at once. */}}

{{- define "manta.checks" -}}
{{- $checks := list "manta.check.names" "manta.check.models" "manta.check.pipelines" "manta.check.bounds" "manta.check.files" -}}
{{- $checks = concat $checks (list "manta.check.access" "manta.check.storage" "manta.check.tracing" "manta.check.pods" "manta.check.groups" "manta.check.cluster") -}}
{{- $lines := list -}}
{{- range $checks -}}
{{- range splitList "\n" (include . $) -}}
{{- $lines = append $lines (trim .) -}}
{{- end -}}
{{- end -}}
{{- with compact $lines -}}
{{- fail (printf "\n\nthese values cannot work:\n  - %s\n" (join "\n  - " .)) -}}
{{- end -}}
{{- end -}}

{{/* Names that stand twice. Takes (list path names). */}}
{{- define "manta.check.repeated" -}}
{{- $seen := list -}}
{{- range index . 1 }}
{{- if has . $seen }}
{{ index $ 0 }} must be unique, "{{ . }}" is used more than once
{{- end }}
{{- $seen = append $seen . -}}
{{- end -}}
{{- end -}}

{{- define "manta.check.names" -}}
{{- $names := list -}}
{{- range concat (.Values.platform.models | default list) (.Values.platform.embedders | default list) (.Values.platform.pipelines | default list) -}}
{{- $names = append $names .name -}}
{{- end -}}
{{ include "manta.check.repeated" (list "platform: model, embedder and pipeline names" $names) }}
{{- $groups := list -}}
{{- range .Values.workerGroups -}}
{{- $groups = append $groups .name -}}
{{- end }}
{{ include "manta.check.repeated" (list "workerGroups: names" $groups) }}
{{- if or (has "head" $groups) (has "headgroup" $groups) }}
workerGroups: "{{ has "head" $groups | ternary "head" "headgroup" }}" is what the chart or KubeRay calls the head; give the group another name
{{- end }}
{{- $name := include "manta.fullname" . }}
{{- if has $name (list "y" "n" "yes" "no" "on" "off" "true" "false" "null") }}
release name: YAML takes "{{ $name }}" for something else than text; set another fullnameOverride
{{- end }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
release name: "{{ $name }}" must start with a letter and hold only a-z, 0-9 and "-", because KubeRay makes host names of it; set fullnameOverride
{{- end }}
{{- end -}}

{{/* Weights and names of what shares traffic. Takes (list path parts what). */}}
{{- define "manta.check.shares" -}}
{{- $path := index . 0 -}}
{{- $names := list -}}
{{- $total := 0 -}}
{{- range index . 1 -}}
{{- $names = append $names .name -}}
{{- $total = add $total (dig "weight" 100 .) -}}
{{- end }}
{{ include "manta.check.repeated" (list (printf "%s: %s names" $path (index . 2)) $names) }}
{{- if ne (int $total) 100 }}
{{ $path }}: {{ index . 2 }} weights must sum to 100, got {{ $total }}
{{- end }}
{{- end -}}

{{/* What a rollout compares must be declared. Takes (list path rollout parts). */}}
{{- define "manta.check.rollout" -}}
{{- $path := index . 0 -}}
{{- $names := include "manta.namesOf" (index . 2) -}}
{{- with index . 1 -}}
{{- $rollout := . -}}
{{- range $key, $default := dict "variant" "canary" "baseline" "stable" }}
{{ include "manta.check.known" (list (printf "%s.rollout.%s" $path $key) $key (dig $key $default $rollout) $names) }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "manta.check.models" -}}
{{- range $m, $model := .Values.platform.models -}}
{{- $path := printf "platform.models[%d]" $m }}
{{ include "manta.check.shares" (list (printf "%s.variants" $path) $model.variants "variant") }}
{{ include "manta.check.rollout" (list $path $model.rollout $model.variants) }}
{{- range $v, $variant := $model.variants }}
{{- if and $variant.max_replicas_per_node (gt (dig "pipeline_parallel_size" 1 (default dict $variant.engine) | int) 1) }}
{{ $path }}.variants[{{ $v }}].max_replicas_per_node: Ray Serve takes no such limit where pipeline_parallel_size is over 1; leave it out
{{- end }}
{{- end }}
{{- range $a, $adapter := $model.adapters }}
{{- if $adapter.versions }}
{{ include "manta.check.shares" (list (printf "%s.adapters[%d].versions" $path $a) $adapter.versions "version") }}
{{- end }}
{{- end }}
{{- if $model.shadow }}
{{ include "manta.check.known" (list (printf "%s.shadow.variant" $path) "variant" $model.shadow.variant (include "manta.namesOf" $model.variants)) }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Names of parts, joined by spaces. */}}
{{- define "manta.namesOf" -}}
{{- $names := list -}}
{{- range . -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- join " " $names -}}
{{- end -}}

{{/* A reference must name something that is declared. Takes (list path what name "known names"). */}}
{{- define "manta.check.known" -}}
{{- $known := compact (splitList " " (index . 3)) -}}
{{- if not (has (index . 2) $known) }}
{{ index . 0 }}: {{ index . 1 }} "{{ index . 2 }}" is not declared, declared: {{ join ", " $known | default "none" }}
{{- end }}
{{- end -}}

{{- define "manta.check.pipelines" -}}
{{- $p := .Values.platform -}}
{{- $embedders := include "manta.namesOf" $p.embedders -}}
{{- $models := list -}}
{{- range $model := $p.models -}}
{{- $models = append $models .name -}}
{{- range .adapters -}}
{{- $models = append $models (printf "%s:%s" $model.name .name) -}}
{{- end -}}
{{- end -}}
{{- $models = join " " $models -}}
{{- range $i, $pipeline := $p.pipelines -}}
{{- $path := printf "platform.pipelines[%d]" $i }}
{{ include "manta.check.shares" (list (printf "%s.versions" $path) $pipeline.versions "version") }}
{{ include "manta.check.rollout" (list $path $pipeline.rollout $pipeline.versions) }}
{{- range $v, $version := $pipeline.versions }}
{{- $at := printf "%s.versions[%d]" $path $v }}
{{ include "manta.check.known" (list (printf "%s.model" $at) "model" $version.model $models) }}
{{ include "manta.check.known" (list (printf "%s.embedder" $at) "embedder" $version.embedder $embedders) }}
{{- with dig "model" "" ($version.condense | default dict) }}
{{ include "manta.check.known" (list (printf "%s.condense.model" $at) "model" . $models) }}
{{- end }}
{{- end }}
{{- end }}
{{- with $p.vector_stores }}
{{ include "manta.check.known" (list "platform.vector_stores.embedder" "embedder" .embedder $embedders) }}
{{- end }}
{{- range $k, $key := dig "auth" "keys" list $p }}
{{- range $i, $name := $key.models }}
{{ include "manta.check.known" (list (printf "platform.auth.keys[%d].models[%d]" $k $i) "model" $name (printf "%s %s %s" $models $embedders (include "manta.namesOf" $p.pipelines))) }}
{{- end }}
{{- end }}
{{- end -}}
