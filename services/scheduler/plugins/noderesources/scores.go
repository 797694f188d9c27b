package noderesources

import (
	"math"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// LeastAllocated prefers nodes with more cpu and memory left, as Kubernetes' strategy of this name
// does.
type LeastAllocated struct{}

// Name implements framework.Plugin.
func (LeastAllocated) Name() string { return "NodeResourcesFit" }

// PreScore implements framework.PreScorePlugin.
func (LeastAllocated) PreScore(_ *framework.Snapshot, p *framework.Pod, _ []*framework.Node) framework.NodeScorer {
	return leastAllocated{requestsOf(p)}
}

type leastAllocated struct{ requests }

// Score implements framework.NodeScorer.
func (s leastAllocated) Score(_ int, n *framework.Node) float64 {
	cpu, memory := s.shares(n)
	return framework.MaxScore * (1 - (cpu+memory)/2)
}

// BalancedAllocation prefers nodes where cpu and memory would be taken evenly, as Kubernetes'
// plug-in of this name does.
type BalancedAllocation struct{}

// Name implements framework.Plugin.
func (BalancedAllocation) Name() string { return "NodeResourcesBalancedAllocation" }

// PreScore implements framework.PreScorePlugin.
func (BalancedAllocation) PreScore(_ *framework.Snapshot, p *framework.Pod, _ []*framework.Node) framework.NodeScorer {
	return balancedAllocation{requestsOf(p)}
}

type balancedAllocation struct{ requests }

// Score implements framework.NodeScorer.
func (s balancedAllocation) Score(_ int, n *framework.Node) float64 {
	cpu, memory := s.shares(n)
	return framework.MaxScore * (1 - math.Abs(cpu-memory)/2)
}

// requests are the pod's requests that are scored.
type requests struct{ cpu, memory int64 }

func requestsOf(p *framework.Pod) requests {
	return requests{p.Request(core.ResourceCPU), p.Request(core.ResourceMemory)}
}

// shares returns the fractions of the node's cpu and memory that would be taken with the pod on it.
func (r requests) shares(n *framework.Node) (cpu, memory float64) {
	return share(r.cpu, framework.CPU, n), share(r.memory, framework.Memory, n)
}

func share(request int64, id framework.ResourceID, n *framework.Node) float64 {
	if n.Allocatable[id] <= 0 {
		return 1
	}
	return min(1, float64(n.Used[id]+request)/float64(n.Allocatable[id]))
}
