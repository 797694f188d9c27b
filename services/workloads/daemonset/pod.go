package daemonset

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/nodeaffinity"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// tolerated are the taints that all pods of DaemonSets tolerate for ever. They stay on nodes with
// problems, and they run on nodes that are cordoned.
var tolerated = []*corev1.Toleration{
	{Key: core.TaintNotReady, Operator: "Exists", Effect: core.TaintNoExecute},
	{Key: core.TaintUnreachable, Operator: "Exists", Effect: core.TaintNoExecute},
	{Key: core.TaintDiskPressure, Operator: "Exists", Effect: core.TaintNoSchedule},
	{Key: core.TaintMemoryPressure, Operator: "Exists", Effect: core.TaintNoSchedule},
	{Key: core.TaintPIDPressure, Operator: "Exists", Effect: core.TaintNoSchedule},
	{Key: core.TaintUnschedulable, Operator: "Exists", Effect: core.TaintNoSchedule},
}

// toleratedOnHostNetwork is tolerated by pods that use the network of their node.
var toleratedOnHostNetwork = &corev1.Toleration{Key: core.TaintNetworkUnavailable, Operator: "Exists", Effect: core.TaintNoSchedule}

// tolerations are those of the pods of a template: its own, and the automatic ones.
func tolerations(spec *corev1.PodSpec) []*corev1.Toleration {
	all := slices.Clone(spec.GetTolerations())
	automatic := tolerated
	if spec.GetHostNetwork() {
		automatic = append(slices.Clip(automatic), toleratedOnHostNetwork)
	}
	for _, t := range automatic {
		all = slices.DeleteFunc(all, func(own *corev1.Toleration) bool {
			return own.GetKey() == t.GetKey() && own.GetOperator() == t.GetOperator() && own.GetEffect() == t.GetEffect() && own.GetValue() == ""
		})
		all = append(all, proto.CloneOf(t))
	}
	return all
}

// newPod returns the pod of a set for a node. The scheduler binds it there, for its affinity allows
// no other node.
func newPod(set *appsv1.DaemonSet, hash, node string) *corev1.Pod {
	p := podcontrol.FromTemplate(set, set.GetSpec().GetTemplate())
	labels := map[string]string{}
	maps.Copy(labels, p.GetMetadata().GetLabels())
	labels[apps.LabelControllerRevision] = hash
	p.Metadata.Labels = labels
	if p.Spec == nil {
		p.Spec = &corev1.PodSpec{}
	}
	p.Spec.Tolerations = tolerations(p.GetSpec())
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if p.Spec.Affinity.NodeAffinity == nil {
		p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	// The node has been found to meet the terms of the template, which this one replaces.
	p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
		NodeSelectorTerms: []*corev1.NodeSelectorTerm{{
			MatchFields: []*corev1.NodeSelectorRequirement{{Key: nodeaffinity.FieldName, Operator: "In", Values: []string{node}}},
		}},
	}
	return p
}

// nodeOf is the node that a pod is bound to or made for, empty when it names none.
func nodeOf(p *corev1.Pod) string {
	if name := p.GetSpec().GetNodeName(); name != "" {
		return name
	}
	required := p.GetSpec().GetAffinity().GetNodeAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution()
	for _, t := range required.GetNodeSelectorTerms() {
		for _, f := range t.GetMatchFields() {
			if f.GetKey() == nodeaffinity.FieldName && f.GetOperator() == "In" && len(f.GetValues()) == 1 {
				return f.GetValues()[0]
			}
		}
	}
	return ""
}

// placement says which nodes the pods of a set belong on.
type placement struct {
	nodeName    string
	required    nodeaffinity.Required
	tolerations []*corev1.Toleration
}

func placementOf(set *appsv1.DaemonSet) placement {
	spec := set.GetSpec().GetTemplate().GetSpec()
	return placement{spec.GetNodeName(), nodeaffinity.RequiredOf(spec), tolerations(spec)}
}

// on says whether a pod is to run on a node, and whether one that is there may stay. A taint
// NoSchedule keeps new pods away.
func (p placement) on(n *corev1.Node) (runs, stays bool) {
	name, labels := n.GetMetadata().GetName(), n.GetMetadata().GetLabels()
	if p.nodeName != "" && p.nodeName != name || !p.required.Matches(name, labels) {
		return false, false
	}
	runs, stays = true, true
	for _, t := range n.GetSpec().GetTaints() {
		if slices.ContainsFunc(p.tolerations, func(x *corev1.Toleration) bool { return core.Tolerates(x, t) }) {
			continue
		}
		switch t.GetEffect() {
		case core.TaintNoSchedule:
			runs = false
		case core.TaintNoExecute:
			runs, stays = false, false
		}
	}
	return runs, stays
}
