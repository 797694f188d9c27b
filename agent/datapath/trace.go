package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// Probe is a connection that might be made.
type Probe struct {
	// Source is who makes it; invalid: the node itself.
	Source netip.Addr
	// Outside says that it arrives at the node from elsewhere.
	Outside     bool
	Destination netip.AddrPort
	Protocol    Protocol
}

// Judge tells what policies say of a connection between two ends, and by which rule.
type Judge func(from, to netip.Addr, protocol Protocol, port uint16) (allowed bool, rule string)

// Verdicts of a trace.
const (
	Forwarded = "forwarded"
	Refused   = "refused"
	Dropped   = "dropped"
	// Some stands for what depends on the endpoint.
	Some = "some"
)

// Step is one decision on the way of a connection.
type Step struct{ Stage, Finding string }

// TracedBackend is an endpoint that may take the connection.
type TracedBackend struct {
	Address netip.AddrPort
	// Share is the part of new connections that it gets.
	Share                               float64
	Place, Translation, Verdict, Reason string
}

// Trace is what would become of a connection.
type Trace struct {
	Steps            []Step
	Backends         []TracedBackend
	Verdict, Decides string
	// NextNode is the node that answers for the destination, when it is not this one.
	NextNode string
}

func (t *Trace) say(stage, format string, args ...any) string {
	finding := fmt.Sprintf(format, args...)
	t.Steps = append(t.Steps, Step{stage, finding})
	return finding
}

func (t *Trace) end(verdict, stage, format string, args ...any) *Trace {
	t.Verdict, t.Decides = verdict, t.say(stage, format, args...)
	return t
}

// Trace follows a connection through the maps as the kernel has them, the routes of the
// calling thread's network namespace, and policies, which judge is asked for; nil: there
// are none. It sends nothing.
func (s *Syncer) Trace(d *Datapath, p Probe, judge Judge) (*Trace, error) {
	t := &Trace{}
	if judge == nil {
		judge = func(netip.Addr, netip.Addr, Protocol, uint16) (bool, string) { return true, "no policies are enforced" }
	}
	from := p.Source
	if !from.IsValid() {
		from = d.nodeAddress(p.Destination.Addr())
	}
	if p.Outside {
		s.mu.Lock()
		announcer, balanced := s.table.Announcer(p.Destination.Addr()), s.table.isBalanced(p.Destination.Addr())
		s.mu.Unlock()
		if balanced {
			switch announcer {
			case s.table.node:
				t.say("address", "%v is a load balancer address; this node announces it", p.Destination.Addr())
			case "":
				return t.end(
					Dropped,
					"address",
					"%v is a load balancer address that no node may announce: "+
						"no node is ready, or none has an endpoint of a service with externalTrafficPolicy Local",
					p.Destination.Addr(),
				), nil
			default:
				t.NextNode = announcer
				return t.end(Forwarded, "address", "%v is a load balancer address; node %s announces it", p.Destination.Addr(), announcer), nil
			}
		}
	}
	if p.Destination.Addr().IsLoopback() && p.Source.IsValid() {
		return t.end(Forwarded, "address", "%v is an address of the pod itself: the packet does not leave the pod", p.Destination.Addr()), nil
	}
	f := Frontend{AddrPort: p.Destination, Protocol: p.Protocol, Outside: p.Outside}
	name := s.ServiceAt(f)
	found, err := d.lookup(f)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return s.traceDirect(t, d, p, from, name, judge)
	}
	t.say("service", "%s has %v/%v in the maps, with %s", orUnknown(name), p.Destination, p.Protocol, plural(len(found.backends), "endpoint"))
	if p.Outside && len(found.sources) > 0 {
		i := slices.IndexFunc(found.sources, func(r netip.Prefix) bool { return r.Contains(p.Source) })
		if i < 0 {
			return t.end(
				Dropped,
				"clients",
				"%v is in none of the service's loadBalancerSourceRanges: %s",
				p.Source,
				join(found.sources),
			), nil
		}
		t.say("clients", "%v is in %v, one of the service's loadBalancerSourceRanges", p.Source, found.sources[i])
	}
	for _, note := range s.leftOut(f, found.backends) {
		t.say("endpoint", "%s", note)
	}
	if len(found.backends) == 0 {
		if p.Outside && p.Destination.Addr() != d.nodeAddress(p.Destination.Addr()) {
			return t.end(Dropped, "endpoint", "the service has no usable endpoint for this node"), nil
		}
		return t.end(Refused, "endpoint", "the service has no usable endpoint for this node"), nil
	}
	shares, why, err := d.shares(t, f, p, found)
	if err != nil {
		return nil, err
	}
	for i, b := range found.backends {
		out := TracedBackend{Address: b, Share: shares[i], Reason: why}
		if err := d.traceBackend(&out, p, from, judge); err != nil {
			return nil, err
		}
		t.Backends = append(t.Backends, out)
	}
	t.conclude()
	return t, nil
}

