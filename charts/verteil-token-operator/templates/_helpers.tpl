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
app.kubernetes.io/instance: {{ .Release.Name | quote }}
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
app.kubernetes.io/instance: {{ .Release.Name | quote }}
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

{{/* How an upgrade replaces pods. Always in full, with what the apiserver would fill in: by server-side apply, what nobody
     has written stays when the type becomes Recreate, and is refused beside it. */}}
{{- define "operator.strategy" -}}
{{- if or .Values.disableTokenPersistence (eq (.Values.strategy.type | default "RollingUpdate") "Recreate") -}}
type: Recreate
{{- else -}}
type: RollingUpdate
rollingUpdate:
  maxSurge: {{ dig "rollingUpdate" "maxSurge" "25%" .Values.strategy }}
  maxUnavailable: {{ dig "rollingUpdate" "maxUnavailable" "25%" .Values.strategy }}
{{- end -}}
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
    name: {{ include "operator.serviceAccount" $root | quote }}
    namespace: {{ $root.Release.Namespace | quote }}
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
{{- if or (eq (.Values.strategy.type | default "Recreate") "RollingUpdate") .Values.strategy.rollingUpdate -}}
{{- fail "disableTokenPersistence needs strategy.type: Recreate, since two pods would each have a memory of its own" -}}
{{- end -}}
{{- if not .Values.leaderElection.enabled -}}
{{- fail "disableTokenPersistence needs leaderElection.enabled: a pod whose node is not heard of may still run beside the next" -}}
{{- end -}}
{{- end -}}
{{- if and (eq (.Values.strategy.type | default "RollingUpdate") "Recreate") .Values.strategy.rollingUpdate -}}
{{- fail "strategy.rollingUpdate is for strategy.type: RollingUpdate: take one of the two away" -}}
{{- end -}}
{{- if and (gt (.Values.replicas | int) 1) (not .Values.leaderElection.enabled) -}}
{{- fail "replicas above 1 need leaderElection.enabled, so that one of the pods requests tokens" -}}
{{- end -}}
{{- $instead := "set disableTokenPersistence instead, which also sees to the one pod that there may be" -}}
{{- range .Values.extraEnv -}}
{{- if eq .name "DISABLE_TOKEN_PERSISTENCE" -}}
{{- fail (printf "extraEnv must not name DISABLE_TOKEN_PERSISTENCE: %s" $instead) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraArgs -}}
{{- if hasPrefix "--disable-token-persistence" . -}}
{{- fail (printf "extraArgs must not hold --disable-token-persistence: %s" $instead) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A host for an example, of those that token URLs may name. */}}
{{- define "operator.exampleHost" -}}
{{- $vendor := "api.stage.verteil.com" -}}
{{- $host := first .Values.allowedIssuerHosts -}}
{{- $host = regexReplaceAll "^[*]([.]verteil[.]com)?(:|$)" $host (printf "%s${2}" $vendor) -}}
{{- regexReplaceAll "^[*]" $host "api" -}}
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
