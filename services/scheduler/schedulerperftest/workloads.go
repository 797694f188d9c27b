package schedulerperftest

import (
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var (
	moons   = []string{"moon-1", "moon-2", "moon-3"}
	oneZone = []string{"zone1"}
)

// Workloads are those at 5,000 nodes that Kubernetes has a threshold for, and PreemptionBasic.
// SchedulingDaemonset has 15,000 nodes there, PreemptionBasic 1,000.
var Workloads = []Workload{
	{
		Name: "SchedulingBasic", Threshold: 270, Nodes: Nodes,
		Initial: pods("initial", 1000, small), Measured: pods("measured", 10000, small),
	},
	{
		Name: "TopologySpreading", Threshold: 85, Nodes: Nodes, Zones: moons,
		Initial: pods("initial", 5000, small), Measured: pods("measured", 5000, spread("DoNotSchedule")),
	},
	{
		Name: "PreferredTopologySpreading", Threshold: 125, Nodes: Nodes, Zones: moons,
		Initial: pods("initial", 5000, small), Measured: pods("measured", 5000, spread("ScheduleAnyway")),
	},
	{
		Name: "SchedulingPodAffinity", Threshold: 35, Nodes: Nodes, Zones: oneZone,
		Initial: podsOf(namespace0, "initial", 5000, near), Measured: podsOf(namespace1, "measured", 5000, near),
	},
	{
		Name: "SchedulingPodAntiAffinity", Threshold: 60, Nodes: Nodes,
		Initial: podsOf(namespace0, "initial", 1000, apart), Measured: podsOf(namespace1, "measured", 2000, apart),
	},
	{
		Name: "SchedulingNodeAffinity", Threshold: 220, Nodes: Nodes, Zones: oneZone,
		Initial: pods("initial", 5000, inZone), Measured: pods("measured", 10000, inZone),
	},
	{
		Name: "SchedulingDaemonset", Threshold: 390, Nodes: Nodes, Large: true,
		Measured: pods("measured", 30000, onLargeNode),
	},
	{
		Name: "SchedulingWhileGated", Threshold: 130, Large: true,
		Waiting: pods("gated", 10000, gated), Deleted: pods("deleted", 20000, light), Measured: pods("measured", 20000, light),
	},
	{
		Name: "PreemptionBasic", Nodes: 1000,
		Initial: pods("low", 4000, low), Measured: pods("measured", 1000, preempting),
	},
	{
		Name: "PreemptionAsync", Threshold: 160, Nodes: Nodes,
		Initial: pods("low", 20000, low), Churn: pods("churn", 0, preempting), Measured: pods("measured", 5000, small),
	},
	{
		Name: "Unschedulable", Threshold: 170, Nodes: Nodes,
		Initial: pods("initial", 100, small), Churn: pods("churn", 0, huge), Measured: pods("measured", 10000, small),
	},
}

func pods(name string, count int, shape func(*corev1.Pod)) *Pods {
	return podsOf("default", name, count, shape)
}

func podsOf(namespace, name string, count int, shape func(*corev1.Pod)) *Pods {
	return &Pods{Name: name, Namespace: namespace, Count: count, shape: shape}
}

// The class of the pods that preempt and its priority.
const (
	className = "high"
	priority  = 10
)

func requesting(cpu string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Requests: quantities(map[string]string{"cpu": cpu, "memory": "500Mi"})}
	}
}

var small = requesting("100m")

// low has a fifth of a node: four pods leave no room for one that preempts.
func low(p *corev1.Pod) {
	light(p)
	requesting("900m")(p)
}

// preempting needs the room of three pods of low.
func preempting(p *corev1.Pod) {
	requesting("3")(p)
	p.Spec.PriorityClassName, p.Spec.Priority = className, proto.Int32(priority)
}

// huge fits on no node.
func huge(p *corev1.Pod) {
	requesting("9")(p)
	p.Spec.PriorityClassName, p.Spec.Priority = className, proto.Int32(priority)
}

// light requests nothing and is gone as soon as it is deleted.
func light(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = proto.Int64(0) }

func gated(p *corev1.Pod) {
	p.Spec.SchedulingGates = []*corev1.PodSchedulingGate{{Name: "test.k8s.io/hold"}}
}

func spread(whenUnsatisfiable string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		small(p)
		p.Metadata.Labels = map[string]string{"color": "blue"}
		p.Spec.TopologySpreadConstraints = []*corev1.TopologySpreadConstraint{{
			MaxSkew: 5, TopologyKey: core.LabelZone, WhenUnsatisfiable: whenUnsatisfiable,
			LabelSelector: &metav1.LabelSelector{MatchLabels: p.Metadata.Labels},
		}}
	}
}

func near(p *corev1.Pod) {
	small(p)
	p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: colored(p, "blue", core.LabelZone),
	}}
}

func apart(p *corev1.Pod) {
	small(p)
	p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: colored(p, "green", core.LabelHostname),
	}}
}

// colored gives a pod a color and returns the term that means pods of the same color.
func colored(p *corev1.Pod, color, topologyKey string) []*corev1.PodAffinityTerm {
	p.Metadata.Labels = map[string]string{"color": color}
	return []*corev1.PodAffinityTerm{{
		TopologyKey: topologyKey, Namespaces: Namespaces, LabelSelector: &metav1.LabelSelector{MatchLabels: p.Metadata.Labels},
	}}
}

func inZone(p *corev1.Pod) {
	small(p)
	requireNode(p, &corev1.NodeSelectorTerm{MatchExpressions: []*corev1.NodeSelectorRequirement{
		{Key: core.LabelZone, Operator: "In", Values: []string{"zone1", "zone2"}},
	}})
}

func onLargeNode(p *corev1.Pod) {
	requireNode(p, &corev1.NodeSelectorTerm{MatchFields: []*corev1.NodeSelectorRequirement{
		{Key: "metadata.name", Operator: "In", Values: []string{largeNode}},
	}})
}

func requireNode(p *corev1.Pod, term *corev1.NodeSelectorTerm) {
	p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []*corev1.NodeSelectorTerm{term}},
	}}
}
