package noderesources

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// The types of a Strategy.
const (
	LeastAllocated           = "LeastAllocated"
	MostAllocated            = "MostAllocated"
	RequestedToCapacityRatio = "RequestedToCapacityRatio"
)

// Strategy says how nodes are rated by what would be taken of them, as the scoringStrategy of
// Kubernetes' NodeResourcesFit does.
type Strategy struct {
	// Type is LeastAllocated (the default), MostAllocated or RequestedToCapacityRatio.
	Type string `yaml:"type"`
	// Resources are those that count, with their weights; cpu and memory alike when empty.
	Resources []Resource `yaml:"resources"`
	// Shape is the score by utilization, for RequestedToCapacityRatio: linear between the points.
	Shape []ShapePoint `yaml:"shape"`
}

// Resource is a resource with its weight.
type Resource struct {
	// Name is the resource's name.
	Name string `yaml:"name"`
	// Weight is its weight, 1 to 100.
	Weight int `yaml:"weight"`
}

// ShapePoint is a point of the function from utilization to score.
type ShapePoint struct {
	// Utilization is the share that would be taken, 0 to 100 percent.
	Utilization int `yaml:"utilization"`
	// Score is the rating at this utilization, 0 to 10.
	Score int `yaml:"score"`
}

// Validate returns what is wrong with a strategy.
func (s Strategy) Validate() error {
	switch s.Type {
	case "", LeastAllocated, MostAllocated:
		if len(s.Shape) > 0 {
			return fmt.Errorf("shape: is for type %s only", RequestedToCapacityRatio)
		}
	case RequestedToCapacityRatio:
		if len(s.Shape) == 0 {
			return fmt.Errorf("shape: at least one point is required for type %s", RequestedToCapacityRatio)
		}
	default:
		return fmt.Errorf("type: unknown strategy %q: want %s, %s or %s", s.Type, LeastAllocated, MostAllocated, RequestedToCapacityRatio)
	}
	for i, r := range s.Resources {
		if r.Name == "" || r.Weight < 1 || r.Weight > 100 {
			return fmt.Errorf("resources[%d]: want a name, and a weight of 1 to 100, not %q and %d", i, r.Name, r.Weight)
		}
	}
	for i, p := range s.Shape {
		switch {
		case p.Utilization < 0 || p.Utilization > 100 || p.Score < 0 || p.Score > framework.MaxScore:
			return fmt.Errorf("shape[%d]: want a utilization of 0 to 100 and a score of 0 to 10, not %d and %d", i, p.Utilization, p.Score)
		case i > 0 && p.Utilization <= s.Shape[i-1].Utilization:
			return errors.New("shape: the utilizations must increase")
		}
	}
	return nil
}

// rate rates the share of a resource that would be taken, 0 to 1.
func (s Strategy) rate(share float64) float64 {
	switch s.Type {
	case MostAllocated:
		return framework.MaxScore * share
	case RequestedToCapacityRatio:
		return interpolate(s.Shape, 100*share)
	}
	return framework.MaxScore * (1 - share)
}

func interpolate(shape []ShapePoint, utilization float64) float64 {
	next := slices.IndexFunc(shape, func(p ShapePoint) bool { return utilization <= float64(p.Utilization) })
	switch {
	case next < 0:
		return float64(shape[len(shape)-1].Score)
	case next == 0:
		return float64(shape[0].Score)
	}
	from, to := shape[next-1], shape[next]
	return float64(from.Score) + float64(to.Score-from.Score)*(utilization-float64(from.Utilization))/float64(to.Utilization-from.Utilization)
}

// PreScore implements framework.PreScorePlugin.
func (pl Fit) PreScore(s *framework.Snapshot, p *framework.Pod, _ []*framework.Node) framework.NodeScorer {
	counted := pl.Strategy.Resources
	if len(counted) == 0 {
		counted = []Resource{{core.ResourceCPU, 1}, {core.ResourceMemory, 1}}
	}
	sc := utilization{strategy: pl.Strategy}
	for _, r := range counted {
		id, offered := s.Resources.ID(r.Name)
		request := p.Request(r.Name)
		// A device that the pod does not use says nothing about a node.
		if offered && (request > 0 || id == framework.CPU || id == framework.Memory) {
			sc.resources = append(sc.resources, weightedRequest{id, request, float64(r.Weight)})
		}
	}
	if len(sc.resources) == 0 {
		return nil
	}
	return &sc
}

// utilization rates nodes by the shares of resources that would be taken.
type utilization struct {
	strategy  Strategy
	resources []weightedRequest
}

type weightedRequest struct {
	id      framework.ResourceID
	request int64
	weight  float64
}

// Score implements framework.NodeScorer.
func (u *utilization) Score(_ int, n *framework.Node) float64 {
	sum, weights := 0.0, 0.0
	for _, r := range u.resources {
		if n.Allocatable[r.id] <= 0 {
			continue
		}
		score := u.strategy.rate(share(r.request, r.id, n))
		if score == 0 && u.strategy.Type == RequestedToCapacityRatio {
			continue // As in Kubernetes, a resource with score 0 does not count.
		}
		sum += r.weight * score
		weights += r.weight
	}
	if weights == 0 {
		return 0
	}
	return sum / weights
}

// BalancedAllocation prefers nodes where cpu and memory would be taken evenly, as Kubernetes'
// plug-in NodeResourcesBalancedAllocation does.
type BalancedAllocation struct{}

// Name implements framework.Plugin.
func (BalancedAllocation) Name() string { return "NodeResourcesBalancedAllocation" }

// PreScore implements framework.PreScorePlugin.
func (BalancedAllocation) PreScore(_ *framework.Snapshot, p *framework.Pod, _ []*framework.Node) framework.NodeScorer {
	return balancedAllocation{p.Request(core.ResourceCPU), p.Request(core.ResourceMemory)}
}

// balancedAllocation holds the pod's requests.
type balancedAllocation struct{ cpu, memory int64 }

// Score implements framework.NodeScorer.
func (s balancedAllocation) Score(_ int, n *framework.Node) float64 {
	return framework.MaxScore * (1 - math.Abs(share(s.cpu, framework.CPU, n)-share(s.memory, framework.Memory, n))/2)
}

// share returns the fraction of a resource of a node that would be taken with the pod on it.
func share(request int64, id framework.ResourceID, n *framework.Node) float64 {
	if n.Allocatable[id] <= 0 {
		return 1
	}
	return min(1, float64(n.Used[id]+request)/float64(n.Allocatable[id]))
}
