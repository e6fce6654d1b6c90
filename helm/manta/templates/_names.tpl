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

{{/* Labels that never change: selectors and Ray's pods have these and no others, or an upgrade of the chart would be one of the cluster. */}}
{{- define "manta.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "manta.rayLabels" -}}
{{ include "manta.selectorLabels" . }}
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

{{/* An image's address. Takes (list $ image) where image has repository, tag and digest. */}}
{{- define "manta.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := default $root.Values.image.registry $root.Values.global.imageRegistry -}}
{{- $address := ternary (printf "%s/%s" $registry $image.repository) $image.repository (ne $registry "") -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $address $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $address (default (printf "%s%s" $root.Chart.AppVersion (default "" $image.tagSuffix)) $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Secrets that images are pulled with, as a list of references. */}}
{{- define "manta.pullSecrets" -}}
{{- $names := list -}}
{{- range concat .Values.global.imagePullSecrets .Values.image.pullSecrets -}}
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
