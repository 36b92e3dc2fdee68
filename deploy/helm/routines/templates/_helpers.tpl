{{- define "routines.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "routines.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Labels that never change, by which a program's pods are found: (dict "root" $ "name" "api"). */}}
{{- define "routines.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{- define "routines.labels" -}}
{{ include "routines.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* What every container has: (dict "root" $ "login" "api" "values" .Values.api). */}}
{{- define "routines.environment" -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .login.secret }}
      key: {{ .login.key }}
- name: ROUTINES_LOG_FORMAT
  value: json
{{- range $name, $value := merge (dict) (.env | default dict) .root.Values.config }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
The Deployment of a program.
  root     $
  name     its component: api, ticker, worker or temporal-worker
  command  the `routines` command
  values   its values
  login    the secret with its DATABASE_URL
  keys     whether it gets the encryption keys and the files
  env      more variables
*/}}
{{- define "routines.deployment" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "routines.fullname" .root }}-{{ .name }}
  labels: {{- include "routines.labels" . | nindent 4 }}
spec:
  replicas: {{ .values.replicas }}
  selector:
    matchLabels: {{- include "routines.selector" . | nindent 6 }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  template:
    metadata:
      labels:
        {{- include "routines.labels" . | nindent 8 }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      {{- with $values.serviceAccountName }}
      serviceAccountName: {{ . }}
      {{- end }}
      {{- with $values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext: {{- toYaml $values.podSecurityContext | nindent 8 }}
      terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "routines.selector" . | nindent 14 }}
      containers:
        - name: {{ .name }}
          image: {{ include "routines.image" $root | quote }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          args: [{{ .command }}]
          securityContext: {{- toYaml $values.securityContext | nindent 12 }}
          env:
            {{- include "routines.environment" (dict "root" $root "login" .login "env" .values.env) | nindent 12 }}
            - name: ROUTINES_METRICS_HOST
              value: 0.0.0.0
            - name: ROUTINES_METRICS_PORT
              value: {{ $values.metrics.port | quote }}
            {{- with $values.metrics.token }}
            {{- if .secret }}
            - name: ROUTINES_METRICS_TOKEN
              valueFrom:
                secretKeyRef:
                  name: {{ .secret }}
                  key: {{ .key }}
            {{- end }}
            {{- end }}
            {{- with $values.tracing.endpoint }}
            - name: OTEL_EXPORTER_OTLP_ENDPOINT
              value: {{ . | quote }}
            {{- end }}
            {{- if .keys }}
            {{- include "routines.keysVariable" $root | nindent 12 }}
            - name: ROUTINES_FILES
              value: {{ include "routines.files" $root | quote }}
            {{- end }}
            {{- range $name, $value := .env }}
            - name: {{ $name }}
              value: {{ $value | quote }}
            {{- end }}
            {{- if eq .name "temporal-worker" }}
            {{- with $values.temporal.apiKey }}
            {{- if .secret }}
            - name: ROUTINES_TEMPORAL_API_KEY
              valueFrom:
                secretKeyRef:
                  name: {{ .secret }}
                  key: {{ .key }}
            {{- end }}
            {{- end }}
            {{- end }}
          ports:
            {{- if eq .name "api" }}
            - name: http
              containerPort: 8080
            {{- end }}
            - name: metrics
              containerPort: {{ $values.metrics.port }}
          {{- if eq .name "api" }}
          startupProbe:
            httpGet: {path: /livez, port: http}
            periodSeconds: 2
            failureThreshold: 30
          livenessProbe:
            httpGet: {path: /livez, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          readinessProbe:
            httpGet: {path: /readyz, port: http}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 2
          {{- else }}
          # /health fails while the database is away, which a restart does not mend. So only a long failure restarts the pod.
          livenessProbe:
            httpGet: {path: /health, port: metrics}
            periodSeconds: 30
            timeoutSeconds: 5
            failureThreshold: 20
          readinessProbe:
            httpGet: {path: /health, port: metrics}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 3
          {{- end }}
          {{- if .values.preStopSeconds }}
          lifecycle:
            preStop:
              exec: {command: [sleep, {{ .values.preStopSeconds | quote }}]}
          {{- end }}
          resources: {{- toYaml .values.resources | nindent 12 }}
          volumeMounts:
            - name: tmp
              mountPath: /tmp
            {{- if .keys }}
            - name: keys
              mountPath: /run/routines/keys
              readOnly: true
            {{- if $values.files.existingClaim }}
            - name: files
              mountPath: /files
            {{- end }}
            {{- end }}
      volumes:
        - name: tmp
          emptyDir: {}
        {{- if .keys }}
        {{- include "routines.keysVolume" $root | nindent 8 }}
        {{- with $values.files.existingClaim }}
        - name: files
          persistentVolumeClaim:
            claimName: {{ . }}
        {{- end }}
        {{- end }}
      {{- with .values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{- define "routines.files" -}}
{{- if and .Values.files.url .Values.files.existingClaim -}}
{{- fail "Set one of files.url and files.existingClaim." -}}
{{- end -}}
{{- if .Values.files.existingClaim -}}
/files
{{- else -}}
{{- required "Set files.url (s3://bucket/prefix) or files.existingClaim: API and workers need one place for files." .Values.files.url -}}
{{- end -}}
{{- end -}}

{{- define "routines.keysVariable" -}}
- name: ROUTINES_ENCRYPTION_KEYS_FILE
  value: /run/routines/keys/{{ .Values.encryptionKeys.key }}
{{- end -}}

{{/* Kubernetes adds the right to read for fsGroup, so only the program and root can read it. */}}
{{- define "routines.keysVolume" -}}
- name: keys
  secret:
    secretName: {{ .Values.encryptionKeys.secret }}
    defaultMode: 0400
    items:
      - key: {{ .Values.encryptionKeys.key }}
        path: {{ .Values.encryptionKeys.key }}
{{- end -}}
