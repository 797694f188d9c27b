package core_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func pod() *corev1.Pod {
	return &corev1.Pod{Metadata: kindtest.Meta("web"), Spec: &corev1.PodSpec{
		Containers: []*corev1.Container{{Name: "web", Image: "web:1"}},
	}}
}

// first edits the first container.
func first(edit func(*corev1.Container)) func(*corev1.Pod) {
	return func(p *corev1.Pod) { edit(p.Spec.Containers[0]) }
}

func probe(h *corev1.ProbeHandler) *corev1.Probe { return &corev1.Probe{Handler: h} }

func tcp(port *metav1.IntOrString) *corev1.ProbeHandler {
	return &corev1.ProbeHandler{TcpSocket: &corev1.TCPSocketAction{Port: port}}
}

func TestPodContainers(t *testing.T) {
	const at = "spec.containers[0]."
	kindtest.Validate(t, pod, []kindtest.Bad[*corev1.Pod]{
		{Name: "no spec", Edit: func(p *corev1.Pod) { p.Spec = nil }, Want: []string{"spec.containers: Required value"}},
		{Name: "no name or image", Edit: first(func(c *corev1.Container) { c.Name, c.Image = "", "" }), Want: []string{at + "name: Required value", at + "image: Required value"}},
		{Name: "bad name", Edit: first(func(c *corev1.Container) { c.Name = "Web_1" }), Want: []string{at + `name: Invalid value: "Web_1": a lowercase RFC 1123 label`}},
		{Name: "same names", Edit: func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, &corev1.Container{Name: "web", Image: "x"})
		}, Want: []string{`spec.containers[1].name: Duplicate value: "web"`}},
		{Name: "image with a blank", Edit: first(func(c *corev1.Container) { c.Image = " web" }), Want: []string{at + `image: Invalid value: " web"`}},
		{Name: "pull policy", Edit: first(func(c *corev1.Container) { c.ImagePullPolicy = "Sometimes" }), Want: []string{at + `imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"`}},
		{Name: "port 0", Edit: first(func(c *corev1.Container) { c.Ports = []*corev1.ContainerPort{{}} }), Want: []string{at + "ports[0].containerPort: Required value"}},
		{Name: "port 65536", Edit: first(func(c *corev1.Container) { c.Ports = []*corev1.ContainerPort{{ContainerPort: 65536}} }), Want: []string{at + "ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive"}},
		{Name: "ports", Edit: first(func(c *corev1.Container) {
			c.Ports = []*corev1.ContainerPort{
				{Name: "Http", ContainerPort: 80}, {Name: "http", ContainerPort: 81, Protocol: "SCTP"}, {Name: "http", ContainerPort: 82, HostPort: -1},
				{ContainerPort: 80, Protocol: "tcp"},
			}
		}), Want: []string{
			at + `ports[0].name: Invalid value: "Http"`, at + `ports[1].protocol: Unsupported value: "SCTP": the datapath carries TCP and UDP only`,
			at + `ports[2].name: Duplicate value: "http"`, at + "ports[2].hostPort: Invalid value: -1", at + `ports[3].protocol: Unsupported value: "tcp"`,
		}},
		{Name: "same host port", Edit: first(func(c *corev1.Container) {
			c.Ports = []*corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}, {ContainerPort: 81, HostPort: 8080}}
		}), Want: []string{at + `ports[1].hostPort: Duplicate value: "TCP//8080"`}},
		{Name: "host network", Edit: func(p *corev1.Pod) {
			p.Spec.HostNetwork = true
			p.Spec.Containers[0].Ports = []*corev1.ContainerPort{{ContainerPort: 80}, {ContainerPort: 81, HostPort: 82}}
		}, Want: []string{at + "ports[1].hostPort: Invalid value: 82: must match `containerPort` when `hostNetwork` is true"}},
		{Name: "env", Edit: first(func(c *corev1.Container) {
			c.Env = []*corev1.EnvVar{
				{}, {Name: "A=B"}, {Name: "A", Value: "x", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
				{Name: "B", ValueFrom: &corev1.EnvVarSource{}},
				{Name: "C", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.image"}}},
				{Name: "D", ValueFrom: &corev1.EnvVarSource{
					ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: &corev1.LocalObjectReference{Name: "m"}, Key: "k"},
					SecretKeyRef:    &corev1.SecretKeySelector{},
				}},
				{Name: "E", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['app']"}}},
				{Name: "F", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
				{Name: "G", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "cpu"}}},
			}
		}), Want: []string{
			at + "env[0].name: Required value", at + `env[1].name: Invalid value: "A=B"`,
			at + "env[2].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
			at + `env[3].valueFrom: Invalid value: "": must specify one of`,
			at + `env[4].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.image"`,
			at + `env[5].valueFrom: Invalid value: "": may not have more than one field specified at a time`,
			at + "env[5].valueFrom.secretKeyRef.name: Required value", at + "env[5].valueFrom.secretKeyRef.key: Required value",
			at + `env[8].valueFrom.resourceFieldRef.resource: Unsupported value: "cpu"`,
		}},
		{Name: "envFrom", Edit: first(func(c *corev1.Container) {
			c.EnvFrom = []*corev1.EnvFromSource{{}, {ConfigMapRef: &corev1.ConfigMapEnvSource{}}, {
				Prefix: "P_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: &corev1.LocalObjectReference{Name: "s"}}}}
		}), Want: []string{at + `envFrom[0]: Invalid value: "": must specify one of`, at + "envFrom[1].configMapRef.name: Required value"}},
		{Name: "mounts", Edit: func(p *corev1.Pod) {
			p.Spec.Volumes = []*corev1.Volume{{Name: "data"}}
			p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{
				{Name: "data", MountPath: "/data"}, {Name: "data", MountPath: "/data"}, {Name: "date", MountPath: "/x"}, {Name: "data"},
				{Name: "data", MountPath: "/y", SubPath: "a/../../b"}, {Name: "data", MountPath: "/z", SubPath: "/etc"},
			}
		}, Want: []string{
			at + `volumeMounts[1].mountPath: Invalid value: "/data": must be unique`, at + `volumeMounts[2].name: Not found: "date"`,
			at + "volumeMounts[3].mountPath: Required value", at + `volumeMounts[4].subPath: Invalid value: "a/../../b": must not contain '..'`,
			at + `volumeMounts[5].subPath: Invalid value: "/etc": must be a relative path`,
		}},
		{Name: "mount options", Edit: func(p *corev1.Pod) {
			p.Spec.Volumes = []*corev1.Volume{{Name: "data"}}
			p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{
				{Name: "data", MountPath: "/a", RecursiveReadOnly: proto.String("Enabled"), ReadOnly: true, BindMountOptions: []string{"noexec", "nodev"}},
				{Name: "data", MountPath: "/b", RecursiveReadOnly: proto.String("Disabled"), MountPropagation: proto.String("HostToContainer")},
				{Name: "data", MountPath: "/c", RecursiveReadOnly: proto.String("IfPossible"), MountPropagation: proto.String("HostToContainer")},
				{Name: "data", MountPath: "/d", RecursiveReadOnly: proto.String("Maybe"), BindMountOptions: []string{"exec", "nosuid", "nosuid"}},
			}
		}, Want: []string{
			at + "volumeMounts[2].recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
			at + "volumeMounts[2].recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified",
			at + `volumeMounts[3].recursiveReadOnly: Unsupported value: "Maybe": supported values: "Disabled", "Enabled", "IfPossible"`,
			at + `volumeMounts[3].bindMountOptions[0]: Unsupported value: "exec": supported values: "noexec", "nodev", "nosuid"`,
			at + `volumeMounts[3].bindMountOptions[2]: Duplicate value: "nosuid"`,
		}},
		{Name: "restart rules", Edit: first(func(c *corev1.Container) {
			c.RestartPolicyRules = []*corev1.ContainerRestartRule{
				{Action: "Restart", ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: "In", Values: []int32{42, 0}}}, {Action: "Stop"},
				{Action: "RestartAllContainers", ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: "In", Values: []int32{88}}},
				{Action: "Restart", ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: "Exists", Values: []int32{256, 1, 1}}},
				{Action: "Restart", ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: "NotIn"}},
			}
		}), Want: []string{
			at + "restartPolicy: Required value: must be specified when `restartPolicyRules` are",
			at + `restartPolicyRules[1].action: Unsupported value: "Stop": supported values: "Restart", "RestartAllContainers"`, at + "restartPolicyRules[1].exitCodes: Required value: must be specified",
			at + `restartPolicyRules[3].exitCodes.operator: Unsupported value: "Exists": supported values: "In", "NotIn"`,
			at + "restartPolicyRules[3].exitCodes.values[0]: Invalid value: 256: must be between 0 and 255, inclusive",
			at + "restartPolicyRules[3].exitCodes.values[2]: Duplicate value: 1", at + "restartPolicyRules[4].exitCodes.values: Required value: at least one exit code must be specified",
		}},
		{Name: "too many restart rules", Edit: first(func(c *corev1.Container) {
			c.RestartPolicy = proto.String("Never")
			for range 21 {
				c.RestartPolicyRules = append(c.RestartPolicyRules, &corev1.ContainerRestartRule{
					Action: "Restart", ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: "In", Values: []int32{1}}})
			}
		}), Want: []string{at + "restartPolicyRules: Too many: 21: must have at most 20 items"}},
		{Name: "volumes", Edit: func(p *corev1.Pod) {
			p.Spec.Volumes = []*corev1.Volume{
				{}, {Name: "a"}, {Name: "a"},
				{Name: "b", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Tape"}, HostPath: &corev1.HostPathVolumeSource{Path: "/"}}},
				{Name: "c", VolumeSource: &corev1.VolumeSource{Nfs: &corev1.NFSVolumeSource{Server: "x", Path: "/"}}},
				{Name: "d", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Tape"}}},
			}
		}, Want: []string{
			"spec.volumes[0].name: Required value", `spec.volumes[2].name: Duplicate value: "a"`,
			"spec.volumes[3].emptyDir: Forbidden: may not specify more than 1 volume type", `spec.volumes[3].emptyDir.medium: Unsupported value: "Tape"`,
			`spec.volumes[4].nfs: Unsupported value: "nfs": nfs volumes are not mounted yet`,
			`spec.volumes[5].emptyDir.medium: Unsupported value: "Tape"`,
		}},
		{Name: "files", Edit: func(p *corev1.Pod) {
			p.Spec.Volumes = []*corev1.Volume{
				{Name: "a", VolumeSource: &corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{Items: []*corev1.KeyToPath{{Path: "../x", Mode: proto.Int32(-1)}}}}},
				{Name: "b", VolumeSource: &corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{DefaultMode: proto.Int32(0o1000)}}},
				{Name: "c", VolumeSource: &corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/a/../b", Type: proto.String("Tape")}}},
			}
		}, Want: []string{
			"spec.volumes[0].configMap.name: Required value", "spec.volumes[0].configMap.items[0].key: Required value",
			`spec.volumes[0].configMap.items[0].path: Invalid value: "../x": must not contain '..'`, "spec.volumes[0].configMap.items[0].mode: Invalid value: -1",
			"spec.volumes[1].secret.secretName: Required value", "spec.volumes[1].secret.defaultMode: Invalid value: 512",
			`spec.volumes[2].hostPath.path: Invalid value: "/a/../b"`, `spec.volumes[2].hostPath.type: Unsupported value: "Tape"`,
		}},
		{Name: "projected volumes", Edit: func(p *corev1.Pod) {
			field := func(name string) *corev1.ObjectFieldSelector { return &corev1.ObjectFieldSelector{FieldPath: name} }
			p.Spec.Volumes = []*corev1.Volume{
				{Name: "a", VolumeSource: &corev1.VolumeSource{DownwardApi: &corev1.DownwardAPIVolumeSource{DefaultMode: proto.Int32(0o1000), Items: []*corev1.DownwardAPIVolumeFile{
					{Path: "ok", FieldRef: field("metadata.labels['a']")}, {FieldRef: field("metadata.name")}, {Path: "/x", FieldRef: field("spec.nodeName")},
					{Path: "x"}, {Path: "y", ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.disk"}},
				}}}},
				{Name: "b", VolumeSource: &corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []*corev1.VolumeProjection{
					{}, {ConfigMap: &corev1.ConfigMapProjection{}}, {Secret: &corev1.SecretProjection{LocalObjectReference: &corev1.LocalObjectReference{Name: "s"}, Items: []*corev1.KeyToPath{{Path: "k"}}}},
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "../token", ExpirationSeconds: proto.Int64(599)}},
				}}}},
			}
			p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{{Name: "a", MountPath: "/a", SubPathExpr: "$(X)/../b"}}
		}, Want: []string{
			"spec.volumes[0].downwardAPI.defaultMode: Invalid value: 512", "spec.volumes[0].downwardAPI.items[1].path: Required value",
			`spec.volumes[0].downwardAPI.items[2].path: Invalid value: "/x": must be a relative path`,
			`spec.volumes[0].downwardAPI.items[2].fieldRef.fieldPath: Unsupported value: "spec.nodeName"`,
			"spec.volumes[0].downwardAPI.items[3]: Required value", "spec.volumes[0].downwardAPI.items[4].resourceFieldRef.containerName: Required value",
			`spec.volumes[0].downwardAPI.items[4].resourceFieldRef.resource: Unsupported value: "limits.disk"`,
			"spec.volumes[1].projected.sources[0]: Required value", "spec.volumes[1].projected.sources[1].configMap.name: Required value",
			"spec.volumes[1].projected.sources[2].secret.items[0].key: Required value",
			`spec.volumes[1].projected.sources[3].serviceAccountToken.path: Invalid value: "../token": must not contain '..'`,
			"spec.volumes[1].projected.sources[3].serviceAccountToken.expirationSeconds: Invalid value: 599",
			at + `volumeMounts[0].subPathExpr: Invalid value: "$(X)/../b": must not contain '..'`,
		}},
		{Name: "resources", Edit: first(func(c *corev1.Container) {
			c.Resources = &corev1.ResourceRequirements{
				Limits:   kindtest.Amounts("cpu", "500m", "memory", "64Mi", "example.com/gpu", "1"),
				Requests: kindtest.Amounts("cpu", "1", "memory", "-1", "disk", "1", "example.com/gpu", "2"),
			}
		}), Want: []string{
			at + `resources.requests[disk]: Invalid value: "disk": must be a standard resource type or fully qualified`,
			at + `resources.requests[disk]: Invalid value: "disk": must be a standard resource for containers`,
			at + `resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0`,
			at + `resources.requests: Invalid value: "1": must be less than or equal to cpu limit of 500m`,
			at + `resources.requests: Invalid value: "2": must be less than or equal to example.com/gpu limit of 1`,
		}},
		{Name: "quantity", Edit: first(func(c *corev1.Container) {
			c.Resources = &corev1.ResourceRequirements{Limits: kindtest.Amounts("cpu", "much")}
		}),
			Want: []string{at + `resources.limits[cpu]: Invalid value: "much": quantities must match`, at + `resources.requests[cpu]: Invalid value: "much"`}},
		{Name: "probes", Edit: first(func(c *corev1.Container) {
			c.LivenessProbe = probe(nil)
			c.ReadinessProbe = probe(tcp(object.Count(0)))
			c.ReadinessProbe.SuccessThreshold, c.ReadinessProbe.PeriodSeconds = 3, -1
			c.StartupProbe = probe(tcp(object.Text("http")))
			c.StartupProbe.SuccessThreshold = 2
		}), Want: []string{
			at + "livenessProbe: Required value: must specify a handler type", at + "readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535",
			at + "readinessProbe.periodSeconds: Invalid value: -1", at + "startupProbe.successThreshold: Invalid value: 2: must be 1",
		}},
		{Name: "two handlers", Edit: first(func(c *corev1.Container) {
			h := tcp(object.Count(80))
			h.Exec = &corev1.ExecAction{}
			c.LivenessProbe = probe(h)
		}), Want: []string{at + "livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type", at + "livenessProbe.exec.command: Required value"}},
		{Name: "http probe", Edit: first(func(c *corev1.Container) {
			c.LivenessProbe = probe(&corev1.ProbeHandler{HttpGet: &corev1.HTTPGetAction{Scheme: "ftp", HttpHeaders: []*corev1.HTTPHeader{{Name: "a b"}}}})
		}), Want: []string{at + "livenessProbe.httpGet.port: Invalid value: 0", at + `livenessProbe.httpGet.scheme: Unsupported value: "ftp"`, at + `livenessProbe.httpGet.httpHeaders[0].name: Invalid value: "a b"`}},
		{Name: "gRPC probe", Edit: first(func(c *corev1.Container) {
			c.LivenessProbe = probe(&corev1.ProbeHandler{Grpc: &corev1.GRPCAction{Port: 65536}})
		}), Want: []string{at + "livenessProbe.grpc.port: Invalid value: 65536"}},
		{Name: "hooks", Edit: first(func(c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{}, PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
		}), Want: []string{at + "lifecycle.preStop: Required value: must specify a handler type"}},
		{Name: "init containers", Edit: func(p *corev1.Pod) {
			p.Spec.InitContainers = []*corev1.Container{{Name: "web", Image: "x", LivenessProbe: probe(tcp(object.Count(1)))}}
		}, Want: []string{
			`spec.initContainers[0].name: Duplicate value: "web"`,
			"spec.initContainers[0].livenessProbe: Forbidden",
		}},
		{Name: "security", Edit: first(func(c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{RunAsUser: proto.Int64(-1), Privileged: proto.Bool(true), AllowPrivilegeEscalation: proto.Bool(false)}
		}), Want: []string{at + "securityContext.runAsUser: Invalid value: -1", at + "securityContext: Invalid value: \"\": cannot set `allowPrivilegeEscalation` to false"}},
	})
}

