package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/internal/ipalloc"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// addresses returns the node's own addresses; the IPv6 one is invalid when there is none.
func (c *Config) addresses() (four, six netip.Addr, err error) {
	first, second, two := strings.Cut(c.Address, ",")
	if four, err = netip.ParseAddr(strings.TrimSpace(first)); err != nil || !four.Is4() {
		return four, six, fmt.Errorf("%q is not an IPv4 address", strings.TrimSpace(first))
	}
	if !two {
		return four, six, nil
	}
	if six, err = netip.ParseAddr(strings.TrimSpace(second)); err != nil || !six.Is6() || six.Is4In6() {
		return four, six, fmt.Errorf("%q is not an IPv6 address", strings.TrimSpace(second))
	}
	return four, six, nil
}

// dualStack reports whether the cluster's pods have addresses of both families.
func (a *Agent) dualStack() bool {
	r, err := parseRanges(a.cfg.ClusterCIDR)
	return err == nil && r.six.IsValid()
}

// ranges are networks of both families; the IPv6 one is invalid when there is none.
type ranges struct{ four, six netip.Prefix }

func parseRanges(text string) (ranges, error) {
	list, err := ipalloc.ParseFamilies(text)
	if err != nil {
		return ranges{}, err
	}
	r := ranges{four: list[0]}
	if len(list) > 1 {
		r.six = list[1]
	}
	return r, nil
}

// list returns those that are valid.
func (r ranges) list() []netip.Prefix {
	if r.six.IsValid() {
		return []netip.Prefix{r.four, r.six}
	}
	return []netip.Prefix{r.four}
}

// validateRanges checks the addresses of nodes, pods and services against each other.
func (c *Config) validateRanges(add func(key, format string, args ...any)) {
	_, six, err := c.addresses()
	if err != nil {
		add("address", "%v", err)
	}
	cluster, err := parseRanges(c.ClusterCIDR)
	if err != nil {
		add("clusterCIDR", "%v", err)
	}
	services, serviceErr := parseRanges(c.ServiceCIDR)
	if serviceErr != nil {
		add("serviceCIDR", "%v", serviceErr)
	}
	if err == nil && serviceErr == nil {
		named := append(ipalloc.Named("cluster CIDR", cluster.list()), ipalloc.Named("service CIDR", services.list())...)
		if err := ipalloc.CheckDisjoint(named...); err != nil {
			add("clusterCIDR", "%v", err)
		}
		if cluster.six.IsValid() != services.six.IsValid() {
			add("serviceCIDR", "%s and the cluster CIDR %s must be of the same families", c.ServiceCIDR, c.ClusterCIDR)
		}
		if six.IsValid() && !cluster.six.IsValid() {
			add("address", "the IPv6 address %s cannot be used: the cluster CIDR %s has no IPv6 range", six, c.ClusterCIDR)
		}
	}
	if a, err := netip.ParseAddr(c.ClusterDNS); err != nil || services.four.IsValid() && !services.four.Contains(a) {
		add("clusterDNS", "%q is not an address of the service CIDR %s", c.ClusterDNS, c.ServiceCIDR)
	}
}

// podRanges returns the ranges that a node has been given for its pods.
func podRanges(n *corev1.Node) (ranges, error) {
	texts := n.GetSpec().GetPodCidrs()
	if len(texts) == 0 && n.GetSpec().GetPodCidr() != "" {
		texts = []string{n.GetSpec().GetPodCidr()}
	}
	var r ranges
	var errs []error
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		errs = append(errs, err)
		if err == nil && p.Addr().Is4() {
			r.four = p
		} else if err == nil {
			r.six = p
		}
	}
	return r, errors.Join(errs...)
}

// podCIDRs returns where this node's pods get their addresses from, as soon as that is known, from
// the last time or from the control plane. In a dual-stack cluster it waits until there is a range
// of either family.
func (w *watches) podCIDRs(ctx context.Context, known *corev1.Node, dualStack bool) (ranges, error) {
	r, err := podRanges(known)
	for err == nil && (!r.four.IsValid() || dualStack && !r.six.IsValid()) {
		select {
		case <-ctx.Done():
			return ranges{}, ctx.Err()
		case r = <-w.cidrs:
		}
	}
	if !dualStack {
		r.six = netip.Prefix{} // the cluster has one, and this node is not configured for it
	}
	return r, err
}

// nodeAddress6 returns a node's IPv6 address, invalid if it tells none.
func nodeAddress6(n *corev1.Node) netip.Addr {
	for _, a := range n.GetStatus().GetAddresses() {
		if a.GetType() == "InternalIP" && core.FamilyOf(a.GetAddress()) == core.FamilyIPv6 {
			six, _ := netip.ParseAddr(a.GetAddress())
			return six
		}
	}
	return netip.Addr{}
}

// routesOf returns the routes to a node's pods, one for each family, or what they depend on.
func routesOf(n *corev1.Node) []podnet.NodeRoute {
	cidrs, err1 := podRanges(n)
	addr, err2 := netip.ParseAddr(core.NodeAddress(n, "InternalIP"))
	if errors.Join(err1, err2) != nil || !cidrs.four.IsValid() {
		return nil
	}
	var out []podnet.NodeRoute
	for _, cidr := range cidrs.list() {
		out = append(out, podnet.NodeRoute{PodCIDR: cidr, NodeIP: addr, NodeIP6: nodeAddress6(n)})
	}
	return out
}
