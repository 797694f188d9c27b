// Package schedulerperftest has the workloads of scheduler_perf, Kubernetes' benchmark of its
// scheduler, version 1.36, at 5,000 nodes: names, counts, shapes of pods and thresholds are those
// of its performance-config.yaml files. The benchmark of the scheduler's loop and the bench of a
// whole control plane schedule them.
package schedulerperftest

import (
	"fmt"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
)

// Nodes is the number of nodes of most workloads.
const Nodes = 5000

// The namespaces of the pods that have to be near each other or apart.
const (
	namespace0 = "sched-0"
	namespace1 = "sched-1"
)

// Namespaces are those that pods are in beside "default".
var Namespaces = []string{namespace0, namespace1}

// ChurnPerSecond is how many pods of Workload.Churn are created in a second.
const ChurnPerSecond = 5

// DeletionsPerSecond is how many pods of Workload.Deleted are deleted in a second.
const DeletionsPerSecond = 50

// Workload is a workload of scheduler_perf. Fields that are nil stand for no pods.
type Workload struct {
	// Name is scheduler_perf's name, and Threshold the pods per second that Kubernetes' own tests
	// demand, with queueing hints where both are given; 0 for none.
	Name      string
	Threshold int
	// Nodes is the number of nodes, in Zones in turn. Large adds one that has room for all pods.
	Nodes int
	Zones []string
	Large bool
	// Waiting pods are created first and stay pending.
	Waiting *Pods
	// Initial pods are scheduled before the measurement.
	Initial *Pods
	// Deleted pods are scheduled before the measurement and deleted during it.
	Deleted *Pods
	// Churn is the shape of the pods that are created during the measurement; it has no Count.
	Churn *Pods
	// Measured pods are those that are timed.
	Measured *Pods
}

// Pods are pods of one shape.
type Pods struct {
	// Name begins their names, Namespace is theirs and Count their number.
	Name, Namespace string
	Count           int

	shape func(*corev1.Pod)
}

// Pod returns the pod of a number.
func (p *Pods) Pod(i int) *corev1.Pod {
	pod := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Namespace: p.Namespace, Name: fmt.Sprint(p.Name, "-", i)},
		Spec:     &corev1.PodSpec{Containers: []*corev1.Container{{Name: "pause", Image: "pause:1"}}},
	}
	p.shape(pod)
	return pod
}

// largeNode is the name of the node that has room for all pods.
const largeNode = "scheduler-perf-node"

// AllNodes returns the nodes of the workload, ready and with room.
func (w *Workload) AllNodes() []*corev1.Node {
	nodes := make([]*corev1.Node, 0, w.Nodes+1)
	for i := range w.Nodes {
		n := node(fmt.Sprint("node-", i), "110")
		if len(w.Zones) > 0 {
			n.Metadata.Labels[core.LabelZone] = w.Zones[i%len(w.Zones)]
		}
		nodes = append(nodes, n)
	}
	if w.Large {
		nodes = append(nodes, node(largeNode, "90000"))
	}
	return nodes
}

func node(name, pods string) *corev1.Node {
	room := quantities(map[string]string{"cpu": "4", "memory": "32Gi", "pods": pods})
	return &corev1.Node{
		Metadata: &metav1.ObjectMeta{Name: name, Labels: map[string]string{core.LabelHostname: name}},
		Spec:     &corev1.NodeSpec{},
		Status: &corev1.NodeStatus{
			Capacity: room, Allocatable: room, Conditions: []*corev1.NodeCondition{{Type: "Ready", Status: "True"}},
		},
	}
}

func quantities(of map[string]string) map[string]*metav1.Quantity {
	list := make(map[string]*metav1.Quantity, len(of))
	for name, text := range of {
		list[name] = &metav1.Quantity{String_: text}
	}
	return list
}

// Class returns the priority class of the pods that preempt.
func Class() *schedulingv1.PriorityClass {
	return &schedulingv1.PriorityClass{Metadata: &metav1.ObjectMeta{Name: className}, Value: priority}
}
