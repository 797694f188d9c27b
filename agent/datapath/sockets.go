package datapath

import (
	"fmt"
	"net/netip"

	"github.com/xebec-project/xebec/agent/bpf"
)

// Socket is a socket on the node that talks to a service by datagrams. Of connections of
// TCP nothing is kept.
type Socket struct {
	// Local is the socket's address; invalid where the socket is not connected.
	Local netip.AddrPort
	// Cookie tells sockets apart.
	Cookie uint64
	// Service is the address that the application talks to, Backend who gets it.
	Service, Backend netip.AddrPort
}

// Sockets returns the sockets that talk to services by datagrams, in no order.
func (d *Datapath) Sockets() ([]Socket, error) {
	var out []Socket
	for _, f := range d.families {
		connected, err := f.connectedPeers()
		if err != nil {
			return nil, fmt.Errorf("listing the connected sockets: %w", err)
		}
		for _, p := range connected {
			out = append(out, Socket{Local: p.local, Cookie: p.cookie, Service: p.frontend, Backend: p.backend})
		}
		others, err := f.form.datagrams(f.table(bpf.SocketLBMapUdpFlows))
		if err != nil {
			return nil, fmt.Errorf("listing the backends of unconnected sockets: %w", err)
		}
		out = append(out, others...)
	}
	return out, nil
}