func TestPodSpec(t *testing.T) {
	kindtest.Validate(t, pod, []kindtest.Bad[*corev1.Pod]{
		{Name: "no containers", Edit: func(p *corev1.Pod) { p.Spec.Containers = nil }, Want: []string{"spec.containers: Required value"}},
		{Name: "policies", Edit: func(p *corev1.Pod) { p.Spec.RestartPolicy, p.Spec.DnsPolicy = "Maybe", "Magic" },
			Want: []string{`spec.restartPolicy: Unsupported value: "Maybe": supported values: "Always", "OnFailure", "Never"`, `spec.dnsPolicy: Unsupported value: "Magic"`}},
		{Name: "grace", Edit: func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = proto.Int64(-1) },
			Want: []string{"spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0"}},
		{Name: "deadline", Edit: func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = proto.Int64(0) }, Want: []string{"spec.activeDeadlineSeconds: Invalid value: 0"}},
		{Name: "node selector", Edit: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a b": ""} }, Want: []string{`spec.nodeSelector: Invalid value: "a b"`}},
		{Name: "tolerations", Edit: func(p *corev1.Pod) {
			p.Spec.Tolerations = []*corev1.Toleration{
				{Operator: "Exists"}, {Value: "x"}, {Key: "a", Operator: "Exists", Value: "x"}, {Key: "a", Operator: "In"},
				{Key: "a", Effect: "NoSchedule", TolerationSeconds: proto.Int64(1)}, {Key: "a", Effect: "Never"},
			}
		}, Want: []string{
			"spec.tolerations[1].operator: Invalid value", "spec.tolerations[2].operator: Invalid value", `spec.tolerations[3].operator: Unsupported value: "In"`,
			"spec.tolerations[4].effect: Invalid value", `spec.tolerations[5].effect: Unsupported value: "Never"`,
		}},
		{Name: "affinity", Edit: func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{
				NodeAffinity: &corev1.NodeAffinity{
					RequiredDuringSchedulingIgnoredDuringExecution:  &corev1.NodeSelector{},
					PreferredDuringSchedulingIgnoredDuringExecution: []*corev1.PreferredSchedulingTerm{{Weight: 101}},
				},
				PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []*corev1.PodAffinityTerm{{}}},
			}
		}, Want: []string{
			"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value",
			"spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101",
			"spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value",
		}},
		{Name: "values that no label has, in a required and in a preferred term", Edit: func(p *corev1.Pod) {
			term := &corev1.NodeSelectorTerm{MatchExpressions: []*corev1.NodeSelectorRequirement{{Key: "a", Operator: "In", Values: []string{"b", "10.0.0.1/8"}}}}
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution:  &corev1.NodeSelector{NodeSelectorTerms: []*corev1.NodeSelectorTerm{term}},
				PreferredDuringSchedulingIgnoredDuringExecution: []*corev1.PreferredSchedulingTerm{{Weight: 1, Preference: term}},
			}}
		}, Want: []string{
			`spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values[1]: Invalid value: "10.0.0.1/8"`,
		}},
		{Name: "spread", Edit: func(p *corev1.Pod) {
			p.Spec.TopologySpreadConstraints = []*corev1.TopologySpreadConstraint{{MinDomains: proto.Int32(1), WhenUnsatisfiable: "ScheduleAnyway"}}
		}, Want: []string{
			"spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0", "spec.topologySpreadConstraints[0].topologyKey: Required value",
			"spec.topologySpreadConstraints[0].minDomains: Invalid value: 1",
		}},
		{Name: "keys of labels that the selector has twice", Edit: func(p *corev1.Pod) {
			twice := &metav1.LabelSelector{
				MatchLabels:      map[string]string{"app": "a"},
				MatchExpressions: []*metav1.LabelSelectorRequirement{{Key: "app", Operator: "Exists"}},
			}
			p.Spec.TopologySpreadConstraints = []*corev1.TopologySpreadConstraint{
				{TopologyKey: "zone", MaxSkew: 1, WhenUnsatisfiable: "ScheduleAnyway", LabelSelector: twice, MatchLabelKeys: []string{"rev", "app"}},
			}
			p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []*corev1.PodAffinityTerm{
				{TopologyKey: "zone", LabelSelector: twice, MatchLabelKeys: []string{"app"}},
				{TopologyKey: "zone", LabelSelector: twice, MatchLabelKeys: []string{"rev"}, MismatchLabelKeys: []string{"app"}},
			}}}
		}, Want: []string{
			`spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0][0]: Invalid value: "app": exists in both matchLabelKeys and labelSelector`,
			`spec.topologySpreadConstraints[0][1]: Invalid value: "app": exists in both matchLabelKeys and labelSelector`,
		}},
		{Name: "DNS", Edit: func(p *corev1.Pod) {
			p.Spec.DnsPolicy = "None"
			p.Spec.DnsConfig = &corev1.PodDNSConfig{Searches: []string{"a..b", "."}}
		}, Want: []string{"spec.dnsConfig.nameservers: Required value", `spec.dnsConfig.searches[0]: Invalid value: "a..b"`}},
		{Name: "names", Edit: func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "a.b", strings.Repeat("a", 64) },
			Want: []string{`spec.hostname: Invalid value: "a.b"`, `spec.subdomain: Invalid value: "aaa`}},
		{Name: "gates", Edit: func(p *corev1.Pod) {
			p.Spec.NodeName, p.Spec.SchedulingGates = "node-1", []*corev1.PodSchedulingGate{{Name: "a.b/c"}, {Name: "a.b/c"}}
		}, Want: []string{`spec.schedulingGates[1].name: Duplicate value: "a.b/c"`, "spec.nodeName: Forbidden"}},
		{Name: "ephemeral", Edit: func(p *corev1.Pod) { p.Spec.EphemeralContainers = []*corev1.EphemeralContainer{{}} }, Want: []string{"spec.ephemeralContainers[0].name: Required value", "spec.ephemeralContainers[0].image: Required value"}},
		{Name: "windows", Edit: func(p *corev1.Pod) { p.Spec.Os = &corev1.PodOS{Name: "windows"} }, Want: []string{`spec.os.name: Unsupported value: "windows": nodes run Linux`}},
		{Name: "security", Edit: func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{
				SeccompProfile: &corev1.SeccompProfile{Type: "runtimeDefault"}, AppArmorProfile: &corev1.AppArmorProfile{Type: "unconfined"},
				SupplementalGroupsPolicy: proto.String("strict"), FsGroupChangePolicy: proto.String("always"),
				Sysctls: []*corev1.Sysctl{{Name: "Kernel.x", Value: "1"}, {Name: "net/ipv4/ip_local_port_range", Value: "1"}},
			}
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ProcMount: proto.String("unmasked"), AppArmorProfile: &corev1.AppArmorProfile{Type: "Localhost", LocalhostProfile: proto.String(" x")}}
		}, Want: []string{
			`spec.containers[0].securityContext.procMount: Unsupported value: "unmasked"`, `spec.containers[0].securityContext.appArmorProfile.localhostProfile: Invalid value: " x": must not be padded with whitespace`,
			`spec.securityContext.fsGroupChangePolicy: Unsupported value: "always"`, `spec.securityContext.sysctls[0].name: Invalid value: "Kernel.x": must have at most 253 characters`,
			`spec.securityContext.supplementalGroupsPolicy: Unsupported value: "strict": supported values: "Merge", "Strict"`, `spec.securityContext.seccompProfile.type: Unsupported value: "runtimeDefault"`,
			`spec.securityContext.appArmorProfile.type: Unsupported value: "unconfined": supported values: "Localhost", "RuntimeDefault", "Unconfined"`,
		}},
		{Name: "AppArmor profiles", Edit: func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: "Localhost"}}
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: "RuntimeDefault", LocalhostProfile: proto.String("x")}}
		}, Want: []string{
			`spec.containers[0].securityContext.appArmorProfile.localhostProfile: Invalid value: "x": can only be set when AppArmor type is Localhost`,
			"spec.securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost",
		}},
		{Name: "the node's kernel parameters", Edit: func(p *corev1.Pod) {
			p.Spec.HostNetwork, p.Spec.HostIpc = true, true
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []*corev1.Sysctl{{Name: "net.ipv4.ping_group_range"}, {Name: "kernel/shm_rmid_forced"}, {Name: "vm.swappiness"}}}
		}, Want: []string{
			`spec.securityContext.sysctls[0].name: Invalid value: "net.ipv4.ping_group_range": may not be specified when 'hostNetwork' is true`,
			`spec.securityContext.sysctls[1].name: Invalid value: "kernel/shm_rmid_forced": may not be specified when 'hostIPC' is true`,
		}},
		{Name: "settings for windows", Edit: func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{}}
		}, Want: nil},
		{Name: "settings for windows on linux", Edit: func(p *corev1.Pod) {
			p.Spec.Os = &corev1.PodOS{Name: "linux"}
			p.Spec.SecurityContext = &corev1.PodSecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{}}
			p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{}}
		}, Want: []string{"spec.securityContext.windowsOptions: Forbidden", "spec.containers[0].securityContext.windowsOptions: Forbidden"}},
	})
}

