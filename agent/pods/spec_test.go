package pods

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
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: &corev1.PodSpec{InitContainers: c.init, Containers: c.main, Overhead: c.overhead}}
			if got := podResources(pod); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}
