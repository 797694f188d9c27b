package resources

import (
	"testing"

	"github.com/xebec-project/xebec/agent/runtime"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestPodResources(t *testing.T) {
	always := "Always"
	asks := func(request, cpu, memory string) *corev1.Container {
		list := func(cpu, memory string) map[string]*metav1.Quantity {
			out := map[string]*metav1.Quantity{}
			for name, v := range map[string]string{"cpu": cpu, "memory": memory} {
				if v != "" {
					out[name] = &metav1.Quantity{String_: v}
				}
			}
			return out
		}
		return &corev1.Container{Resources: &corev1.ResourceRequirements{Requests: list(request, ""), Limits: list(cpu, memory)}}
	}
	side := asks("100m", "200m", "1Mi")
	side.RestartPolicy = &always
	for name, c := range map[string]struct {
		init, main []*corev1.Container
		overhead   map[string]*metav1.Quantity
		whole      *corev1.ResourceRequirements
		want       runtime.Resources
	}{
		"nothing":          {main: []*corev1.Container{asks("", "", "")}, want: runtime.Resources{MilliCPULimit: -1, MemoryLimit: -1}},
		"sum":              {main: []*corev1.Container{asks("100m", "1", "1Mi"), asks("", "500m", "2Mi")}, want: runtime.Resources{MilliCPURequest: 600, MilliCPULimit: 1500, MemoryRequest: 3 << 20, MemoryLimit: 3 << 20}},
		"one is unlimited": {main: []*corev1.Container{asks("100m", "1", ""), asks("100m", "1", "1Mi")}, want: runtime.Resources{MilliCPURequest: 200, MilliCPULimit: 2000, MemoryRequest: 1 << 20, MemoryLimit: -1}},
		"larger init":      {init: []*corev1.Container{asks("1", "2", "8Mi")}, main: []*corev1.Container{asks("100m", "1", "1Mi")}, want: runtime.Resources{MilliCPURequest: 1000, MilliCPULimit: 2000, MemoryRequest: 8 << 20, MemoryLimit: 8 << 20}},
		"unlimited init":   {init: []*corev1.Container{asks("", "", "")}, main: []*corev1.Container{asks("100m", "1", "1Mi")}, want: runtime.Resources{MilliCPURequest: 100, MilliCPULimit: -1, MemoryRequest: 1 << 20, MemoryLimit: -1}},
		"sidecar": {init: []*corev1.Container{side, asks("1", "2", "8Mi")}, main: []*corev1.Container{asks("100m", "1", "1Mi")},
			want: runtime.Resources{MilliCPURequest: 1100, MilliCPULimit: 2200, MemoryRequest: 9 << 20, MemoryLimit: 9 << 20}},
		"overhead": {main: []*corev1.Container{asks("100m", "1", "1Mi")}, overhead: map[string]*metav1.Quantity{"cpu": {String_: "10m"}, "memory": {String_: "1Mi"}},
			want: runtime.Resources{MilliCPURequest: 110, MilliCPULimit: 1010, MemoryRequest: 2 << 20, MemoryLimit: 2 << 20}},
		"as a whole": {main: []*corev1.Container{asks("100m", "", ""), asks("", "", "")}, whole: asks("1", "2", "8Mi").Resources,
			want: runtime.Resources{MilliCPURequest: 1000, MilliCPULimit: 2000, MemoryLimit: 8 << 20}},
		"partly as a whole": {main: []*corev1.Container{asks("100m", "1", "1Mi")}, whole: asks("", "", "8Mi").Resources,
			overhead: map[string]*metav1.Quantity{"cpu": {String_: "10m"}, "memory": {String_: "1Mi"}},
			want:     runtime.Resources{MilliCPURequest: 110, MilliCPULimit: 1010, MemoryRequest: 2 << 20, MemoryLimit: 9 << 20}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: &corev1.PodSpec{InitContainers: c.init, Containers: c.main, Overhead: c.overhead, Resources: c.whole}}
			if got := OfPod(pod); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// TestWithinPod looks at what containers get of what the pod as a whole may use and asks for.
func TestWithinPod(t *testing.T) {
	list := func(cpu, memory string) map[string]*metav1.Quantity {
		return map[string]*metav1.Quantity{"cpu": {String_: cpu}, "memory": {String_: memory}}
	}
	own := &corev1.Container{Name: "own", Resources: &corev1.ResourceRequirements{Requests: list("100m", "256Mi"), Limits: list("500m", "512Mi")}}
	none := &corev1.Container{Name: "none"}
	pod := &corev1.Pod{Spec: &corev1.PodSpec{
		Containers: []*corev1.Container{own, none}, Resources: &corev1.ResourceRequirements{Requests: list("1", "512Mi"), Limits: list("2", "1Gi")},
	}}
	for c, want := range map[*corev1.Container]runtime.Resources{
		// Each has half of the 256Mi that are asked for beyond what containers ask for.
		own:  {MilliCPURequest: 100, MilliCPULimit: 500, MemoryRequest: 256 << 20, MemoryLimit: 512 << 20, OOMScoreAdj: 625},
		none: {MilliCPULimit: 2000, MemoryLimit: 1 << 30, OOMScoreAdj: 875},
	} {
		if got := Of(pod, c, 1<<30); got != want {
			t.Errorf("%s: %+v, want %+v", c.GetName(), got, want)
		}
	}
}