func TestPodDefaults(t *testing.T) {
	p := pod()
	c := p.Spec.Containers[0]
	c.Ports = []*corev1.ContainerPort{{ContainerPort: 80}}
	c.Resources = &corev1.ResourceRequirements{Limits: kindtest.Amounts("cpu", "1", "memory", "64Mi"), Requests: kindtest.Amounts("cpu", "500m")}
	c.ReadinessProbe = probe(&corev1.ProbeHandler{HttpGet: &corev1.HTTPGetAction{Port: object.Count(80)}})
	item := func() []*corev1.DownwardAPIVolumeFile {
		return []*corev1.DownwardAPIVolumeFile{{Path: "cpu", ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}}
	}
	volume, source := &corev1.DownwardAPIVolumeSource{Items: item()}, &corev1.DownwardAPIProjection{Items: item()}
	p.Spec.Volumes = []*corev1.Volume{
		{Name: "scratch"},
		{Name: "about", VolumeSource: &corev1.VolumeSource{DownwardApi: volume}},
		{Name: "all", VolumeSource: &corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []*corev1.VolumeProjection{{DownwardApi: source}},
		}}},
	}
	kinds.Of(p).Default(p)

	s := p.GetSpec()
	if s.GetRestartPolicy() != "Always" || s.GetDnsPolicy() != "ClusterFirst" || s.GetSchedulerName() != "default-scheduler" ||
		s.GetTerminationGracePeriodSeconds() != 30 || !s.GetEnableServiceLinks() || s.GetServiceAccountName() != "default" || s.GetSecurityContext() == nil {
		t.Errorf("spec %v", s)
	}
	if len(s.GetTolerations()) != 0 {
		t.Errorf("tolerations %v", s.GetTolerations())
	}
	if c.GetPorts()[0].GetProtocol() != "TCP" || c.GetPorts()[0].GetHostPort() != 0 || c.GetTerminationMessagePath() != "/dev/termination-log" || c.GetTerminationMessagePolicy() != "File" {
		t.Errorf("container %v", c)
	}
	if got := c.GetResources().GetRequests(); got["cpu"].GetString_() != "500m" || got["memory"].GetString_() != "64Mi" {
		t.Errorf("requests %v", got)
	}
	if r := c.GetReadinessProbe(); r.GetTimeoutSeconds() != 1 || r.GetPeriodSeconds() != 10 || r.GetSuccessThreshold() != 1 || r.GetFailureThreshold() != 3 ||
		r.GetHandler().GetHttpGet().GetPath() != "/" || r.GetHandler().GetHttpGet().GetScheme() != "HTTP" {
		t.Errorf("probe %v", r)
	}
	if s.GetVolumes()[0].GetVolumeSource().GetEmptyDir() == nil {
		t.Errorf("volume %v", s.GetVolumes()[0])
	}
	for _, i := range slices.Concat(volume.GetItems(), source.GetItems()) {
		if i.GetResourceFieldRef().GetDivisor().GetString_() != "0" {
			t.Errorf("item %v", i)
		}
	}
}

