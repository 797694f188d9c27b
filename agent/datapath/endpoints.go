package datapath

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// candidate is an endpoint that may take connections.
type candidate struct {
	address  netip.AddrPort
	endpoint *discoveryv1.Endpoint
}

// selectBackends returns the addresses that new connections to the port of the
// service may go to, sorted and without duplicates. As kube-proxy does, it
// takes the ready endpoints and, when there is none, those that terminate but
// still serve. With local only endpoints on the client's node count. Otherwise
// those that the service prefers for the client are taken, if it prefers any.
// All are of one family, IPv6 or IPv4.
func (t *Table) selectBackends(
	svc *corev1.Service,
	port *corev1.ServicePort,
	endpoints []*discoveryv1.EndpointSlice,
	six, local bool,
) []netip.AddrPort {
	publish := svc.GetSpec().GetPublishNotReadyAddresses()
	family := familyName(six)
	var ready, draining []candidate
	for _, slice := range endpoints {
		if slice.GetAddressType() != family {
			continue
		}
		target, ok := targetPort(slice, port)
		if !ok {
			continue
		}
		for _, ep := range slice.GetEndpoints() {
			if local && ep.GetNodeName() != t.node {
				continue
			}
			if len(ep.GetAddresses()) == 0 {
				continue
			}
			// All addresses of an endpoint are the same pod's: the first stands for it.
			addr, err := netip.ParseAddr(ep.GetAddresses()[0])
			if err != nil || addr.Is6() != six || addr.Is4In6() || !t.reach.covers(addr) {
				continue
			}
			c := conditionsOf(ep)
			switch {
			case c.ready || publish:
				ready = append(ready, candidate{netip.AddrPortFrom(addr, target), ep})
			case c.serving && c.terminating:
				draining = append(draining, candidate{netip.AddrPortFrom(addr, target), ep})
			}
		}
	}
	if len(ready) == 0 {
		ready = draining
	} else if !local {
		ready = t.prefer(ready, svc.GetSpec().GetTrafficDistribution())
	}
	out := make([]netip.AddrPort, 0, len(ready))
	for _, c := range ready {
		out = append(out, c.address)
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// prefer returns the endpoints that clients on the node are to use: what hints on
// every endpoint say, or else the nearest ones that the distribution asks for.
// When that leaves none, near is no worse than far.
func (t *Table) prefer(all []candidate, distribution string) []candidate {
	var wanted []func(*discoveryv1.Endpoint) bool
	zone := t.zones[t.node]
	onNode := func(ep *discoveryv1.Endpoint) bool { return ep.GetNodeName() == t.node }
	inZone := func(ep *discoveryv1.Endpoint) bool {
		return zone != "" && cmp.Or(ep.GetZone(), t.zones[ep.GetNodeName()]) == zone
	}
	switch distribution {
	case "":
		return all
	case "PreferSameNode":
		wanted = append(wanted, onNode, inZone)
	default: // PreferClose and PreferSameZone, which are one
		wanted = append(wanted, inZone)
	}
	hinted := !slices.ContainsFunc(all, func(c candidate) bool {
		hints := c.endpoint.GetHints()
		return len(hints.GetForNodes()) == 0 && len(hints.GetForZones()) == 0
	})
	if hinted {
		wanted = slices.Insert(wanted, 0,
			func(ep *discoveryv1.Endpoint) bool {
				return slices.ContainsFunc(ep.GetHints().GetForNodes(), func(n *discoveryv1.ForNode) bool { return n.GetName() == t.node })
			},
			func(ep *discoveryv1.Endpoint) bool {
				return slices.ContainsFunc(ep.GetHints().GetForZones(), func(z *discoveryv1.ForZone) bool { return z.GetName() == zone })
			})
	}
	for _, near := range wanted {
		if found := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return !near(c.endpoint) }); len(found) > 0 {
			return found
		}
	}
	return all
}

// targetPort finds the slice's port that carries the service port: the one of
// the same name and protocol.
func targetPort(slice *discoveryv1.EndpointSlice, port *corev1.ServicePort) (uint16, bool) {
	for _, p := range slice.GetPorts() {
		if p.GetName() != port.GetName() || protocolName(p.GetProtocol()) != protocolName(port.GetProtocol()) {
			continue
		}
		if n := p.GetPort(); n > 0 && n < 1<<16 {
			return uint16(n), true
		}
	}
	return 0, false
}

func protocolName(s string) string {
	if s == "" {
		return "TCP"
	}
	return s
}

type conditions struct{ ready, serving, terminating bool }

// conditionsOf resolves what the API leaves out: an endpoint that says nothing
// is ready, one that says nothing of serving serves when it is ready.
func conditionsOf(ep *discoveryv1.Endpoint) conditions {
	in := ep.GetConditions()
	c := conditions{ready: true, terminating: in.GetTerminating()}
	if in != nil && in.Ready != nil {
		c.ready = *in.Ready
	}
	c.serving = c.ready
	if in != nil && in.Serving != nil {
		c.serving = *in.Serving
	}
	return c
}

// assignSlots orders the wanted backends so that as many as possible keep the
// slot that they have in current: flows that stick to a slot then stay with
// their backend when another one comes or goes. Wanted holds no duplicates.
func assignSlots(current, wanted []netip.AddrPort) []netip.AddrPort {
	slots := make([]netip.AddrPort, len(wanted))
	placed := make(map[netip.AddrPort]bool, len(wanted))
	for i, b := range current[:min(len(current), len(wanted))] {
		if _, found := slices.BinarySearchFunc(wanted, b, netip.AddrPort.Compare); found {
			slots[i] = b
			placed[b] = true
		}
	}
	hole := 0
	for _, b := range wanted {
		if placed[b] {
			continue
		}
		for slots[hole].IsValid() {
			hole++
		}
		slots[hole] = b
	}
	return slots
}
