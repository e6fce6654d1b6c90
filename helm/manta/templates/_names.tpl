{{/* Names and labels. A RayService's name must be DNS-1035 and at most 47 characters: KubeRay adds to it. */}}

{{- define "manta.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 47 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 47 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 47 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A name with a suffix, short enough for the suffix. Takes (list $ "suffix"). */}}
{{- define "manta.named" -}}
{{- $suffix := index . 1 -}}
{{- printf "%s-%s" (include "manta.fullname" (index . 0) | trunc (sub 62 (len $suffix) | int) | trimSuffix "-") $suffix -}}
{{- end -}}

{{/* Labels that never change, for selectors. In quotes: YAML takes a release `on` or `2026` for something else than text. */}}
{{- define "manta.selectorLabels" -}}
app.kubernetes.io/name: {{ include "manta.partOf" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{- define "manta.partOf" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels of Ray's pods, and selectors of them. They never change: else an upgrade of the chart would be one of the cluster. Not among
them: app.kubernetes.io/name and created-by. KubeRay's Services select by its own values of these, and a pod template's labels win. */}}
{{- define "manta.rayLabels" -}}
app.kubernetes.io/part-of: {{ include "manta.partOf" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/component: ray
{{- end -}}

{{- define "manta.labels" -}}
{{ include "manta.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{/* The Service that KubeRay keeps on the active cluster. */}}
{{- define "manta.serveService" -}}
{{- printf "%s-serve-svc" (include "manta.fullname" .) -}}
{{- end -}}

{{/* An image's address. Takes (list $ image) where image has repository, tag and digest. A repository with a registry of its own has that:
its first part is a host, with a dot or a port. */}}
{{- define "manta.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := default "" (default $root.Values.image.registry $root.Values.global.imageRegistry) -}}
{{- $hasOwn := regexMatch "^([^/]*[.:][^/]*|localhost)/" $image.repository -}}
{{- $address := ternary (printf "%s/%s" $registry $image.repository) $image.repository (and (not $hasOwn) (ne $registry "")) -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $address $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $address (default (printf "%s%s" $root.Chart.AppVersion (default "" $image.tagSuffix)) $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Secrets that images are pulled with, as a list of references. */}}
{{- define "manta.pullSecrets" -}}
{{- $names := list -}}
{{- range concat (default list .Values.global.imagePullSecrets) (default list .Values.image.pullSecrets) -}}
{{- $names = append $names (dict "name" .) -}}
{{- end -}}
{{- toYaml $names -}}
{{- end -}}

{{/* The service account of "head" or "worker". Takes (list $ "head"). */}}
{{- define "manta.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.serviceAccount.create -}}
{{- include "manta.named" . -}}
{{- else -}}
{{- default "default" $root.Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}