func TestImagePullPolicy(t *testing.T) {
	for image, want := range map[string]string{
		"web": "Always", "Not A Name": "IfNotPresent", "web:latest": "Always", "web:1": "IfNotPresent", "localhost:5000/web": "Always", "localhost:5000/web:2": "IfNotPresent",
		"web@sha256:" + strings.Repeat("0", 64): "IfNotPresent", "web:latest@sha256:" + strings.Repeat("0", 64): "Always",
	} {
		p := pod()
		p.Spec.Containers[0].Image = image
		kinds.Of(p).Default(p)
		if got := p.Spec.Containers[0].GetImagePullPolicy(); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
}

func TestPodCreate(t *testing.T) {
	tests := []struct {
		name             string
		limits, requests map[string]*metav1.Quantity
		want             string
	}{
		{"nothing", nil, nil, "BestEffort"},
		{"limits", kindtest.Amounts("cpu", "1", "memory", "1Gi"), nil, "Guaranteed"},
		{"equal", kindtest.Amounts("cpu", "1", "memory", "1Gi"), kindtest.Amounts("cpu", "1000m", "memory", "1024Mi"), "Guaranteed"},
		{"less", kindtest.Amounts("cpu", "1", "memory", "1Gi"), kindtest.Amounts("cpu", "500m"), "Burstable"},
		{"one", kindtest.Amounts("cpu", "1"), nil, "Burstable"},
		{"requests", nil, kindtest.Amounts("memory", "1Gi"), "Burstable"},
		{"zero", nil, kindtest.Amounts("cpu", "0"), "BestEffort"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pod()
			p.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Limits: tt.limits, Requests: tt.requests}
			p.Status = &corev1.PodStatus{Phase: "Running", PodIp: "1.2.3.4"}
			k := kinds.Of(p)
			k.PrepareCreate(p)
			k.Default(p)
			want := &corev1.PodStatus{Phase: "Pending", QosClass: tt.want}
			if !proto.Equal(p.GetStatus(), want) {
				t.Errorf("status %v, want %v", p.GetStatus(), want)
			}
		})
	}
}

