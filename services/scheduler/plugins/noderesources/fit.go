// Package noderesources holds the plug-ins that look at what nodes have left: one that refuses
// nodes with too little and rates them by what would be taken, and one that prefers an even use.
package noderesources

import (
	"fmt"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Fit refuses nodes that have less free than the pod requests, or no room for one more pod, and
// rates nodes by what would be taken of them.
type Fit struct {
	// Strategy says how nodes are rated.
	Strategy Strategy
}

// Name implements framework.Plugin.
func (Fit) Name() string { return "NodeResourcesFit" }

// EventsToRegister implements framework.PreFilterPlugin.
func (pl Fit) EventsToRegister() []framework.EventHint {
	const kinds = framework.NodeAdded | framework.NodeAllocatableChanged | framework.PodRemoved | framework.PodShrunk
	return []framework.EventHint{framework.NodeLocal(kinds, pl)}
}

// PreFilter implements framework.PreFilterPlugin.
func (Fit) PreFilter(s *framework.Snapshot, p *framework.Pod) framework.NodeFilter {
	f := make(fit, len(p.Requests))
	for i, r := range p.Requests {
		id, offered := s.Resources.ID(r.Name)
		f[i] = request{Request: r, id: id, offered: offered, reasons: []string{"Insufficient " + r.Name}}
		if r.Name == core.ResourcePods {
			f[i].reasons = []string{"Too many pods"}
		}
	}
	return f
}

// request is an amount that the pod requests.
type request struct {
	framework.Request
	id      framework.ResourceID
	offered bool // by any node: the id is valid
	reasons []string
}

// free returns what the node has left of the resource, less than zero when its pods request more
// than it has.
func (r *request) free(n *framework.Node) int64 {
	if !r.offered {
		return 0
	}
	return n.Allocatable[r.id] - n.Used[r.id]
}

// fit holds the pod's requests, by name.
type fit []request

// Filter implements framework.NodeFilter.
func (f fit) Filter(n *framework.Node) []string {
	var lacking []string
	for i := range f {
		switch r := &f[i]; {
		case r.Amount <= r.free(n):
		case lacking == nil:
			lacking = r.reasons
		default:
			lacking = append(lacking[:len(lacking):len(lacking)], r.reasons...)
		}
	}
	return lacking
}

// MayPass implements framework.Preemptible: the node offers what the pod requests.
func (f fit) MayPass(n *framework.Node) bool {
	return !slices.ContainsFunc(f, func(r request) bool { return !r.offered || r.Amount > n.Allocatable[r.id] })
}

// Explain implements framework.NodeFilter.
func (f fit) Explain(n *framework.Node) string {
	var lacking []string
	for i := range f {
		switch r, free := &f[i], f[i].free(n); {
		case r.Amount <= free:
		case r.Name == core.ResourcePods:
			lacking = append(lacking, fmt.Sprintf("the node holds %d pods and takes %d", n.Used[r.id], n.Allocatable[r.id]))
		default:
			lacking = append(lacking, fmt.Sprintf("insufficient %s: %s requested, %s free",
				r.Name, format(r.Name, r.Amount), format(r.Name, max(free, 0))))
		}
	}
	return strings.Join(lacking, "; ")
}

// format writes an amount as manifests do.
func format(resource string, n int64) string {
	switch {
	case resource == core.ResourceCPU && n%1000 == 0:
		return fmt.Sprint(n / 1000)
	case resource == core.ResourceCPU:
		return fmt.Sprintf("%dm", n)
	case resource == core.ResourceMemory || resource == core.ResourceEphemeralStorage:
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
