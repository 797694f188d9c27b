package core_test

import (
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func asks(requests, limits map[string]*metav1.Quantity) *corev1.ResourceRequirements {
	return &corev1.ResourceRequirements{Requests: requests, Limits: limits}
}

func TestPodResourcesChecks(t *testing.T) {
	const at = "spec.resources."
	kindtest.Validate(t, pod, []kindtest.Bad[*corev1.Pod]{
		{Name: "names and amounts", Edit: func(p *corev1.Pod) {
			p.Spec.Resources = asks(kindtest.Amounts("cpu", "2", "example.com/gpu", "1", "memory", "-1"), kindtest.Amounts("cpu", "1", "ephemeral-storage", "1Gi", "example.com/gpu", "1"))
		}, Want: []string{
			at + `limits[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "memory", "hugepages-<size>"`,
			at + "limits[example.com/gpu]: Unsupported value", at + "requests[example.com/gpu]: Unsupported value",
			at + `requests[memory]: Invalid value: "-1"`, at + `requests: Invalid value: "2": must be less than or equal to cpu limit of 1`,
		}},
		{Name: "containers keep within it", Edit: func(p *corev1.Pod) {
			p.Spec.Resources = asks(kindtest.Amounts("cpu", "1", "memory", "1Gi"), kindtest.Amounts("cpu", "2"))
			side := &corev1.Container{Name: "side", Image: "i", RestartPolicy: proto.String("Always"), Resources: asks(kindtest.Amounts("cpu", "600m"), kindtest.Amounts("cpu", "3"))}
			p.Spec.InitContainers = []*corev1.Container{side}
			p.Spec.Containers[0].Resources = asks(kindtest.Amounts("cpu", "500m", "memory", "1Gi"), kindtest.Amounts("cpu", "2500m", "memory", "2Gi"))
		}, Want: []string{
			at + `requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 1100m`,
			`spec.initContainers[0].resources.limits[cpu]: Invalid value: "3": must be less than or equal to pod limits of 2`,
			`spec.containers[0].resources.limits[cpu]: Invalid value: "2500m": must be less than or equal to pod limits of 2`,
		}},
	})
}

func TestPodResourcesDefaults(t *testing.T) {
	for name, c := range map[string]struct {
		whole, container, want *corev1.ResourceRequirements
		class                  string
		copes                  bool
	}{
		"nothing is said": {container: asks(kindtest.Amounts("cpu", "1"), nil), class: "Burstable", copes: true},
		"limits alone":    {whole: asks(nil, kindtest.Amounts("cpu", "1", "memory", "1Gi")), want: asks(kindtest.Amounts("cpu", "1", "memory", "1Gi"), kindtest.Amounts("cpu", "1", "memory", "1Gi")), class: "Guaranteed", copes: true},
		"containers ask": {whole: asks(nil, kindtest.Amounts("cpu", "1", "memory", "1Gi")), container: asks(kindtest.Amounts("cpu", "300m", "ephemeral-storage", "1Gi"), nil),
			want: asks(kindtest.Amounts("cpu", "300m", "memory", "1Gi"), kindtest.Amounts("cpu", "1", "memory", "1Gi")), class: "Burstable", copes: true},
		"requests alone": {whole: asks(kindtest.Amounts("cpu", "1"), nil), container: asks(kindtest.Amounts("memory", "64Mi"), nil), want: asks(kindtest.Amounts("cpu", "1", "memory", "64Mi"), nil), class: "Burstable", copes: true},
		"empty":          {whole: asks(nil, nil), want: asks(nil, nil), class: "BestEffort"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pod()
			p.Spec.Resources, p.Spec.Containers[0].Resources = c.whole, c.container
			k := kinds.Of(p)
			k.PrepareCreate(p)
			k.Default(p)
			if !proto.Equal(p.Spec.Resources, c.want) {
				t.Errorf("%v, want %v", p.Spec.Resources, c.want)
			}
			if got := core.PodQOS(p.Spec); got != c.class || p.Status.QosClass != got {
				t.Errorf("class %s, in the status %s, want %s", got, p.Status.QosClass, c.class)
			}
			if errs := k.Validate(p); len(errs) > 0 {
				t.Error(errs)
			}
			copes := func(p *corev1.Pod) int {
				return len(slices.DeleteFunc(slices.Clone(p.Spec.Tolerations), func(t *corev1.Toleration) bool { return t.GetKey() != core.TaintMemoryPressure }))
			}
			if got := copes(p); got > 1 || c.copes != (got == 1) {
				t.Errorf("tolerations %v", p.Spec.Tolerations)
			}
			// An update that names no tolerations does not take it away, and another one does not add it
			// twice.
			for range 2 {
				next := proto.CloneOf(p)
				next.Spec.Tolerations = next.Spec.Tolerations[:0]
				k.PrepareUpdate(next, p)
				if got := copes(next); got != copes(p) {
					t.Errorf("after an update tolerations %v", next.Spec.Tolerations)
				}
				if errs := k.ValidateUpdate(next, p); len(errs) > 0 {
					t.Error(errs)
				}
				p = next
			}
		})
	}
}

func TestPodRequests(t *testing.T) {
	p := pod()
	p.Spec.InitContainers = []*corev1.Container{
		{Resources: asks(kindtest.Amounts("cpu", "900m"), nil)}, {RestartPolicy: proto.String("Always"), Resources: asks(kindtest.Amounts("cpu", "200m", "memory", "1Mi"), nil)},
		{Resources: asks(kindtest.Amounts("cpu", "500m", "memory", "8Mi"), nil)},
	}
	p.Spec.Containers[0].Resources = asks(kindtest.Amounts("cpu", "300m"), nil)
	p.Spec.Overhead = kindtest.Amounts("cpu", "10m")
	text := func() map[string]string {
		got, err := core.PodRequests(p.Spec)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for name, q := range got {
			out[name] = q.String()
		}
		return out
	}
	if got := text(); !maps.Equal(got, map[string]string{"cpu": "910m", "memory": "9Mi"}) {
		t.Error(got)
	}
	p.Spec.Resources = asks(kindtest.Amounts("cpu", "2"), nil)
	if got := text(); !maps.Equal(got, map[string]string{"cpu": "2010m", "memory": "9Mi"}) {
		t.Error(got)
	}
	p.Spec.Containers[0].Resources.Requests["cpu"].String_ = "much"
	if _, err := core.PodRequests(p.Spec); err == nil {
		t.Error("a quantity that does not parse")
	}
}