func TestPodUpdate(t *testing.T) {
	base := func() *corev1.Pod {
		p := pod()
		p.Spec.NodeName = "node-1"
		p.Spec.ActiveDeadlineSeconds = proto.Int64(60)
		p.Spec.Tolerations = []*corev1.Toleration{{Key: "a", Operator: "Exists", Effect: "NoExecute", TolerationSeconds: proto.Int64(30)}}
		return p
	}
	kindtest.Update(t, base, []kindtest.Edit[*corev1.Pod]{
		{Name: "nothing", Edit: func(*corev1.Pod) {}, Want: nil},
		{Name: "image", Edit: first(func(c *corev1.Container) { c.Image = "web:2" }), Want: nil},
		{Name: "more tolerations", Edit: func(p *corev1.Pod) { p.Spec.Tolerations = append(p.Spec.Tolerations, &corev1.Toleration{Key: "b"}) }, Want: nil},
		{Name: "toleration seconds", Edit: func(p *corev1.Pod) { p.Spec.Tolerations[0].TolerationSeconds = proto.Int64(5) }, Want: nil},
		{Name: "fewer tolerations", Edit: func(p *corev1.Pod) { p.Spec.Tolerations = nil }, Want: []string{"spec.tolerations: Forbidden: existing toleration at index 0"}},
		{Name: "shorter deadline", Edit: func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = proto.Int64(5) }, Want: nil},
		{Name: "longer deadline", Edit: func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = proto.Int64(600) }, Want: []string{"spec.activeDeadlineSeconds: Invalid value: 600"}},
		{Name: "no deadline", Edit: func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = nil }, Want: []string{"spec.activeDeadlineSeconds: Invalid value: 60"}},
		{Name: "other node", Edit: func(p *corev1.Pod) { p.Spec.NodeName = "node-2" }, Want: []string{"spec: Forbidden: pod updates may not change fields other than"}},
		{Name: "env", Edit: first(func(c *corev1.Container) { c.Env = []*corev1.EnvVar{{Name: "A"}} }), Want: []string{"spec: Forbidden: pod updates may not change fields other than"}},
		{Name: "more containers", Edit: func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, &corev1.Container{Name: "b", Image: "b:1"})
		}, Want: []string{"spec.containers: Forbidden: pod updates may not add or remove containers"}},
		{Name: "new gate", Edit: func(p *corev1.Pod) { p.Spec.SchedulingGates = []*corev1.PodSchedulingGate{{Name: "a.b/c"}} }, Want: []string{"spec.schedulingGates[0]: Forbidden"}},
	})

	old, updated := base(), base()
	updated.Spec.Containers[0].Args = []string{"x"}
	errs := kinds.Of(old).ValidateUpdate(updated, old)
	if len(errs) != 1 || !strings.HasSuffix(errs[0].Detail, ": differs in spec.containers[0].args") {
		t.Errorf("the error does not say what differs: %v", errs)
	}
	old.Spec.Volumes = []*corev1.Volume{{Name: "a", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	updated = proto.CloneOf(old)
	updated.Spec.Volumes[0].VolumeSource.EmptyDir.Medium = "Memory"
	errs = kinds.Of(old).ValidateUpdate(updated, old)
	if len(errs) != 1 || !strings.HasSuffix(errs[0].Detail, ": differs in spec.volumes[0].emptyDir.medium") {
		t.Errorf("another volume: %v", errs)
	}

	gated := pod()
	gated.Spec.SchedulingGates = []*corev1.PodSchedulingGate{{Name: "a.b/c"}}
	free := proto.CloneOf(gated)
	free.Spec.SchedulingGates, free.Spec.NodeSelector = nil, map[string]string{"disk": "ssd"}
	kindtest.Expect(t, kinds.Of(free).ValidateUpdate(free, gated), nil)
}

// TestPodResize changes the resources of a pod that exists, which only the subresource does.
func TestPodResize(t *testing.T) {
	list := func(pairs ...string) map[string]*metav1.Quantity {
		out := map[string]*metav1.Quantity{}
		for i := 0; i < len(pairs); i += 2 {
			out[pairs[i]] = &metav1.Quantity{String_: pairs[i+1]}
		}
		return out
	}
	base := func() *corev1.Pod {
		p := pod()
		p.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Requests: list("cpu", "1", "memory", "1Gi", "ephemeral-storage", "1Gi"), Limits: list("memory", "2Gi")}
		p.Spec.InitContainers = []*corev1.Container{
			{Name: "first", Image: "b:1", Resources: &corev1.ResourceRequirements{Requests: list("cpu", "1")}},
			{Name: "side", Image: "b:1", RestartPolicy: proto.String("Always"), Resources: &corev1.ResourceRequirements{Requests: list("cpu", "1")}},
		}
		return p
	}
	requests := func(name, value string) func(*corev1.Pod) {
		return first(func(c *corev1.Container) { c.Resources.Requests[name] = &metav1.Quantity{String_: value} })
	}
	kindtest.Update(t, base, []kindtest.Edit[*corev1.Pod]{
		{Name: "a plain update", Edit: requests("cpu", "2"), Want: []string{"spec: Forbidden: pod updates may not change fields other than"}},
	})
	kindtest.Part(t, "resize", base, []kindtest.Edit[*corev1.Pod]{
		{Name: "more cpu", Edit: requests("cpu", "2"), Want: nil},
		{Name: "with other changes, which are ignored", Edit: func(p *corev1.Pod) {
			requests("cpu", "2")(p)
			p.Spec.Hostname, p.Spec.Containers[0].Image, p.Metadata.Labels = "other", "other", map[string]string{"a": "b"}
		}, Want: nil},
		{Name: "another policy", Edit: first(func(c *corev1.Container) {
			c.ResizePolicy = []*corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: "RestartContainer"}}
		}), Want: []string{"spec: Forbidden: only cpu and memory resources are mutable"}},
		{Name: "another container", Edit: func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0]) },
			Want: []string{"spec.containers: Forbidden: containers may not be added or removed on resize"}},
		{Name: "another name", Edit: func(p *corev1.Pod) { p.Spec.InitContainers[1].Name = "other" },
			Want: []string{"spec.initContainers[1].name: Forbidden: initContainers may not be renamed or reordered on resize"}},
		{Name: "a limit where there was none", Edit: first(func(c *corev1.Container) { c.Resources.Limits["cpu"] = &metav1.Quantity{String_: "3"} }), Want: nil},
		{Name: "a sidecar", Edit: func(p *corev1.Pod) { p.Spec.InitContainers[1].Resources.Requests = list("cpu", "2") }, Want: nil},
		{Name: "an init container", Edit: func(p *corev1.Pod) { p.Spec.InitContainers[0].Resources.Requests = list("cpu", "2") }, Want: []string{"spec.initContainers[0].resources: Forbidden: resources for non-sidecar init containers are immutable"}},
		{Name: "another resource", Edit: requests("ephemeral-storage", "2Gi"), Want: []string{"spec: Forbidden: only cpu and memory resources are mutable"}},
		{Name: "no limit any more", Edit: first(func(c *corev1.Container) { c.Resources.Limits = nil }), Want: []string{"spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"}},
	})
	whole := func() *corev1.Pod {
		p := base()
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("cpu", "3", "memory", "2Gi", "hugepages-2Mi", "4Mi"), Limits: list("memory", "4Gi", "hugepages-2Mi", "4Mi")}
		return p
	}
	of := func(f func(*corev1.ResourceRequirements)) func(*corev1.Pod) {
		return func(p *corev1.Pod) { f(p.Spec.Resources) }
	}
	kindtest.Part(t, "resize", whole, []kindtest.Edit[*corev1.Pod]{
		{Name: "the pod as a whole", Edit: of(func(r *corev1.ResourceRequirements) {
			r.Requests["cpu"], r.Limits["memory"] = &metav1.Quantity{String_: "4"}, &metav1.Quantity{String_: "2Gi"}
		}), Want: nil},
		{Name: "a limit of the pod where there was none", Edit: of(func(r *corev1.ResourceRequirements) { r.Limits["cpu"] = &metav1.Quantity{String_: "4"} }), Want: nil},
		{Name: "pages of the pod", Edit: of(func(r *corev1.ResourceRequirements) {
			r.Limits["hugepages-2Mi"], r.Requests["hugepages-2Mi"] = &metav1.Quantity{String_: "2Mi"}, &metav1.Quantity{String_: "2Mi"}
		}), Want: []string{"spec: Forbidden: only cpu and memory resources are mutable at pod-level"}},
		{Name: "no limit of the pod any more", Edit: of(func(r *corev1.ResourceRequirements) { delete(r.Limits, "memory") }), Want: []string{"spec.resources.limits: Forbidden: pod-level resource limits cannot be removed"}},
		{Name: "nothing of the pod any more", Edit: func(p *corev1.Pod) { p.Spec.Resources = nil },
			Want: []string{"spec.resources: Forbidden: pod-level resources cannot be removed"}},
		{Name: "another class of service of the pod", Edit: of(func(r *corev1.ResourceRequirements) {
			r.Limits["cpu"], r.Limits["memory"] = &metav1.Quantity{String_: "3"}, &metav1.Quantity{String_: "2Gi"}
		}), Want: []string{"spec: Invalid value: \"Burstable\": Pod QOS Class may not change"}},
	})
	kindtest.Part(t, "resize", base, []kindtest.Edit[*corev1.Pod]{
		{Name: "a pod that said nothing as a whole", Edit: func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("cpu", "4", "memory", "2Gi")}
		}, Want: nil},
	})
	guaranteed := func() *corev1.Pod {
		p := pod()
		p.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Requests: list("cpu", "1", "memory", "1Gi"), Limits: list("cpu", "1", "memory", "1Gi")}
		return p
	}
	kindtest.Part(t, "resize", guaranteed, []kindtest.Edit[*corev1.Pod]{
		{Name: "both", Edit: first(func(c *corev1.Container) {
			c.Resources.Requests, c.Resources.Limits = list("cpu", "2", "memory", "1Gi"), list("cpu", "2", "memory", "1Gi")
		}), Want: nil},
		{Name: "another class of service", Edit: requests("cpu", "500m"), Want: []string{"spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change"}},
	})
	static := base()
	static.Metadata.Annotations = map[string]string{core.MirrorAnnotation: "x"}
	kindtest.Expect(t, kinds.Of(static).Part("resize").Validate(static, static), []string{"[]: Forbidden: static pods cannot be resized"})
}