// conclude sums the endpoints up.
func (t *Trace) conclude() {
	slices.SortStableFunc(t.Backends, func(a, b TracedBackend) int { return a.Address.Compare(b.Address) })
	for _, b := range t.Backends {
		switch {
		case b.Share == 0:
		case t.Verdict == "" || t.Verdict == b.Verdict:
			t.Verdict, t.Decides = b.Verdict, fmt.Sprintf("endpoint %v: %s", b.Address, b.Reason)
		default:
			t.Verdict, t.Decides = Some, "the selected endpoint"
			return
		}
	}
	if taking := slices.DeleteFunc(slices.Clone(t.Backends), func(b TracedBackend) bool { return b.Share == 0 }); len(taking) > 1 {
		t.Decides = fmt.Sprintf("any of %d endpoints, with the same result: %s", len(taking), taking[0].Reason)
	}
}

// traceDirect follows a connection to an address that no service has here.
func (s *Syncer) traceDirect(t *Trace, d *Datapath, p Probe, from netip.Addr, wanted string, judge Judge) (*Trace, error) {
	to := p.Destination
	switch {
	case wanted != "":
		t.say("service", "%v/%v belongs to %s, but is missing in the maps: compare them with xebec node services", wanted, to, p.Protocol)
	case p.Outside && d.announces(to.Addr()):
		return t.end(Dropped, "service", "no service has port %d of the load balancer's address %v", to.Port(), to.Addr()), nil
	default:
		t.say("service", "no service has %v/%v: the destination is not translated", to, p.Protocol)
	}
	place, err := d.place(from, to.Addr(), p.Outside)
	if err != nil {
		return t.end(Dropped, "route", "there is no route to %v: %v", to.Addr(), err), nil
	}
	t.say("route", "%v is at %s", to.Addr(), place.text)
	translation, err := d.masquerades(p, from, to.Addr())
	if err != nil {
		return nil, err
	}
	t.say("translation", "%s", translation)
	allowed, rule := judge(from, to.Addr(), p.Protocol, to.Port())
	if !allowed {
		return t.end(Dropped, "policy", "%s", rule), nil
	}
	return t.end(Forwarded, "policy", "%s", rule), nil
}

// traceBackend completes what is known of an endpoint.
func (d *Datapath) traceBackend(b *TracedBackend, p Probe, from netip.Addr, judge Judge) error {
	place, err := d.place(from, b.Address.Addr(), p.Outside)
	if err != nil {
		b.Verdict, b.Place = Dropped, "nowhere"
		b.Reason = fmt.Sprintf("there is no route to it: %v", err)
		return nil
	}
	b.Place = place.text
	source := from
	switch {
	case !p.Outside:
		b.Translation = "the socket connects to the endpoint itself"
		if translation, err := d.masquerades(p, from, b.Address.Addr()); err != nil {
			return err
		} else if translation != untranslated {
			b.Translation += "; " + translation
		}
	case place.remote:
		source = d.nodeAddress(b.Address.Addr())
		if d.cfg.OverlayLink != "" && place.link == d.cfg.OverlayLink {
			source = d.familyOf(b.Address.Addr()).overlay
		}
		b.Translation = fmt.Sprintf("to the endpoint, from the node's address %v, so that replies return through this node", source)
	default:
		b.Translation = "to the endpoint, with the client's address kept"
	}
	allowed, rule := judge(source, b.Address.Addr(), p.Protocol, b.Address.Port())
	b.Verdict = Forwarded
	if !allowed {
		b.Verdict = Dropped
	}
	b.Reason += "; " + rule
	return nil
}

