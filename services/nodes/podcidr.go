package nodes

import (
	"context"
	"fmt"
	"iter"
	"math/big"
	"net/netip"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// podCIDRs gives every node its range of pod addresses, once and for good. It runs with one worker under a fence, and
// remembers what it gave before the informer shows it, so that no range is given twice.
type podCIDRs struct {
	client  *client.Client
	nodes   *client.Informer[*corev1.Node]
	events  *events.Recorder
	cluster netip.Prefix
	bits    int
	given   map[netip.Prefix]string // to the node of this name, in this term
}

func (c *podCIDRs) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	node, ok := c.nodes.Get("", key.Name)
	if !ok || node.GetSpec().GetPodCidr() != "" {
		return controller.Result{}, nil
	}
	taken := map[netip.Prefix]bool{}
	exists := map[string]bool{}
	for _, n := range c.nodes.List() {
		exists[n.GetMetadata().GetName()] = true
		if p, err := netip.ParsePrefix(n.GetSpec().GetPodCidr()); err == nil {
			taken[p] = true
		}
	}
	for p, name := range c.given {
		if !exists[name] {
			delete(c.given, p)
			continue
		}
		taken[p] = true
	}
	free, ok := firstFree(c.cluster, c.bits, taken)
	if !ok {
		c.events.Event(node, events.Warning, "CIDRNotAvailable", "Every /%d of the cluster CIDR %s is given to a node: delete nodes, or start the cluster with a larger range", c.bits, c.cluster)
		return controller.Result{}, fmt.Errorf("no /%d of %s is free", c.bits, c.cluster)
	}
	updated := proto.Clone(node).(*corev1.Node)
	if updated.Spec == nil {
		updated.Spec = &corev1.NodeSpec{}
	}
	updated.Spec.PodCidr, updated.Spec.PodCidrs = free.String(), []string{free.String()}
	if _, err := client.Update(ctx, c.client, updated); err != nil {
		return controller.Result{}, fmt.Errorf("give node %s the pod range %s: %w", key.Name, free, err)
	}
	c.given[free] = key.Name
	return controller.Result{}, nil
}

// firstFree returns the lowest range of the given prefix length that is not taken.
func firstFree(cluster netip.Prefix, bits int, taken map[netip.Prefix]bool) (netip.Prefix, bool) {
	for p := range subnets(cluster, bits) {
		if !taken[p] {
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