func TestPodStatusUpdate(t *testing.T) {
	old, updated := pod(), pod()
	old.Status, updated.Status = &corev1.PodStatus{Phase: "Succeeded"}, &corev1.PodStatus{Phase: "Running"}
	kindtest.Expect(t, kinds.Of(old).ValidateStatusUpdate(updated, old), []string{"status.phase: Forbidden: may not change once it is Succeeded"})
	old.Status.Phase, updated.Status.Phase = "Running", "Resting"
	kindtest.Expect(t, kinds.Of(old).ValidateStatusUpdate(updated, old), []string{`status.phase: Unsupported value: "Resting"`})
}

// TestPodStatusChecks changes a status in ways that Kubernetes refuses as well.
func TestPodStatusChecks(t *testing.T) {
	base := func() *corev1.Pod {
		p := pod()
		p.Spec.RestartPolicy, p.Spec.NodeName = "OnFailure", "node-1"
		ended := func(name string, code int32) *corev1.ContainerStatus {
			return &corev1.ContainerStatus{Name: name, State: &corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}}
		}
		p.Spec.Containers = append(p.Spec.Containers, &corev1.Container{Name: "again", Image: "i"})
		p.Status = &corev1.PodStatus{
			Phase: "Running", QosClass: "BestEffort", HostIp: "192.0.2.1", HostIps: []*corev1.HostIP{{Ip: "192.0.2.1"}},
			PodIps:            []*corev1.PodIP{{Ip: "10.0.0.1"}, {Ip: "fd00::1"}},
			ContainerStatuses: []*corev1.ContainerStatus{ended(p.Spec.Containers[0].GetName(), 0), ended("again", 1)},
		}
		return p
	}
	k := kinds.Of(base())
	for name, tt := range map[string]struct {
		edit func(*corev1.PodStatus)
		want []string
	}{
		"nothing":                {func(*corev1.PodStatus) {}, nil},
		"class left out":         {func(s *corev1.PodStatus) { s.QosClass = "" }, nil},
		"failed container again": {func(s *corev1.PodStatus) { s.ContainerStatuses[1].State = &corev1.ContainerState{} }, nil},
		"class":                  {func(s *corev1.PodStatus) { s.QosClass = "Guaranteed" }, []string{`status.qosClass: Invalid value: "Guaranteed": field is immutable`}},
		"condition": {func(s *corev1.PodStatus) {
			s.Conditions = []*corev1.PodCondition{{Type: "a b", ObservedGeneration: -1}}
		}, []string{"status.conditions[0].observedGeneration: Invalid value", `status.conditions[0].type: Invalid value: "a b"`}},
		"ended container goes on": {func(s *corev1.PodStatus) { s.ContainerStatuses[0].State = &corev1.ContainerState{} }, []string{"status.containerStatuses[0].state: Forbidden: may not be transitioned"}},
		"addresses": {func(s *corev1.PodStatus) {
			s.HostIp, s.PodIps = "192.0.2.2", []*corev1.PodIP{{Ip: "10.0.0.1"}, {Ip: "x"}}
		}, []string{"status.hostIPs[0].ip: Invalid value", "status.podIPs: Invalid value", "status.podIPs[1]: Invalid value"}},
		"nominated": {func(s *corev1.PodStatus) { s.NominatedNodeName = "node-2" }, []string{"status.nominatedNodeName: Forbidden: may not be set on pods that are already bound"}},
		"devices": {func(s *corev1.PodStatus) {
			s.ContainerStatuses[0].AllocatedResourcesStatus = []*corev1.ResourceStatus{{Name: "example.com/gpu", Resources: []*corev1.ResourceHealth{{ResourceId: "1", Health: "Ill"}}}}
		}, []string{"status.containerStatuses[0].allocatedResourcesStatus[0].name: Invalid value", `status.containerStatuses[0].allocatedResourcesStatus[0].resources[0].health: Unsupported value: "Ill"`}},
		"claims": {func(s *corev1.PodStatus) { s.ResourceClaimStatuses = []*corev1.PodResourceClaimStatus{{Name: "c"}} }, []string{"status.resourceClaimStatuses[0].name: Invalid value"}},
	} {
		t.Run(name, func(t *testing.T) {
			old, updated := base(), base()
			tt.edit(updated.Status)
			k.PrepareStatusUpdate(updated, old)
			kindtest.Expect(t, k.ValidateStatusUpdate(updated, old), tt.want)
		})
	}
}