const untranslated = "none: source and destination are kept"

// nodeAddress is the node's address of the family of another, invalid if it has none.
func (d *Datapath) nodeAddress(other netip.Addr) netip.Addr {
	if f := d.familyOf(other); f != nil {
		return f.node
	}
	return netip.Addr{}
}

// isPod reports whether the address is one of the node's pods.
func (d *Datapath) isPod(a netip.Addr) bool {
	f := d.familyOf(a)
	return f != nil && f.pods.Contains(a)
}

// masquerades tells what becomes of the source of what a pod, or the node, sends.
func (d *Datapath) masquerades(p Probe, from, to netip.Addr) (string, error) {
	f := d.familyOf(from)
	if p.Outside || f == nil || f.uplink == nil || !f.pods.Contains(from) || f.pods.Contains(to) {
		return untranslated, nil
	}
	var v uint8
	err := f.uplinkTable(bpf.UplinkMapClusterNetworks).Lookup(networkKey(netip.PrefixFrom(to, to.BitLen())), &v)
	switch {
	case err == nil:
		return untranslated, nil
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return fmt.Sprintf("%v is outside the cluster: the source becomes the node's address %v", to, f.node), nil
	}
	return "", fmt.Errorf("reading the cluster's networks: %w", err)
}

// lookup reads one frontend from the maps; nil when they do not have it.
func (d *Datapath) lookup(at Frontend) (*programmed, error) {
	f := d.familyOf(at.Addr())
	if f == nil {
		return nil, nil
	}
	v, err := f.form.service(f.table(bpf.SocketLBMapServices), at)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading a service: %w", err)
	}
	found := &programmed{set: v.set, affinity: v.affinity, maglev: v.flags&flagMaglev != 0}
	for slot := range v.count {
		b, err := f.form.backend(f.table(bpf.SocketLBMapBackends), bpf.SocketLBBackendKey{Set: v.set, Slot: slot})
		if err != nil {
			return nil, fmt.Errorf("reading an endpoint: %w", err)
		}
		found.backends = append(found.backends, b)
	}
	if v.flags&flagRestricted != 0 {
		all, _, err := f.readSets()
		if err != nil {
			return nil, err
		}
		found.sources = all[v.set]
	}
	return found, nil
}

// shares returns which part of new connections each endpoint gets, and why.
func (d *Datapath) shares(t *Trace, f Frontend, p Probe, found *programmed) ([]float64, string, error) {
	shares := make([]float64, len(found.backends))
	if p.Outside && found.affinity > 0 {
		kept, ago, err := d.keptFor(f, p.Source, found)
		if err != nil {
			return nil, "", err
		}
		if kept >= 0 {
			shares[kept] = 1
			t.say("endpoint", "%v keeps %v, selected %v ago, by sessionAffinity ClientIP", p.Source, found.backends[kept], ago)
			return shares, "selected by session affinity", nil
		}
	}
	if !p.Outside || !found.maglev {
		for i := range shares {
			shares[i] = 1 / float64(len(shares))
		}
		t.say("endpoint", "one is selected at random, all with the same probability")
		return shares, "selected at random", nil
	}
	for _, slot := range maglevTable(found.backends) {
		shares[slot] += 1.0 / maglevSize
	}
	t.say("endpoint", "one is selected by the Maglev table from the client's address and port, the same one on every node")
	return shares, "selected by the Maglev table", nil
}

// keptFor returns the slot of the endpoint that a client outside keeps, -1 for none.
func (d *Datapath) keptFor(at Frontend, client netip.Addr, found *programmed) (int, time.Duration, error) {
	f := d.familyOf(client)
	if f == nil || !f.has(at.Addr()) {
		return -1, 0, nil
	}
	backend, slot, used, err := f.form.kept(f.table(bpf.SocketLBMapAffinities), client, at)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return -1, 0, nil
	}
	if err != nil {
		return -1, 0, fmt.Errorf("reading the backend of a client: %w", err)
	}
	now, err := sinceBoot()
	if err != nil {
		return -1, 0, err
	}
	ago := (now - used).Truncate(time.Second)
	if ago >= time.Duration(found.affinity)*time.Second || slot >= len(found.backends) || found.backends[slot] != backend {
		return -1, 0, nil
	}
	return slot, ago, nil
}

