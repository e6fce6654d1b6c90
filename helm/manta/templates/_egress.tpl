{{/* Where Ray pods may go: each other, DNS, Redis of this release, HTTPS (hub, object store, Kubernetes), the ports of what the values name
and what is added. */}}
{{- define "manta.egress" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "manta.rayLabels" . | nindent 10 }}
- ports:
    {{- range list 53 5353 }} {{/* policies see the port of the pods behind the Service: OpenShift's DNS pods listen on 5353 */}}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- if .Values.redis.enabled }}
- to:
    - podSelector:
        matchLabels:
          {{- include "manta.selectorLabels" . | nindent 10 }}
          app.kubernetes.io/component: redis
  ports:
    - {port: 6379, protocol: TCP}
{{- end }}
{{- with .Values.networkPolicy.egress.httpsTo }}
- to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    - {port: 443, protocol: TCP}
    - {port: 6443, protocol: TCP}
{{- end }}
{{- with (include "manta.namedPorts" . | fromYaml).ports }}
- to:
    # In some networks an address range leaves out pods, so those of all namespaces are named too.
    - namespaceSelector: {}
    {{- range $.Values.networkPolicy.egress.httpsTo }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    {{- range . }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
{{- with .Values.networkPolicy.egress.extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Ports of the addresses that the values name: Redis, the object store, the receiver of traces, and what stands in `pod.env` (a proxy, a
mirror of the hub). */}}
{{- define "manta.namedPorts" -}}
{{- $addresses := list .Values.objectStore.endpoint -}}
{{- if or .Values.gcsFaultTolerance.enabled .Values.redis.enabled -}}
{{- $addresses = append $addresses .Values.gcsFaultTolerance.redisAddress -}}
{{- end -}}
{{- with .Values.platform.tracing -}}
{{- if .enabled -}}
{{- $addresses = append $addresses (default "" .endpoint) -}}
{{- end -}}
{{- end -}}
{{- range .Values.pod.env -}}
{{- if regexMatch "^(https?|grpc)://" (default "" .value) -}}
{{- $addresses = append $addresses .value -}}
{{- end -}}
{{- end -}}
{{- $ports := list -}}
{{- range compact $addresses -}}
{{- $host := regexReplaceAll "^([a-z]+://)?([^/@]*@)?([^/?#]*).*$" . "${3}" -}}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" -}}
{{- $ports = append $ports (int (default (ternary "80" "443" (hasPrefix "http://" .)) $port)) -}}
{{- end -}}
{{- toYaml (dict "ports" (without $ports 443 | uniq | sortAlpha)) -}}
{{- end -}}
