package eviction

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// criticalPriority is the lowest priority of pods that are never evicted, since the node cannot
// work without them.
const criticalPriority = 2_000_000_000

// Pod is a pod that may be evicted.
type Pod struct {
	*corev1.Pod
	// Used is its usage of the resource that is short.
	Used int64
}

// rank orders pods so that the one to evict comes first, and leaves those out that are never
// evicted.
func rank(pods []Pod, signal Signal) []Pod {
	pods = slices.DeleteFunc(slices.Clone(pods), func(p Pod) bool { return p.GetSpec().GetPriority() >= criticalPriority })
	name := signal.resource()
	slices.SortStableFunc(pods, func(a, b Pod) int {
		aOver, bOver := a.Used-requested(a.GetSpec(), name), b.Used-requested(b.GetSpec(), name)
		order := 0
		// Pods cannot request process IDs or inodes, so that no pod uses more than it requested.
		if name == "memory" || name == "ephemeral-storage" {
			order = -cmp.Compare(sign(aOver), sign(bOver))
		}
		return cmp.Or(order, cmp.Compare(a.GetSpec().GetPriority(), b.GetSpec().GetPriority()), -cmp.Compare(aOver, bOver))
	})
	return pods
}

// sign is 1 for a pod that uses more than it asked for, else 0.
func sign(over int64) int {
	if over > 0 {
		return 1
	}
	return 0
}

// requested is what a pod asks for of a resource.
func requested(spec *corev1.PodSpec, name string) int64 {
	all, err := core.PodRequests(spec)
	if err != nil {
		return 0
	}
	q := all[name]
	return q.Value()
}

// message says why a pod was evicted.
func message(p Pod, t Threshold, o Observation) string {
	name := t.Signal.resource()
	return fmt.Sprintf("The node was low on resource: %s. Threshold quantity: %v, available: %s. The pod was using %s, its requests are %s.",
		name, t.Least, text(name, o.Available), text(name, p.Used), text(name, requested(p.GetSpec(), name)))
}

func text(name string, n int64) string {
	if name == "memory" || name == "ephemeral-storage" {
		return resource.NewQuantity(n>>10<<10, resource.BinarySI).String()
	}
	return resource.NewQuantity(n, resource.DecimalSI).String()
}
