{{/* Ports of the API beside those that something else in each pod listens on. */}}

{{/* What listens in Ray's pods whatever the values are, as "first last what". Ray 2.60: ray start, ray_constants.py, serve/_private/constants.py;
the rest is KubeRay's. */}}
{{- define "manta.takenPorts" -}}
- 6379 6379 Ray's control store
- 8080 8080 Ray's metrics
- 8265 8265 Ray's dashboard
- 8404 8404 HAProxy's statistics
- 8500 8500 Serve's own HTTP proxy, which HAProxy falls back on
- 9101 9101 HAProxy's metrics
- 9500 9500 Serve's own gRPC proxy, which HAProxy falls back on
- 10001 10001 Ray's client server
- 10002 19999 Ray's worker processes
- 30000 31000 the Routers' own HTTP ports
- 40000 41000 the Routers' own gRPC ports
- 44217 44217 the autoscaler's metrics
- 44227 44227 the dashboard's metrics
- 52365 52365 Ray's agent, which KubeRay probes
- 32768 60999 connections that go out, and what Ray and vLLM open at random
{{- end -}}

{{/* Takes `ports`. The first that fits is told: the most exact ones stand first. */}}
{{- define "manta.check.ports" -}}
{{- range $key := list "http" "grpc" -}}
{{- $port := get $ $key | int -}}
{{- $by := "" -}}
{{- range include "manta.takenPorts" $ | fromYamlArray -}}
{{- $taken := splitn " " 3 . -}}
{{- if and (not $by) (ge $port (int $taken._0)) (le $port (int $taken._1)) -}}
{{- $by = ternary $taken._2 (printf "%s (%s to %s)" $taken._2 $taken._0 $taken._1) (eq $taken._0 $taken._1) -}}
{{- end -}}
{{- end -}}
{{- with $by }}
ports.{{ $key }}: {{ $port }} is taken in Ray's pods by {{ . }}; choose another, such as {{ ternary 8000 9000 (eq $key "http") }}
{{- end }}
{{- end }}
{{- if eq (int .http) (int .grpc) }}
ports.grpc: {{ int .grpc }} is the port of `ports.http` too; give each its own
{{- end }}
{{- end -}}
