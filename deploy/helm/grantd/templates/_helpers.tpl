{{/* Names and labels. A release that is called grantd gives its objects that name; another, RELEASE-grantd. */}}
{{- define "grantd.name" -}}
{{- if contains "grantd" .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-grantd" (.Release.Name | trunc 45 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "grantd.selector" -}}
app.kubernetes.io/name: grantd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "grantd.labels" -}}
{{ include "grantd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "grantd.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* grantd.toml. */}}
{{- define "grantd.toml" -}}
issuer = {{ .Values.issuer | quote }}

{{ .Values.config }}
{{- end }}

{{/* What every pod has: no token of the Kubernetes API, no variables of other services, no root. */}}
{{- define "grantd.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- if not .Values.openshift }}
  runAsUser: 65532
  runAsGroup: 65532
  # Lets the daemon's group read the mounted secrets.
  fsGroup: 65532
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "grantd.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end }}

{{- define "grantd.mounts" -}}
- name: config
  mountPath: /etc/grantd
  readOnly: true
- name: secrets
  mountPath: /run/secrets/grantd
  readOnly: true
- name: database-ca
  mountPath: /run/database-ca
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- end }}

{{/* Secrets are files, not variables: a variable shows in `kubectl describe` and in every child process. */}}
{{- define "grantd.volumes" -}}
- name: secrets
  secret:
    secretName: {{ .Values.existingSecret }}
    defaultMode: 0440
- name: database-ca
  configMap:
    name: {{ .Values.databaseCaConfigMap }}
    optional: true
- name: tmp
  emptyDir:
    medium: Memory
    sizeLimit: 16Mi
{{- end }}
