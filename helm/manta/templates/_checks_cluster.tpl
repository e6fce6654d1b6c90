{{/* Rules about bounds, files, access, storage, worker groups and the cluster. */}}

{{/* Takes (list path scaling). */}}
{{- define "manta.check.minMax" -}}
{{- with index . 1 -}}
{{- $min := dig "min_replicas" 1 . | int -}}
{{- $max := dig "max_replicas" 1 . | int -}}
{{- if gt $min $max }}
{{ index $ 0 }}.min_replicas: min_replicas {{ $min }} is over max_replicas {{ $max }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "manta.check.bounds" -}}
{{- $p := .Values.platform -}}
{{- range $m, $model := $p.models -}}
{{- range $v, $variant := $model.variants }}
{{ include "manta.check.minMax" (list (printf "platform.models[%d].variants[%d].autoscaling" $m $v) $variant.autoscaling) }}
{{- end }}
{{- end }}
{{- range $e, $embedder := $p.embedders }}
{{ include "manta.check.minMax" (list (printf "platform.embedders[%d].autoscaling" $e) $embedder.autoscaling) }}
{{- end }}
{{ include "manta.check.minMax" (list "platform.retriever.autoscaling" (dig "retriever" "autoscaling" nil $p)) }}
{{ include "manta.check.minMax" (list "platform.router.autoscaling" (dig "router" "autoscaling" nil $p)) }}
{{- range $g, $group := .Values.workerGroups }}
{{- if gt (dig "minReplicas" 1 $group | int) (dig "maxReplicas" 1 $group | int) }}
workerGroups[{{ $g }}].minReplicas: minReplicas {{ dig "minReplicas" 1 $group }} is over maxReplicas {{ dig "maxReplicas" 1 $group }}
{{- end }}
{{- end }}
{{- if gt (int .Values.cpuWorkers.minReplicas) (int .Values.cpuWorkers.maxReplicas) }}
cpuWorkers.minReplicas: minReplicas {{ .Values.cpuWorkers.minReplicas }} is over maxReplicas {{ .Values.cpuWorkers.maxReplicas }}
{{- end }}
{{- end -}}

{{/* Nodes have none of the files that lie beside a values file. */}}
{{- define "manta.check.files" -}}
{{- $fix := "no node has the files beside your values; write an absolute path of a volume, s3://bucket/prefix or a Hugging Face id" -}}
{{- range $m, $model := .Values.platform.models -}}
{{- range $v, $variant := $model.variants }}
{{- $path := printf "platform.models[%d].variants[%d]" $m $v }}
{{- if regexMatch "^(\\.\\.?/|~)" $variant.source }}
{{ $path }}.source: "{{ $variant.source }}" is a relative folder, and {{ $fix }}
{{- end }}
{{- $template := dig "engine" "chat_template" "" $variant | default "" }}
{{- if and (regexMatch "\\.(jinja|jinja2|j2)$" $template) (not (contains "\n" $template)) }}
{{ $path }}.engine.chat_template: "{{ $template }}" is a file; write the template's text (helm install --set-file reads it from a file)
{{- end }}
{{- end }}
{{- end }}
{{- range $e, $embedder := .Values.platform.embedders }}
{{- if regexMatch "^(\\.\\.?/|~)" $embedder.source }}
platform.embedders[{{ $e }}].source: "{{ $embedder.source }}" is a relative folder, and {{ $fix }}
{{- end }}
{{- end }}
{{- range $i, $pipeline := .Values.platform.pipelines }}
{{- range $v, $version := $pipeline.versions }}
{{- if and (hasSuffix ".j2" $version.prompt) (not (contains "\n" $version.prompt)) }}
platform.pipelines[{{ $i }}].versions[{{ $v }}].prompt: "{{ $version.prompt }}" is a file; write the template's text (helm install --set-file reads it from a file)
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "manta.check.access" -}}
{{- $auth := default dict .Values.platform.auth -}}
{{- if and (not (include "manta.hasKeys" .Values.platform)) (not $auth.allow_anonymous) }}
platform.auth: the API would be open to whoever reaches it, and no keys are configured; make one with `manta keys create NAME` and set `auth.keys` or `auth.keys_file`, or set `auth.allow_anonymous: true`
{{- end }}
{{- range $k, $key := $auth.keys }}
{{- if not (regexMatch "^sha256:[0-9a-f]{32}:[0-9a-f]{64}$" $key.hash) }}
platform.auth.keys[{{ $k }}].hash: expected `sha256:<salt>:<digest>` as `manta keys create NAME` prints it
{{- end }}
{{- end }}
{{- $file := default "" $auth.keys_file }}
{{- if and (hasPrefix .Values.apiKeys.mountPath $file) (not .Values.apiKeys.existingSecret) }}
apiKeys.existingSecret: `platform.auth.keys_file` is {{ $file }}, which this Secret holds; name it, or remove the file with `keys_file: null`
{{- else if and $file (not (hasPrefix "/" $file)) }}
platform.auth.keys_file: "{{ $file }}" must be an absolute path of a mounted Secret, such as {{ .Values.apiKeys.mountPath }}/keys.yaml
{{- else if and $file (not (include "manta.isMounted" (list . $file))) }}
platform.auth.keys_file: no volume of the pods has "{{ $file }}", and Routers do not start without it; put it below `apiKeys.mountPath` ({{ .Values.apiKeys.mountPath }}), or mount it by `pod.volumes` and `pod.volumeMounts`
{{- end }}
{{- if and .Values.tests.enabled (include "manta.hasKeys" .Values.platform) (not .Values.tests.apiKey.existingSecret) }}
tests.apiKey.existingSecret: callers need a key, so `helm test` needs one too; name a Secret that holds it, or set `tests.enabled: false`
{{- end }}
{{- with .Values.loadTest }}
{{- if and .enabled (include "manta.hasKeys" $.Values.platform) (not .apiKey.existingSecret) }}
loadTest.apiKey.existingSecret: callers need a key, so the load test needs one with `admin: true` too; name a Secret that holds it
{{- end }}
{{- if and .enabled (le (int .timeoutSeconds) (add (int .settleSeconds) (int .waitSeconds) | int)) }}
loadTest.timeoutSeconds: {{ .timeoutSeconds | int }} leave no time for the run: `settleSeconds` and `waitSeconds` are {{ add (int .settleSeconds) (int .waitSeconds) }} together
{{- end }}
{{- end }}
{{- end -}}

