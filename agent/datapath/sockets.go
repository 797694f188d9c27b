package datapath

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/cilium/ebpf"

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
	if d.peers != nil {
		connected, err := d.connectedPeers()
		if err != nil {
			return nil, fmt.Errorf("listing the connected sockets: %w", err)
		}
		for _, p := range connected {
			if p.Remote != p.Peer.Backend {
				continue // connected elsewhere since
			}
			out = append(out, Socket{
				Local: addrPort(p.Local.Addr, p.Local.Port), Cookie: p.Cookie,
				Service: addrPort(p.Peer.Frontend.Addr, p.Peer.Frontend.Port), Backend: addrPort(p.Peer.Backend.Addr, p.Peer.Backend.Port),
			})
		}
	}
	var k bpf.SocketLBFlowKey
	var v bpf.SocketLBChoice
	it := d.objects.Maps[bpf.SocketLBMapUdpFlows].Iterate()
	for it.Next(&k, &v) {
		out = append(out, Socket{
			Cookie: k.Cookie, Service: netip.AddrPortFrom(address(k.Address.Addr), bits.ReverseBytes16(k.Address.Port)),
			Backend: netip.AddrPortFrom(address(v.Backend.Addr), bits.ReverseBytes16(v.Backend.Port)),
		})
	}
	// Entries that come and go can end the walk early; what was seen counts.
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("listing the choices for datagrams: %w", err)
	}
	return out, nil
}
