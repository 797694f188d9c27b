package eviction

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// criticalPriority is the least priority of pods that are never evicted: the node would be worth nothing without them.
const criticalPriority = 2_000_000_000

// Pod is a pod that may be evicted.
type Pod struct {
	*corev1.Pod
	// Used is what it uses of that which is short.
	Used int64
}

// rank orders pods so that the one to evict comes first, and leaves those out that are never evicted.
func rank(pods []Pod, signal Signal) []Pod {
	pods = slices.DeleteFunc(slices.Clone(pods), func(p Pod) bool { return p.GetSpec().GetPriority() >= criticalPriority })
	name := signal.resource()
	slices.SortStableFunc(pods, func(a, b Pod) int {
		aOver, bOver := a.Used-requested(a.GetSpec(), name), b.Used-requested(b.GetSpec(), name)
		order := 0
		// Nobody asks for process ids or inodes, so that nobody uses more of them than that.
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

// requested is what a pod's containers that run at the same time ask for.
func requested(spec *corev1.PodSpec, name string) int64 {
	var sum, most, side int64
	for _, c := range spec.GetContainers() {
		sum += value(c.GetResources().GetRequests()[name])
	}
	for _, c := range spec.GetInitContainers() {
		most = max(most, side+value(c.GetResources().GetRequests()[name]))
		if c.GetRestartPolicy() == "Always" {
			side += value(c.GetResources().GetRequests()[name])
		}
	}
	return max(sum+side, most) + value(spec.GetOverhead()[name])
}

func value(q *metav1.Quantity) int64 {
	v, err := resource.ParseQuantity(q.GetString_())
	if err != nil {
		return 0
	}
	return v.Value()
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