{{/* `manta validate` says the same; here it would come from a Rollouts that does not start. */}}
{{- define "manta.check.tracing" -}}
{{- with .Values.platform.tracing -}}
{{- if and .enabled (not .endpoint) }}
platform.tracing.endpoint: needs the URL of an OTLP receiver, such as http://otel-collector:4318, where `enabled` is true
{{- else if and .endpoint (not (regexMatch "^https?://[^/?#]" .endpoint)) }}
platform.tracing.endpoint: must begin with http:// or https://, such as http://otel-collector:4318
{{- end }}
{{- end -}}
{{- end -}}

{{/* Replicas on several nodes share collections: a folder must be on the shared volume. */}}
{{- define "manta.check.storage" -}}
{{- $p := .Values.platform -}}
{{- $uri := dig "vector_store" "uri" "" $p -}}
{{- if and (or $p.pipelines $p.vector_stores) (not (contains "://" $uri)) }}
{{- if not (and .Values.data.enabled (hasPrefix (printf "%s/" .Values.data.mountPath) $uri)) }}
platform.vector_store.uri: {{ ternary (printf "\"%s\"" $uri) "absent, and it" (ne $uri "") }} must be an object store (s3://bucket/prefix), or a folder below {{ .Values.data.mountPath }} with `data.enabled: true`: replicas on several nodes share it
{{- end }}
{{- end }}
{{- end -}}

{{- define "manta.check.groups" -}}
{{- $groups := (include "manta.groups" . | fromYaml).groups -}}
{{- $cpuNodes := list -}}
{{- range $groups -}}
{{- $cpuNodes = append $cpuNodes (int .cpus) -}}
{{- end -}}
{{- $largest := 0 -}}
{{- range $cpuNodes -}}
{{- $largest = max $largest . -}}
{{- end -}}
{{- range (include "manta.cpuStages" . | fromYaml).stages }}
{{- if gt (float64 .cpus) (float64 $largest) }}
platform.{{ .path }}: one replica takes {{ .cpus }} CPU on one node, and the largest node has {{ $largest }}; raise cpuWorkers.cpus
{{- end }}
{{- end }}
{{- if .Values.workerGroups }}
{{- $told := "" }}
{{- range $m, $model := .Values.platform.models }}
{{- range $v, $variant := $model.variants }}
{{- if $variant.accelerator }}
{{- $told = print $told (include "manta.check.fit" (list (printf "platform.models[%d].variants[%d]" $m $v) $variant $groups)) }}
{{- end }}
{{- end }}
{{- end }}
{{ $told | trim | default (include "manta.check.room" .) }}
{{- end }}
{{- end -}}

{{/* Some group must hold a replica: TP accelerators on one host, PP such stages in all. Takes (list path variant groups). */}}
{{- define "manta.check.fit" -}}
{{- $variant := index . 1 -}}
{{- $tp := dig "engine" "tensor_parallel_size" 1 $variant | int -}}
{{- $pp := dig "engine" "pipeline_parallel_size" 1 $variant | int -}}
{{- $kind := ternary "" $variant.accelerator (eq $variant.accelerator "any") -}}
{{- $fits := false -}}
{{- $names := list -}}
{{- range index . 2 -}}
{{- if and (gt (int .gpus) 0) (or (eq $kind "") (eq $kind .accelerator)) -}}
{{- $names = append $names (printf "%s (%d per host, %d hosts)" .name (int .gpus) (mul .numOfHosts .maxReplicas | int)) -}}
{{- $stages := mul (div .gpus $tp) .numOfHosts .maxReplicas -}}
{{- if ge (int $stages) $pp -}}
{{- $fits = true -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $fits }}
{{ index . 0 }}: a replica needs {{ $pp }} x {{ $tp }} {{ $variant.accelerator }} (pipeline_parallel_size hosts of tensor_parallel_size accelerators); no entry of workerGroups has room, those with this accelerator: {{ join ", " $names | default "none" }}
{{- end }}
{{- end -}}

{{- define "manta.check.cluster" -}}
{{- $v := .Values -}}
{{ include "manta.check.ports" $v.ports }}
{{- range $key, $image := dict "image.cpu" $v.image.cpu "image.gpu" $v.image.gpu "redis.image" $v.redis.image }}
{{- if and (eq $image.tag "latest") (not $image.digest) }}
{{ $key }}.tag: `latest` is another image tomorrow; name a version, or a digest
{{- end }}
{{- end }}
{{- if and $v.gcsFaultTolerance.enabled (not $v.gcsFaultTolerance.redisAddress) (not $v.redis.enabled) }}
gcsFaultTolerance.redisAddress: name your Redis (redis:6379, or rediss://host:6379 for TLS), or set `redis.enabled: true`
{{- end }}
{{- if and $v.redis.enabled (not $v.redis.existingSecret) }}
redis.existingSecret: name a Secret that holds the password under the key {{ $v.redis.key }}
{{- end }}
{{- if eq $v.upgrade.type "NewClusterWithIncrementalUpgrade" }}
{{- if not $v.upgrade.incremental.gatewayClassName }}
upgrade.incremental.gatewayClassName: an incremental upgrade moves traffic by a Gateway; name its class
{{- end }}
{{- range $key := list "ingress" "httpRoute" "grpcRoute" }}
{{- if (get $v $key).enabled }}
{{ $key }}.enabled: an incremental upgrade has a Gateway and an HTTPRoute of its own, which KubeRay makes, and no gRPC; switch this off
{{- end }}
{{- end }}
{{- if not $v.autoscaler.enabled }}
autoscaler.enabled: an incremental upgrade needs the autoscaler
{{- end }}
{{- if gt (int $v.upgrade.incremental.stepSizePercent) (int $v.upgrade.incremental.maxSurgePercent) }}
upgrade.incremental.stepSizePercent: {{ $v.upgrade.incremental.stepSizePercent }} is over maxSurgePercent {{ $v.upgrade.incremental.maxSurgePercent }}
{{- end }}
{{- end }}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) }}
ingress.hosts: name at least one host
{{- end }}
{{- if and (or $v.httpRoute.enabled $v.grpcRoute.enabled) (not $v.gateway.parentRefs) }}
gateway.parentRefs: HTTPRoute and GRPCRoute need a Gateway; name at least one
{{- end }}
{{- if and $v.grpcRoute.enabled (not (dig "router" "grpc" true $v.platform)) }}
grpcRoute.enabled: `platform.router.grpc` is false, so there is nothing to route to
{{- end }}
{{- end -}}
