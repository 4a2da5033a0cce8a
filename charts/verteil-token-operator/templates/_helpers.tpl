{{/* Name of every object in a namespace: the release's, with the chart's unless it is in there already. */}}
{{- define "operator.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of what another release may have beside it: in the cluster, and in the namespaces that are worked in. */}}
{{- define "operator.wideName" -}}
{{ include "operator.name" . }}:{{ .Release.Namespace }}
{{- end -}}

{{- define "operator.serviceAccount" -}}
{{- $own := ternary (include "operator.name" .) "default" .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default $own -}}
{{- end -}}

{{- define "operator.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- with .Values.image.digest }}{{ $tag = printf "%s@%s" $tag . }}{{ end -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}

{{- define "operator.httpPort" -}}
{{ regexFind "[0-9]+$" .Values.httpListen }}
{{- end -}}

{{/* Labels that pick the pods. They never change: a Deployment cannot be given others. */}}
{{- define "operator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object but the pods of helm test, which must not be picked. */}}
{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
{{ include "operator.commonLabels" . }}
{{- end -}}

{{- define "operator.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Labels of the pods of helm test. */}}
{{- define "operator.testSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What the Pod Security level "restricted" asks for. No user id: the image has one, and OpenShift gives its own. */}}
{{- define "operator.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- with .Values.podSecurityContext }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "operator.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* What the operator may do: one list for Role and ClusterRole. */}}
{{- define "operator.rules" -}}
{{ .Files.Get "files/rules.yaml" | trim }}
{{- if .Values.rolloutRestart }}
{{ .Files.Get "files/rollout-rules.yaml" | trim }}
{{- end }}
{{- end -}}

{{/* Binds the role of this kind and name to the operator's account: a list of context, kind, name. */}}
{{- define "operator.binding" -}}
{{- $root := index . 0 -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ index . 1 }}
  name: {{ index . 2 | quote }}
subjects:
  - kind: ServiceAccount
    name: {{ include "operator.serviceAccount" $root }}
    namespace: {{ $root.Release.Namespace }}
{{- end -}}

{{/* What does not fit together, and what to write instead. */}}
{{- define "operator.check" -}}
{{- if .Values.tokenApi.enabled -}}
{{- if not .Values.tokenApi.certificateSecretName -}}
{{- fail "tokenApi.enabled needs tokenApi.certificateSecretName: the name of a Secret with tls.crt and tls.key" -}}
{{- end -}}
{{- if not .Values.service.enabled -}}
{{- fail "tokenApi.enabled needs service.enabled: callers reach it by that Service" -}}
{{- end -}}
{{- if or (eq (.Values.tokenApi.port | int | toString) (include "operator.httpPort" . | trim)) (eq (.Values.tokenApi.port | int) (.Values.service.port | int)) -}}
{{- fail "tokenApi.port is to be another one than those of httpListen and service.port" -}}
{{- end -}}
{{- end -}}
{{- if .Values.disableTokenPersistence -}}
{{- if not .Values.tokenApi.enabled -}}
{{- fail "disableTokenPersistence needs tokenApi.enabled: with tokens in memory only, nothing else gives them out" -}}
{{- end -}}
{{- if gt (.Values.replicas | int) 1 -}}
{{- fail "disableTokenPersistence needs replicas: 1, since each pod would have a memory of its own" -}}
{{- end -}}
{{- if eq (.Values.strategy.type | default "Recreate") "RollingUpdate" -}}
{{- fail "disableTokenPersistence needs strategy.type: Recreate, since two pods would each have a memory of its own" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Ports to which token requests go, as a JSON list; [] means any. */}}
{{- define "operator.issuerPorts" -}}
{{- $urls := list -}}
{{- range list .Values.proxy.https .Values.proxy.http -}}
{{- with . -}}
{{- $usual := ternary "443" "80" (hasPrefix "https:" .) -}}
{{- $host := regexReplaceAll "/.*$" (regexReplaceAll "^.*@" (regexReplaceAll "^https?://" . "") "") "" -}}
{{- $urls = append $urls (regexFind ":[0-9]+$" $host | trimPrefix ":" | default $usual) -}}
{{- end -}}
{{- end -}}
{{- $ports := $urls -}}
{{- $any := false -}}
{{- range .Values.allowedIssuerHosts -}}
{{- if eq . "*" -}}{{- $any = true -}}{{- end -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" (regexReplaceAll "^\\[.*\\]" . "") | trimPrefix ":" | default "443") -}}
{{- end -}}
{{- $ports = ternary list ($ports | uniq | sortAlpha) $any -}}
{{- toJson $ports -}}
{{- end -}}
