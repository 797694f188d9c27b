package datapath

import (
	"maps"
	"net/netip"
	"slices"

	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// reach is which pods the node has a way to. The zero value is all of them.
type reach struct {
	pods   []netip.Prefix
	routed map[netip.Prefix]struct{}
	// lengths are those of the routed prefixes.
	lengths []int
}

func newReach(pods, routed []netip.Prefix) reach {
	r := reach{pods: pods, routed: make(map[netip.Prefix]struct{}, len(routed))}
	for _, p := range routed {
		r.routed[p.Masked()] = struct{}{}
		if !slices.Contains(r.lengths, p.Bits()) {
			r.lengths = append(r.lengths, p.Bits())
		}
	}
	return r
}

// covers reports whether there is a way to the address: it is no pod's, or it is of a pod whose
// network is routed.
func (r *reach) covers(addr netip.Addr) bool {
	if !slices.ContainsFunc(r.pods, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return true
	}
	for _, bits := range r.lengths {
		if p, err := addr.Prefix(bits); err == nil {
			if _, ok := r.routed[p]; ok {
				return true
			}
		}
	}
	return false
}

// coversEndpoint is covers for the address that stands for an endpoint. What is no address is
// nowhere that routes matter.
func (r *reach) coversEndpoint(ep *discoveryv1.Endpoint) bool {
	if len(ep.GetAddresses()) == 0 {
		return true
	}
	addr, err := netip.ParseAddr(ep.GetAddresses()[0])
	return err != nil || r.covers(addr)
}

// SetRoutes says from which networks pods have their addresses, and to which parts of these, the
// node's own included, the node has a way. Endpoints elsewhere in the pods' networks are on nodes
// that have just come or gone, and take no connections. Before the first call all endpoints do.
func (t *Table) SetRoutes(pods, routed []netip.Prefix) {
	now := newReach(pods, routed)
	if t.reach.routed != nil && slices.Equal(t.reach.pods, now.pods) && maps.Equal(t.reach.routed, now.routed) {
		return
	}
	was := t.reach
	t.reach = now
	for k, list := range t.slices {
		for _, s := range list {
			if slices.ContainsFunc(s.GetEndpoints(), func(ep *discoveryv1.Endpoint) bool {
				return was.coversEndpoint(ep) != now.coversEndpoint(ep)
			}) {
				t.dirty[k] = struct{}{}
				break
			}
		}
	}
}