func TestGracePeriod(t *testing.T) {
	k, _ := kinds.ByName("pods")
	p := pod()
	if got := k.GracePeriod(p); got != 0 {
		t.Errorf("never bound: %d", got)
	}
	p.Spec.NodeName = "node-1"
	if got := k.GracePeriod(p); got != 30 {
		t.Errorf("default: %d", got)
	}
	p.Spec.TerminationGracePeriodSeconds = proto.Int64(0)
	if got := k.GracePeriod(p); got != 0 {
		t.Errorf("0 wanted: %d", got)
	}
	p.Spec.TerminationGracePeriodSeconds = proto.Int64(9)
	if got := k.GracePeriod(p); got != 9 {
		t.Errorf("9 wanted: %d", got)
	}
	p.Status = &corev1.PodStatus{Phase: "Failed"}
	if got := k.GracePeriod(p); got != 0 {
		t.Errorf("finished: %d", got)
	}
	for _, k := range kinds.All() {
		if k.Name != "Pod" && k.GracePeriod != nil {
			t.Errorf("%s has a grace period", k)
		}
	}
}

func TestPodColumns(t *testing.T) {
	running := func(name string, restarts int32) *corev1.ContainerStatus {
		return &corev1.ContainerStatus{Name: name, Ready: true, RestartCount: restarts, State: &corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	}
	waiting := func(reason string) *corev1.ContainerStatus {
		return &corev1.ContainerStatus{Name: "web", State: &corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
	}
	ended := func(reason string, code, signal int32) *corev1.ContainerStatus {
		return &corev1.ContainerStatus{Name: "web", State: &corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code, Signal: signal}}}
	}
	status := func(phase string, containers ...*corev1.ContainerStatus) *corev1.PodStatus {
		return &corev1.PodStatus{Phase: phase, ContainerStatuses: containers}
	}
	initPod := func(edit func(*corev1.Pod)) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.InitContainers = []*corev1.Container{{Name: "a"}, {Name: "b"}}
			p.Status = status("Pending", waiting("PodInitializing"))
			edit(p)
		}
	}
	tests := []struct {
		name string
		edit func(*corev1.Pod)
		want map[string]string
	}{
		{"new", func(p *corev1.Pod) { p.Status = status("Pending") }, map[string]string{"READY": "0/1", "STATUS": "Pending", "RESTARTS": "0", "IP": "<none>", "NODE": "<none>"}},
		{"no status", func(*corev1.Pod) {}, map[string]string{"STATUS": "Unknown"}},
		{"running", func(p *corev1.Pod) {
			p.Status = status("Running", running("web", 0))
			p.Status.PodIp, p.Spec.NodeName = "10.244.1.7", "node-1"
			p.Metadata.CreationTimestamp = kindtest.Ago(90 * time.Second)
		}, map[string]string{"READY": "1/1", "STATUS": "Running", "IP": "10.244.1.7", "NODE": "node-1", "AGE": "90s", "NOMINATED NODE": "<none>", "READINESS GATES": "<none>"}},
		{"back-off", func(p *corev1.Pod) {
			s := waiting("CrashLoopBackOff")
			s.RestartCount = 4
			s.LastState = &corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: kindtest.Ago(3 * time.Minute)}}
			p.Status = status("Running", s)
		}, map[string]string{"READY": "0/1", "STATUS": "CrashLoopBackOff", "RESTARTS": "4 (3m ago)"}},
		{"no image", func(p *corev1.Pod) { p.Status = status("Pending", waiting("ErrImagePull")) }, map[string]string{"STATUS": "ErrImagePull"}},
		{"completed", func(p *corev1.Pod) { p.Status = status("Succeeded", ended("Completed", 0, 0)) }, map[string]string{"STATUS": "Completed", "READY": "0/1"}},
		{"out of memory", func(p *corev1.Pod) { p.Status = status("Failed", ended("OOMKilled", 137, 0)) }, map[string]string{"STATUS": "OOMKilled"}},
		{"signal", func(p *corev1.Pod) { p.Status = status("Failed", ended("", 137, 9)) }, map[string]string{"STATUS": "Signal:9"}},
		{"exit code", func(p *corev1.Pod) { p.Status = status("Failed", ended("", 3, 0)) }, map[string]string{"STATUS": "ExitCode:3"}},
		{"evicted", func(p *corev1.Pod) { p.Status = &corev1.PodStatus{Phase: "Failed", Reason: "Evicted"} }, map[string]string{"STATUS": "Evicted"}},
		{"one done, one goes on", func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, &corev1.Container{Name: "b"})
			p.Status = status("Running", ended("Completed", 0, 0), running("b", 0))
		}, map[string]string{"STATUS": "NotReady", "READY": "1/2"}},
		{"terminating", func(p *corev1.Pod) {
			p.Metadata.DeletionTimestamp = kindtest.Ago(0)
			p.Status = status("Running", running("web", 0))
		}, map[string]string{"STATUS": "Terminating"}},
		{"lost", func(p *corev1.Pod) {
			p.Metadata.DeletionTimestamp = kindtest.Ago(0)
			p.Status = &corev1.PodStatus{Phase: "Running", Reason: "NodeLost"}
		}, map[string]string{"STATUS": "Unknown"}},
		{"gated", func(p *corev1.Pod) {
			p.Status = &corev1.PodStatus{Phase: "Pending", Conditions: []*corev1.PodCondition{{Type: "PodScheduled", Status: "False", Reason: "SchedulingGated"}}}
		}, map[string]string{"STATUS": "SchedulingGated"}},
		{"init runs", initPod(func(p *corev1.Pod) {
			done := ended("Completed", 0, 0)
			done.Name = "a"
			p.Status.InitContainerStatuses = []*corev1.ContainerStatus{done, running("b", 0)}
		}), map[string]string{"STATUS": "Init:1/2"}},
		{"init fails", initPod(func(p *corev1.Pod) {
			s := ended("Error", 1, 0)
			s.Name = "a"
			p.Status.InitContainerStatuses = []*corev1.ContainerStatus{s}
		}), map[string]string{"STATUS": "Init:Error"}},
		{"init backs off", initPod(func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []*corev1.ContainerStatus{waiting("CrashLoopBackOff")}
		}), map[string]string{"STATUS": "Init:CrashLoopBackOff"}},
		{"gates passed", func(p *corev1.Pod) {
			p.Spec.ReadinessGates = []*corev1.PodReadinessGate{{ConditionType: "a"}, {ConditionType: "b"}}
			p.Status = &corev1.PodStatus{Conditions: []*corev1.PodCondition{{Type: "a", Status: "True"}}}
		}, map[string]string{"READINESS GATES": "1/2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pod()
			tt.edit(p)
			kindtest.ExpectCells(t, p, kindtest.Now, tt.want)
		})
	}
	if got := slices.Sorted(maps.Keys(kindtest.Cells(pod(), kindtest.Now))); len(got) != 8 {
		t.Errorf("columns %q", got)
	}
}

