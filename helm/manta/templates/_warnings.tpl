{{/* What works, and will surprise later. NOTES.txt shows it. */}}

{{- define "manta.warnings" -}}
{{- $warnings := list -}}
{{- range list "manta.warning.groups" "manta.warning.ingress" "manta.warning.drain" -}}
{{- $warnings = append $warnings (include . $) -}}
{{- end -}}
{{- range compact $warnings }}

WARNING: {{ . }}
{{- end -}}
{{- end -}}

{{/* Groups that follow from the models: exactly what those need, in the order of the document. */}}
{{- define "manta.warning.groups" -}}
{{- $groups := (include "manta.groups" . | fromYaml).groups -}}
{{- if and (not .Values.workerGroups) (gt (len $groups) 1) -}}
{{- $shown := list -}}
{{- range $groups -}}
{{- $shown = append $shown (printf "%s (%d to %d)" .name (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
worker groups follow from the models, in their order: {{ join ", " $shown }}.
  At their most, groups with accelerators hold exactly the replicas that there are: one that replaces another waits until that has drained, and one more
  waits for the next cluster. A model that comes first, moves or goes changes their order, and that builds a second cluster.
  Write `workerGroups` with room in `maxReplicas`, and only ever append (docs/operations/upgrades.md, "Bounds of groups that run").
{{- end -}}
{{- end -}}

{{/* What ingress-nginx does by itself, once for each annotation that says otherwise and is not there. */}}
{{- define "manta.warning.ingress" -}}
{{- $does := dict "proxy-body-size" "refuses bodies over 1 MiB" "proxy-read-timeout" "ends streams that are silent for 60 seconds" -}}
{{- $told := list -}}
{{- if and .Values.ingress.enabled (contains "nginx" (default "" .Values.ingress.className)) -}}
{{- range $key, $what := $does -}}
{{- if not (hasKey (default dict $.Values.ingress.annotations) (printf "nginx.ingress.kubernetes.io/%s" $key)) -}}
{{- $told = append $told (printf "%s (nginx.ingress.kubernetes.io/%s)" $what $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $told -}}
nginx by itself {{ join ", and " . }}; set the annotation in
  ingress.annotations (docs/operations/install.md, "For others").
{{- end -}}
{{- end -}}

{{/* Streams that may take longer than Kubernetes lets a pod that stops. */}}
{{- define "manta.warning.drain" -}}
{{- $left := sub (int .Values.pod.terminationGracePeriodSeconds) 30 -}}
{{- $long := list -}}
{{- $router := default dict .Values.platform.router -}}
{{- if gt (float64 (default 600 $router.drain_timeout_s)) (float64 $left) -}}
{{- $long = append $long "router" -}}
{{- end -}}
{{- range $model := default list .Values.platform.models -}}
{{- range $model.variants -}}
{{- if gt (float64 (default 600 .drain_timeout_s)) (float64 $left) -}}
{{- $long = append $long (printf "%s.%s" $model.name .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $long -}}
streams of {{ join ", " . }} may take longer (drain_timeout_s) than a pod that stops has ({{ $left }} s): what is open then
  breaks. Raise pod.terminationGracePeriodSeconds to 30 more than the longest, or lower drain_timeout_s.
{{- end -}}
{{- end -}}
