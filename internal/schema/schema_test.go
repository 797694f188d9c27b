package schema_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/schema"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
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

// TestRulesOfEveryKind compiles the rules of every kind, which panics for options that contradict the field.
func TestRulesOfEveryKind(t *testing.T) {
	for _, k := range kind.All() {
		o := k.New()
		schema.Default(o)
		schema.Validate(nil, o)
	}
}