// TestPodWarnings gives pods and templates the annotations that fields have taken the place of.
func TestPodWarnings(t *testing.T) {
	meta := &metav1.ObjectMeta{Annotations: map[string]string{
		"seccomp.security.alpha.kubernetes.io/pod":            "runtime/default",
		"container.apparmor.security.beta.kubernetes.io/main": "localhost/strict",
		"example.com/pod": "",
	}}
	pod := &corev1.Pod{Metadata: meta}
	want := []string{
		"metadata.annotations[container.apparmor.security.beta.kubernetes.io/main]: this annotation has no effect: use the field securityContext.appArmorProfile of the container",
		"metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: this annotation has no effect: use the field securityContext.seccompProfile",
	}
	if got := kinds.Of(pod).Warnings(pod); !slices.Equal(got, want) {
		t.Errorf("a pod warns %q, want %q", got, want)
	}
	template := &corev1.PodTemplateSpec{Metadata: meta}
	for _, o := range []scheme.Object{
		&appsv1.Deployment{Spec: &appsv1.DeploymentSpec{Template: template}},
		&appsv1.ReplicaSet{Spec: &appsv1.ReplicaSetSpec{Template: template}},
	} {
		if got := kinds.Of(o).Warnings(o); len(got) != 2 || got[0] != "spec.template."+want[0] {
			t.Errorf("a template warns %q", got)
		}
	}
	if got := kinds.Of(pod).Warnings(&corev1.Pod{}); len(got) != 0 {
		t.Errorf("a plain pod warns %q", got)
	}
}

func TestCapabilityWarnings(t *testing.T) {
	caps := func(add, drop []string) *corev1.SecurityContext {
		return &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: add, Drop: drop}}
	}
	privileged := caps([]string{"SYS_ADMINS"}, nil)
	privileged.Privileged = proto.Bool(true)
	spec := &corev1.PodSpec{
		InitContainers: []*corev1.Container{{Name: "init", SecurityContext: caps([]string{"net_admin", "CAP_CHOWN"}, []string{"all"})}},
		Containers:     []*corev1.Container{{Name: "main", SecurityContext: caps([]string{"NET_ADMIN", "NO_SUCH"}, []string{"MKNODE"})}, {Name: "side", SecurityContext: privileged}},
	}
	const hint = ": want a name of capabilities(7), such as NET_ADMIN, or ALL"
	want := []string{
		`spec.containers[0].securityContext.capabilities.add[1]: unknown capability "NO_SUCH": the container will not start` + hint,
		`spec.containers[0].securityContext.capabilities.drop[0]: unknown capability "MKNODE": the container will not start` + hint,
		`spec.containers[1].securityContext.capabilities.add[0]: unknown capability "SYS_ADMINS": it has no effect on a privileged container` + hint,
	}
	p := &corev1.Pod{Spec: spec}
	if got := kinds.Of(p).Warnings(p); !slices.Equal(got, want) {
		t.Errorf("a pod warns %q, want %q", got, want)
	}
	d := &appsv1.Deployment{Spec: &appsv1.DeploymentSpec{Template: &corev1.PodTemplateSpec{Spec: spec}}}
	if got := kinds.Of(d).Warnings(d); len(got) != len(want) || got[0] != "spec.template."+want[0] {
		t.Errorf("a template warns %q", got)
	}
}