func (d *Datapath) announces(addr netip.Addr) bool {
	f := d.familyOf(addr)
	if f == nil || f.announced() == nil {
		return false
	}
	var v bpf.UplinkAnnouncement
	now, err := sinceBoot()
	return err == nil && f.announced().Lookup(addr.AsSlice(), &v) == nil && v.Until > uint64(now)
}

// place is where an address is, as the node sees it.
type place struct {
	text, link string
	remote     bool // on another machine
}

// place asks the kernel for the way to an address.
func (d *Datapath) place(from, to netip.Addr, outside bool) (place, error) {
	var options netlink.RouteGetOptions
	if outside {
		uplink, err := uplinkLink(d.nodeAddress(to))
		if err != nil {
			return place{}, err
		}
		options = netlink.RouteGetOptions{Iif: uplink.Attrs().Name, SrcAddr: net.IP(from.AsSlice())}
	}
	routes, err := netlink.RouteGetWithOptions(net.IP(to.AsSlice()), &options)
	if outside && err != nil {
		// The kernel takes a client for one that cannot be where it is said to be. The way there is the
		// same.
		routes, err = netlink.RouteGet(net.IP(to.AsSlice()))
	}
	if err != nil {
		return place{}, err
	}
	r := routes[0]
	if r.Type == unix.RTN_LOCAL {
		return place{text: "this node"}, nil
	}
	l, err := netlink.LinkByIndex(r.LinkIndex)
	if err != nil {
		return place{}, err
	}
	out := place{link: l.Attrs().Name, remote: !d.isPod(to)}
	switch {
	case !out.remote:
		out.text = "a pod of this node, by " + out.link
	case r.Gw != nil:
		out.text = fmt.Sprintf("another machine, by %s and %v", out.link, r.Gw)
	default:
		out.text = "another machine, by " + out.link
	}
	return out, nil
}

// isBalanced reports whether the address is one that a node is to answer for.
func (t *Table) isBalanced(addr netip.Addr) bool {
	for _, b := range t.balancers.known {
		if slices.Contains(b.addrs, addr) {
			return true
		}
	}
	return false
}

// leftOut says of endpoints of the service that has a frontend why they are not used.
func (s *Syncer) leftOut(f Frontend, used []netip.AddrPort) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, owned := range s.table.computed {
		if k.pod || !slices.ContainsFunc(owned, func(o *Service) bool { return o.Frontend == f }) {
			continue
		}
		var out []string
		for _, slice := range s.table.slices[k] {
			if slice.GetAddressType() != familyName(f.Addr().Is6()) {
				continue
			}
			for _, ep := range slice.GetEndpoints() {
				if len(ep.GetAddresses()) == 0 ||
					slices.ContainsFunc(used, func(b netip.AddrPort) bool { return b.Addr().String() == ep.GetAddresses()[0] }) {
					continue
				}
				out = append(out, fmt.Sprintf("%s on node %s is not used: %s", ep.GetAddresses()[0], ep.GetNodeName(), s.table.whyNot(ep)))
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	return nil
}

func (t *Table) whyNot(ep *discoveryv1.Endpoint) string {
	c := conditionsOf(ep)
	switch {
	case c.terminating && c.serving:
		return "it is terminating, and is used only while no other endpoint is ready"
	case !c.ready:
		return "it is not ready"
	case !t.reach.coversEndpoint(ep):
		return "this node has no route to the pods of its node: that node has just joined or was removed"
	case ep.GetNodeName() != t.node:
		return "the service's traffic policies or traffic distribution prefer other endpoints for this node"
	}
	return "the port of the service has no such endpoint, or the change is not yet in the maps"
}

func orUnknown(name string) string {
	if name == "" {
		return "a deleted service"
	}
	return name
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func join(list []netip.Prefix) string {
	var out []string
	for _, p := range list {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}
