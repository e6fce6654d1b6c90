{{/* Where Ray pods may go: each other, DNS, Redis of this release, HTTPS (hub, object store, Kubernetes) and what is added. */}}
{{- define "manta.egress" -}}
- to:
    - podSelector:
        matchLabels:
          {{- include "manta.rayLabels" . | nindent 10 }}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
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
{{- with .Values.networkPolicy.egress.extra }}
{{ toYaml . }}
{{- end }}
{{- end -}}
