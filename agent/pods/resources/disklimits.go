package resources

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// DiskLimits are the bytes of disk that a pod may use, where it says so.
type DiskLimits struct {
	// Volumes are those of emptyDir volumes, by name. The kernel itself bounds those in memory.
	Volumes map[string]*metav1.Quantity
	// Containers are those of what a container writes to its own file system and its log, by name.
	Containers map[string]*metav1.Quantity
	// Total is that of all of this together, nil for none: as in Kubernetes the containers' together,
	// as far as they have any.
	Total *resource.Quantity
}

// DiskLimitsOf returns the limits of a pod.
func DiskLimitsOf(pod *corev1.Pod) DiskLimits {
	out := DiskLimits{Volumes: map[string]*metav1.Quantity{}, Containers: map[string]*metav1.Quantity{}}
	for _, v := range pod.GetSpec().GetVolumes() {
		e := v.GetVolumeSource().GetEmptyDir()
		if q := Quantity(e.GetSizeLimit()); e != nil && e.GetMedium() != "Memory" && !q.IsZero() {
			out.Volumes[v.GetName()] = e.GetSizeLimit()
		}
	}
	var together, most resource.Quantity
	for _, c := range slices.Concat(pod.GetSpec().GetContainers(), pod.GetSpec().GetInitContainers()) {
		limit := c.GetResources().GetLimits()[core.ResourceEphemeralStorage]
		if limit == nil {
			continue
		}
		out.Containers[c.GetName()] = limit
		q := Quantity(limit)
		if slices.Contains(pod.GetSpec().GetContainers(), c) || IsSidecar(c) {
			together.Add(q)
		} else if q.Cmp(most) > 0 {
			most = q
		}
		out.Total = &together
	}
	if out.Total != nil && most.Cmp(together) > 0 {
		out.Total = &most
	}
	return out
}
