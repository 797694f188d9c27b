package pods

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// diskLimits are the bytes of disk that a pod may use, where it says so.
type diskLimits struct {
	// volumes are those of emptyDir volumes, by name. The kernel itself bounds those in memory.
	volumes map[string]*metav1.Quantity
	// containers are those of what a container writes to its own file system and its log, by name.
	containers map[string]*metav1.Quantity
	// total is that of all of this together, nil for none: as in Kubernetes the containers' together, as far as they have any.
	total *resource.Quantity
}

func diskLimitsOf(pod *corev1.Pod) diskLimits {
	out := diskLimits{volumes: map[string]*metav1.Quantity{}, containers: map[string]*metav1.Quantity{}}
	for _, v := range pod.GetSpec().GetVolumes() {
		e := v.GetVolumeSource().GetEmptyDir()
		if q := quantity(e.GetSizeLimit()); e != nil && e.GetMedium() != "Memory" && !q.IsZero() {
			out.volumes[v.GetName()] = e.GetSizeLimit()
		}
	}
	var together, most resource.Quantity
	for _, c := range slices.Concat(pod.GetSpec().GetContainers(), pod.GetSpec().GetInitContainers()) {
		limit := c.GetResources().GetLimits()[kind.ResourceEphemeralStorage]
		if limit == nil {
			continue
		}
		out.containers[c.GetName()] = limit
		q := quantity(limit)
		if slices.Contains(pod.GetSpec().GetContainers(), c) || sidecar(c) {
			together.Add(q)
		} else if q.Cmp(most) > 0 {
			most = q
		}
		out.total = &together
	}
	if out.total != nil && most.Cmp(together) > 0 {
		out.total = &most
	}
	return out
}
