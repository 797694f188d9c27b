package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/policy"
	"github.com/xebec-project/xebec/internal/apierr"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// maxConnections bounds what one call lists.
const maxConnections = 10000

// connections lists the flows that the node translates and the sockets that talk to services.
func (s *stack) connections(req *nodev1.ListConnectionsRequest) (*nodev1.ListConnectionsResponse, error) {
	flows, err := s.datapath.Flows()
	if err != nil {
		return nil, err
	}
	sockets, err := s.datapath.Sockets()
	if err != nil {
		return nil, err
	}
	resp := &nodev1.ListConnectionsResponse{}
	add := func(c *nodev1.Connection) {
		if req.GetService() == "" || ofService(c.GetService(), req.GetService()) {
			resp.Connections = append(resp.Connections, c)
		}
	}
	for _, f := range flows {
		c := &nodev1.Connection{
			Way: f.Direction, Protocol: protocolText(f.Protocol), Source: f.Source.String(), Destination: f.Destination.String(),
			TranslatedSource: f.TranslatedSource.String(), TranslatedDestination: f.TranslatedDestination.String(),
			State: f.State, IdleSeconds: int64(f.Idle / time.Second),
		}
		if f.Direction == "in" {
			c.Service = s.syncer.ServiceAt(datapath.Frontend{AddrPort: f.Destination, Protocol: f.Protocol, Outside: true})
		}
		add(c)
	}
	for _, k := range sockets {
		c := &nodev1.Connection{
			Way: "socket", Protocol: "UDP", Source: fmt.Sprintf("socket %d", k.Cookie), Destination: k.Service.String(),
			TranslatedDestination: k.Backend.String(),
			Service:               s.syncer.ServiceAt(datapath.Frontend{AddrPort: k.Service, Protocol: datapath.UDP}),
		}
		if k.Local.IsValid() {
			c.Source = k.Local.String()
		}
		c.TranslatedSource = c.Source
		add(c)
	}
	slices.SortFunc(resp.Connections, func(a, b *nodev1.Connection) int {
		return cmp.Or(cmp.Compare(a.GetService(), b.GetService()), cmp.Compare(a.GetWay(), b.GetWay()),
			cmp.Compare(a.GetSource(), b.GetSource()), cmp.Compare(a.GetDestination(), b.GetDestination()))
	})
	if more := len(resp.Connections) - maxConnections; more > 0 {
		resp.Connections, resp.LeftOut = resp.Connections[:maxConnections], int64(more)
	}
	return resp, nil
}

// ofService reports whether "namespace/name[:port]" is a port of "namespace/name".
func ofService(name, service string) bool {
	before, _, _ := strings.Cut(name, ":")
	return before == service
}

func protocolText(p datapath.Protocol) string {
	if p == 1 {
		return "ICMP"
	}
	return p.String()
}

// judge says what policies say of a connection.
func (s *stack) judge(from, to netip.Addr, protocol datapath.Protocol, port uint16) (allowed bool, rule string) {
	return s.enforcer.Verdict(from, to, policy.Protocol(protocol), port)
}

// trace follows a connection that might be made.
func (s *stack) trace(req *nodev1.TraceConnectionRequest) (*nodev1.TraceConnectionResponse, error) {
	p := datapath.Probe{Outside: req.GetOutside(), Protocol: datapath.TCP}
	var err error
	if req.GetSource() != "" {
		if p.Source, err = netip.ParseAddr(req.GetSource()); err != nil || p.Source.Is4In6() {
			return nil, apierr.BadField("source", "%q is not an address", req.GetSource())
		}
	} else if req.GetOutside() {
		return nil, apierr.BadField("source", "required for a connection from outside")
	}
	if p.Destination, err = netip.ParseAddrPort(req.GetDestination()); err != nil || p.Destination.Addr().Is4In6() {
		return nil, apierr.BadField("destination", "invalid destination %q: want ADDRESS:PORT", req.GetDestination())
	}
	if p.Source.IsValid() && p.Source.Is4() != p.Destination.Addr().Is4() {
		return nil, apierr.BadField("source", "%v and the destination %v are of different address families", p.Source, p.Destination.Addr())
	}
	switch req.GetProtocol() {
	case "", "TCP":
	case "UDP":
		p.Protocol = datapath.UDP
	default:
		return nil, apierr.BadField("protocol", "unsupported protocol %q: want TCP or UDP", req.GetProtocol())
	}
	t, err := s.syncer.Trace(s.datapath, p, s.judge)
	if err != nil {
		return nil, err
	}
	resp := &nodev1.TraceConnectionResponse{Verdict: t.Verdict, Decides: t.Decides, NextNode: t.NextNode}
	for _, step := range t.Steps {
		resp.Steps = append(resp.Steps, &nodev1.TraceStep{Stage: step.Stage, Finding: step.Finding})
	}
	for _, b := range t.Backends {
		resp.Backends = append(resp.Backends, &nodev1.TraceBackend{
			Address: b.Address.String(), Share: b.Share, Place: b.Place, Translation: b.Translation, Verdict: b.Verdict, Reason: b.Reason,
		})
	}
	return resp, nil
}
