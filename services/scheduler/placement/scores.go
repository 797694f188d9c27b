package placement

import (
	"math"
	"strings"

	"github.com/xebec-project/xebec/internal/kind"
)

// best is the highest score; the lowest is 0.
const best = 10.0

// scorer rates nodes that would do.
type scorer struct {
	name   string
	weight float64
	// score is from 0 to best. fleet tells about the other nodes.
	score func(p *Pod, n *node, f *fleet) float64
}

// fleet is what a score needs to know of all nodes that would do.
type fleet struct {
	// mostSiblings is the largest number of the pod's siblings on one node.
	mostSiblings int
}

// scorers and their weights. Spreading a workload's pods counts most: a node that dies should take few of them.
var scorers = []scorer{
	{"LeastAllocated", 1, scoreLeastAllocated},
	{"BalancedAllocation", 1, scoreBalanced},
	{"Spread", 2, scoreSpread},
	{"TaintToleration", 1, scoreTaints},
	{"ImageLocality", 1, scoreImages},
}

// shares are the fractions of cpu and memory that would be taken with the pod on the node.
func shares(p *Pod, n *node) (cpu, memory float64) {
	of := func(name string) float64 {
		if n.allocatable[name] <= 0 {
			return 1
		}
		return math.Min(1, float64(n.used[name]+p.requests[name])/float64(n.allocatable[name]))
	}
	return of(kind.ResourceCPU), of(kind.ResourceMemory)
}

// scoreLeastAllocated prefers nodes with more left: Kubernetes' LeastAllocated.
func scoreLeastAllocated(p *Pod, n *node, _ *fleet) float64 {
	cpu, memory := shares(p, n)
	return best * (1 - (cpu+memory)/2)
}

// scoreBalanced prefers nodes where cpu and memory would be taken evenly: Kubernetes' BalancedAllocation.
func scoreBalanced(p *Pod, n *node, _ *fleet) float64 {
	cpu, memory := shares(p, n)
	return best * (1 - math.Abs(cpu-memory)/2)
}

// scoreSpread prefers nodes with fewer pods of the same controller.
func scoreSpread(p *Pod, n *node, f *fleet) float64 {
	if p.siblings == "" || f.mostSiblings == 0 {
		return best
	}
	return best * float64(f.mostSiblings-n.siblings[p.siblings]) / float64(f.mostSiblings)
}

// scoreTaints prefers nodes without taints that ask to be avoided and that the pod does not tolerate.
func scoreTaints(p *Pod, n *node, _ *fleet) float64 {
	score := best
	for _, taint := range n.taints {
		if taint.GetEffect() != preferNoSchedule {
			continue
		}
		tolerated := false
		for _, t := range p.tolerations {
			tolerated = tolerated || kind.Tolerates(t, taint)
		}
		if !tolerated {
			score /= 2
		}
	}
	return score
}

// scoreImages prefers nodes that hold the pod's images already.
func scoreImages(p *Pod, n *node, _ *fleet) float64 {
	if len(p.images) == 0 {
		return best
	}
	held := 0
	for _, image := range p.images {
		if n.images[normalImage(image)] {
			held++
		}
	}
	return best * float64(held) / float64(len(p.images))
}

// normalImage completes an image's name as Docker does, so that a short name and the full one are the same: the default
// registry and repository, and the tag latest.
func normalImage(name string) string {
	first, rest, hasSlash := strings.Cut(name, "/")
	switch {
	case !hasSlash:
		name = "docker.io/library/" + name
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		name = "docker.io/" + name
	case first == "docker.io" && !strings.Contains(rest, "/"):
		name = "docker.io/library/" + rest
	}
	if at := strings.LastIndexAny(name, ":@"); at < strings.LastIndexByte(name, '/') {
		name += ":latest"
	}
	return name
}
