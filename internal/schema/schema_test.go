package schema_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/schema"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

func TestDefaultSetsWhatIsNotSet(t *testing.T) {
	s := &corev1.PodSpec{
		DnsPolicy: "None",
		Containers: []*corev1.Container{{
			ReadinessProbe: &corev1.Probe{PeriodSeconds: 3, Handler: &corev1.ProbeHandler{HttpGet: &corev1.HTTPGetAction{}}},
		}},
	}
	schema.Default(s)
	p := s.GetContainers()[0].GetReadinessProbe()
	switch {
	case s.GetRestartPolicy() != "Always", s.GetDnsPolicy() != "None", s.GetTerminationGracePeriodSeconds() != 30, s.SecurityContext == nil:
		t.Errorf("spec is %v", s)
	case p.GetPeriodSeconds() != 3, p.GetTimeoutSeconds() != 1, p.GetHandler().GetHttpGet().GetPath() != "/", s.GetContainers()[0].LivenessProbe != nil:
		t.Errorf("container is %v", s.GetContainers()[0])
	}
	before := proto.Clone(s)
	if schema.Default(s); !proto.Equal(s, before) {
		t.Errorf("a second time it makes %v", s)
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		spec *corev1.PodSpec
		want []string
	}{
		{"required list", &corev1.PodSpec{}, []string{"spec.containers: Required value"}},
		{"enum", &corev1.PodSpec{Containers: []*corev1.Container{{ImagePullPolicy: "Sometimes"}}},
			[]string{`spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"`}},
		{"range", &corev1.PodSpec{Containers: []*corev1.Container{{}}, ActiveDeadlineSeconds: proto.Int64(0)},
			[]string{"spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"}},
		{"unique", &corev1.PodSpec{Containers: []*corev1.Container{{ResizePolicy: []*corev1.ContainerResizePolicy{
			{ResourceName: "cpu", RestartPolicy: "NotRequired"}, {ResourceName: "cpu", RestartPolicy: "NotRequired"}}}}},
			[]string{`spec.containers[0].resizePolicy[1].resourceName: Duplicate value: "cpu"`}},
		{"inline", &corev1.PodSpec{Containers: []*corev1.Container{{LivenessProbe: &corev1.Probe{Handler: &corev1.ProbeHandler{Exec: &corev1.ExecAction{}}}}}},
			[]string{"spec.containers[0].livenessProbe.exec.command: Required value"}},
		{"refused field", &corev1.PodSpec{Containers: []*corev1.Container{{}}, ResourceClaims: []*corev1.PodResourceClaim{{}}},
			[]string{`spec.resourceClaims: Unsupported value: "resourceClaims": dynamic resource allocation is not supported`}},
		{"refused value", &corev1.PodSpec{Containers: []*corev1.Container{{}}, Os: &corev1.PodOS{Name: "windows"}},
			[]string{`spec.os.name: Unsupported value: "windows": nodes run Linux`}},
		{"too many", &corev1.PodSpec{Containers: []*corev1.Container{{}}, DnsConfig: &corev1.PodDNSConfig{Nameservers: []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}}},
			[]string{"spec.dnsConfig.nameservers: Too many: 4: must have at most 3 items"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, e := range schema.Validate(field.NewPath("spec"), tt.spec) {
				got = append(got, e.Error())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("errors are %q, want %q", got, tt.want)
			}
		})
	}
}

func TestValidateKinds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		object proto.Message
		want   []string
	}{
		{"key of a map", &corev1.ConfigMap{Data: map[string]string{"a b": "x", "c": "y"}}, []string{"data[a b]: Invalid value: \"a b\": a valid config key"}},
		{"labels", &corev1.Service{Spec: &corev1.ServiceSpec{Selector: map[string]string{"a": "b!"}}}, []string{"spec.selector: Invalid value: \"b!\": a valid label"}},
		{"checked when empty", &corev1.Node{Spec: &corev1.NodeSpec{Taints: []*corev1.Taint{{Effect: "NoExecute"}}}},
			[]string{"spec.taints[0].key: Invalid value: \"\": name part must be non-empty", "spec.taints[0].key: Invalid value: \"\": name part must consist"}},
		{"unique in two fields", &corev1.Node{Spec: &corev1.NodeSpec{Taints: []*corev1.Taint{
			{Key: "a", Effect: "NoExecute"}, {Key: "a", Effect: "NoSchedule"}, {Key: "a", Effect: "NoExecute"}}}},
			[]string{"spec.taints[2]: Duplicate value: \"a/NoExecute\""}},
		{"network", &corev1.Node{Spec: &corev1.NodeSpec{PodCidrs: []string{"10.0.0.1/8"}}}, []string{"spec.podCIDRs[0]: Invalid value: \"10.0.0.1/8\": must not have bits set"}},
		{"percentage", rolling(&metav1.IntOrString{Type: 1, StrVal: "x%"}), []string{"maxSurge: Invalid value: \"x%\": a valid percent string"}},
		{"negative count", rolling(&metav1.IntOrString{IntVal: -1}), []string{"maxSurge: Invalid value: -1: must be greater than or equal to 0"}},
		{"value in a map", &resourcev1.Device{Name: "a", Attributes: map[string]*resourcev1.DeviceAttribute{
			"model": {String_: proto.String(strings.Repeat("x", 65))}, "sizes": {Ints: []int64{1}}}},
			[]string{"attributes[model].string: Too long: may not be more than 64 bytes", "attributes[sizes].ints: Unsupported value"}},
		{"path segment", &networkingv1.ParentReference{Resource: "services", Name: "a/b"}, []string{"name: Invalid value: \"a/b\": may not contain '/'"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := schema.Validate(nil, tt.object)
			if len(got) != len(tt.want) {
				t.Fatalf("errors are %v, want %q", got, tt.want)
			}
			for i, e := range got {
				if !strings.HasPrefix(e.Error(), tt.want[i]) {
					t.Errorf("error is %q, want %q", e, tt.want[i])
				}
			}
		})
	}
}

func rolling(surge *metav1.IntOrString) *appsv1.RollingUpdateDeployment {
	return &appsv1.RollingUpdateDeployment{MaxSurge: surge}
}

// TestRulesOfEveryKind compiles the rules of every kind, which panics for options that do not fit
// the field.
func TestRulesOfEveryKind(t *testing.T) {
	for _, k := range kinds.All() {
		o := k.New()
		schema.Default(o)
		schema.Validate(nil, o)
	}
}
