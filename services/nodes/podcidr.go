package nodes

import (
	"context"
	"fmt"
	"iter"
	"math/big"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// podCIDRs gives every node its range of pod addresses, one per family, once and for good. It runs with one worker under a fence, and
// remembers what it gave before the informer shows it, so that no range is given twice.
type podCIDRs struct {
	client  *client.Client
	nodes   *client.Informer[*corev1.Node]
	events  *events.Recorder
	cluster []netip.Prefix          // of different families
	bits    []int                   // of a node's range of each
	given   map[netip.Prefix]string // to the node of this name, in this term
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
	for i, cluster := range c.cluster {
		if slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return sameFamily(p, cluster) }) {
			continue
		}
		free, ok := c.choose(node, i)
		if !ok {
			c.events.Event(node, events.Warning, "CIDRNotAvailable", "Every /%d of the cluster CIDR %s is given to a node: delete nodes, or start the cluster with a larger range", c.bits[i], cluster)
			return controller.Result{}, fmt.Errorf("no /%d of %s is free", c.bits[i], cluster)
		}
		// Noted before the write: one whose answer is lost may have happened all the same.
		c.given[free] = key.Name
		ranges = append(ranges, free)
	}
	updated.Spec.PodCidr, updated.Spec.PodCidrs = ranges[0].String(), nil
	for _, r := range ranges {
		updated.Spec.PodCidrs = append(updated.Spec.PodCidrs, r.String())
	}
	if _, err := client.Update(ctx, c.client, updated); err != nil {
		return controller.Result{}, fmt.Errorf("give node %s the pod ranges %s: %w", key.Name, ranges, err)
	}
	return controller.Result{}, nil
}

// lacks tells whether a node has no range of one of the cluster's families.
func (c *podCIDRs) lacks(node *corev1.Node) bool {
	has := rangesOf(node)
	return slices.ContainsFunc(c.cluster, func(cluster netip.Prefix) bool {
		return !slices.ContainsFunc(has, func(p netip.Prefix) bool { return sameFamily(p, cluster) })
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

// choose returns the range of the i-th family for a node: the one that it was given a moment ago, the one that it had before
// the cluster forgot it, or else the first; one that overlaps no other's.
func (c *podCIDRs) choose(node *corev1.Node, i int) (netip.Prefix, bool) {
	name := node.GetMetadata().GetName()
	taken := map[netip.Prefix]bool{}
	var odd []netip.Prefix // of another size, by hand or from before the size was changed
	exists := map[string]bool{}
	for _, n := range c.nodes.List() {
		exists[n.GetMetadata().GetName()] = true
		for _, p := range rangesOf(n) {
			if sameFamily(p, c.cluster[i]) && p.Bits() == c.bits[i] {
				taken[p.Masked()] = true
			} else {
				odd = append(odd, p)
			}
		}
	}
	var again netip.Prefix
	for p, to := range c.given {
		switch {
		case !exists[to]:
			delete(c.given, p)
		case to == name && !taken[p] && sameFamily(p, c.cluster[i]):
			again = p
		default:
			taken[p] = true
		}
	}
	if again.IsValid() {
		return again, true
	}
	isTaken := func(p netip.Prefix) bool { return taken[p] || slices.ContainsFunc(odd, p.Overlaps) }
	if former, ok := c.former(node, i); ok && !isTaken(former) {
		return former, true
	}
	return firstFree(c.cluster[i], c.bits[i], isTaken)
}

// former returns the range of the i-th family that a node says it had, if it is one that a node can be given.
func (c *podCIDRs) former(node *corev1.Node, i int) (netip.Prefix, bool) {
	for text := range strings.SplitSeq(node.GetMetadata().GetAnnotations()[kind.AnnotationPodCIDRs], ",") {
		p, err := netip.ParsePrefix(text)
		if err == nil && p == p.Masked() && p.Bits() == c.bits[i] && sameFamily(p, c.cluster[i]) && c.cluster[i].Contains(p.Addr()) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// firstFree returns the lowest range of the given prefix length that is not taken.
func firstFree(cluster netip.Prefix, bits int, taken func(netip.Prefix) bool) (netip.Prefix, bool) {
	for p := range subnets(cluster, bits) {
		if !taken(p) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// subnets are the ranges of a prefix length within a larger one, in order.
func subnets(cluster netip.Prefix, bits int) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		length := cluster.Addr().BitLen()
		step := new(big.Int).Lsh(big.NewInt(1), uint(length-bits))
		at := new(big.Int).SetBytes(cluster.Masked().Addr().AsSlice())
		for p := netip.PrefixFrom(cluster.Masked().Addr(), bits); cluster.Contains(p.Addr()); {
			if !yield(p) {
				return
			}
			at.Add(at, step)
			b := make([]byte, length/8)
			if at.BitLen() > length {
				return
			}
			addr, _ := netip.AddrFromSlice(at.FillBytes(b))
			p = netip.PrefixFrom(addr, bits)
		}
	}
}
