package nodes

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// podCIDRs gives every node its range of pod addresses, one per family, once and for good. It runs
// with one worker under a fence, and remembers what it gave before the informer shows it, so that
// no range is given twice.
type podCIDRs struct {
	client *client.Client
	nodes  *client.Informer[*corev1.Node]
	events *events.Recorder
	pools  []*rangePool // of different families
	// counted are the ranges of nodes, by their names, that the pools count as used. Only changed,
	// which is called by one goroutine, reads it.
	counted map[string][]netip.Prefix
}

// newPodCIDRs follows the nodes of an informer that does not run yet.
func newPodCIDRs(
	c *client.Client, nodes *client.Informer[*corev1.Node], recorder *events.Recorder, clusters []netip.Prefix, bits []int,
) *podCIDRs {
	out := &podCIDRs{client: c, nodes: nodes, events: recorder, counted: map[string][]netip.Prefix{}}
	for i, cluster := range clusters {
		out.pools = append(out.pools, newRangePool(cluster, bits[i]))
	}
	nodes.OnChange(out.changed)
	return out
}

// changed notes which ranges a node has. A node that is removed may have had others at its end than
// those that were seen.
func (c *podCIDRs) changed(old, now *corev1.Node) {
	name := cmp.Or(now, old).GetMetadata().GetName()
	before, after := c.counted[name], rangesOf(now)
	if now != nil && slices.Equal(before, after) {
		return
	}
	for _, pool := range c.pools {
		for _, p := range after {
			pool.use(p)
		}
		for _, p := range before {
			pool.drop(p)
		}
		if now == nil {
			pool.forget(name)
		}
	}
	if c.counted[name] = after; now == nil {
		delete(c.counted, name)
	}
}

func (c *podCIDRs) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	node, ok := c.nodes.Get("", key.Name)
	if !ok || !c.lacks(node) {
		return controller.Result{}, nil
	}
	updated := proto.Clone(node).(*corev1.Node)
	if updated.Spec == nil {
		updated.Spec = &corev1.NodeSpec{}
	}
	ranges := rangesOf(node)
	for _, pool := range c.pools {
		if slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return sameFamily(p, pool.cluster) }) {
			continue
		}
		// It stays reserved when the write fails: one whose answer is lost may have happened all the
		// same.
		free, ok := pool.reserve(key.Name, pool.former(node))
		if !ok {
			c.events.Event(node, events.Warning, "CIDRNotAvailable",
				"Every /%d of the cluster CIDR %s is allocated to a node: delete nodes, or start the cluster with a larger range",
				pool.bits, pool.cluster)
			return controller.Result{}, fmt.Errorf("no /%d of %s is free", pool.bits, pool.cluster)
		}
		ranges = append(ranges, free)
	}
	updated.Spec.PodCidr, updated.Spec.PodCidrs = ranges[0].String(), nil
	for _, r := range ranges {
		updated.Spec.PodCidrs = append(updated.Spec.PodCidrs, r.String())
	}
	if _, err := client.Update(ctx, c.client, updated); err != nil {
		return controller.Result{}, fmt.Errorf("allocate pod ranges %s to node %s: %w", ranges, key.Name, err)
	}
	return controller.Result{}, nil
}

// lacks tells whether a node has no range of one of the cluster's families.
func (c *podCIDRs) lacks(node *corev1.Node) bool {
	has := rangesOf(node)
	return slices.ContainsFunc(c.pools, func(pool *rangePool) bool {
		return !slices.ContainsFunc(has, func(p netip.Prefix) bool { return sameFamily(p, pool.cluster) })
	})
}

func sameFamily(a, b netip.Prefix) bool { return a.Addr().Is4() == b.Addr().Is4() }

// rangesOf returns the ranges that a node has, as it names them.
func rangesOf(node *corev1.Node) []netip.Prefix {
	texts := node.GetSpec().GetPodCidrs()
	if len(texts) == 0 {
		texts = []string{node.GetSpec().GetPodCidr()}
	}
	var out []netip.Prefix
	for _, text := range texts {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// former returns the range that a node says it had, before the cluster forgot it, and the zero
// prefix when it says none that a node can be given.
func (r *rangePool) former(node *corev1.Node) netip.Prefix {
	for text := range strings.SplitSeq(node.GetMetadata().GetAnnotations()[core.AnnotationPodCIDRs], ",") {
		p, err := netip.ParsePrefix(text)
		if err == nil && p == p.Masked() && p.Bits() == r.bits && sameFamily(p, r.cluster) && r.cluster.Contains(p.Addr()) {
			return p
		}
	}
	return netip.Prefix{}
}
