package placement

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Taint effects, as Kubernetes names them.
const (
	noSchedule       = "NoSchedule"
	noExecute        = "NoExecute"
	preferNoSchedule = "PreferNoSchedule"
)

// filter refuses nodes for a pod.
type filter struct {
	name string
	// refuse returns why the node will not do: in short, as events count it, each reason by itself, and in full, with the
	// numbers. Both are empty when it will.
	refuse func(p *Pod, n *node) (short []string, full string)
}

// filters in the order in which they are asked: the cheap and the likely first. The first refusal counts.
var filters = []filter{
	{"NodeUnschedulable", refuseUnschedulable},
	{"NodeSelector", refuseSelector},
	{"TaintToleration", refuseTaints},
	{"HostPorts", refusePorts},
	{"NodeResources", refuseResources},
}

func refuseUnschedulable(p *Pod, n *node) ([]string, string) {
	if !n.unschedulable || slices.ContainsFunc(p.tolerations, func(t *corev1.Toleration) bool {
		return kind.Tolerates(t, &corev1.Taint{Key: "node.kubernetes.io/unschedulable", Effect: noSchedule})
	}) {
		return nil, ""
	}
	return []string{"node(s) were unschedulable"}, "the node is cordoned (spec.unschedulable)"
}

func refuseSelector(p *Pod, n *node) ([]string, string) {
	for _, key := range slices.Sorted(maps.Keys(p.selector)) {
		if value, ok := n.labels[key]; !ok || value != p.selector[key] {
			has := "has no such label"
			if ok {
				has = fmt.Sprintf("has %q", value)
			}
			return []string{"node(s) didn't match Pod's node affinity/selector"}, fmt.Sprintf("the pod wants label %s=%s, the node %s", key, p.selector[key], has)
		}
	}
	return nil, ""
}

func refuseTaints(p *Pod, n *node) ([]string, string) {
	for _, taint := range n.taints {
		if taint.GetEffect() != noSchedule && taint.GetEffect() != noExecute {
			continue
		}
		if !slices.ContainsFunc(p.tolerations, func(t *corev1.Toleration) bool { return kind.Tolerates(t, taint) }) {
			text := fmt.Sprintf("untolerated taint {%s: %s}", taint.GetKey(), taint.GetValue())
			return []string{"node(s) had " + text}, fmt.Sprintf("%s, effect %s", text, taint.GetEffect())
		}
	}
	return nil, ""
}

func refusePorts(p *Pod, n *node) ([]string, string) {
	for _, want := range p.ports {
		for taken := range n.ports {
			if want.clashes(taken) {
				return []string{"node(s) didn't have free ports for the requested pod ports"}, fmt.Sprintf("host port %d/%s is taken", want.port, want.protocol)
			}
		}
	}
	return nil, ""
}

func refuseResources(p *Pod, n *node) ([]string, string) {
	// Most nodes have room. Only reasons need an order.
	var lacking []string
	for name, want := range p.requests {
		if want != 0 && want > n.allocatable[name]-n.used[name] {
			lacking = append(lacking, name)
		}
	}
	slices.Sort(lacking)
	var short, full []string
	for _, name := range lacking {
		want, free := p.requests[name], n.allocatable[name]-n.used[name]
		if name == kind.ResourcePods {
			short = append(short, "Too many pods")
			full = append(full, fmt.Sprintf("the node holds %d pods and takes %d", n.used[name], n.allocatable[name]))
			continue
		}
		short = append(short, "Insufficient "+name)
		full = append(full, fmt.Sprintf("insufficient %s: %s requested, %s free", name, amount(name, want), amount(name, max(free, 0))))
	}
	return short, strings.Join(full, "; ")
}

// amount writes an amount as manifests do.
func amount(resource string, n int64) string {
	switch {
	case resource == kind.ResourceCPU && n%1000 == 0:
		return fmt.Sprint(n / 1000)
	case resource == kind.ResourceCPU:
		return fmt.Sprintf("%dm", n)
	case resource == kind.ResourceMemory || resource == kind.ResourceEphemeralStorage:
		for _, unit := range []struct {
			suffix string
			size   int64
		}{{"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}} {
			if n >= unit.size {
				return fmt.Sprintf("%.4g%s", float64(n)/float64(unit.size), unit.suffix)
			}
		}
	}
	return fmt.Sprint(n)
}

func sortNodes(nodes []*node) {
	slices.SortFunc(nodes, func(a, b *node) int { return cmp.Compare(a.name, b.name) })
}
