package policy

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
)

// After so many seconds without a packet a flow has ended, as the programs have
// it.
const (
	tcpIdle    = 3 * 60 * 60
	udpIdle    = 120
	closedIdle = 60
)

// States of a socket that matter here.
const (
	tcpListen = 10
	tcpClose  = 7
)

// rememberFlows adds the existing connections of a pod to the flow table with their direction, so
// that their packets are matched to it. Revision 0 is unused: the next packet of each is evaluated.
func (k *Kernel) rememberFlows(e Endpoint) error {
	sockets, err := connections(e.Netns)
	if err != nil {
		return fmt.Errorf("listing the connections of interface %d: %w", e.Index, err)
	}
	m := k.objects.Maps[bpf.PolicyMapPolicyFlows]
	now := sinceBoot()
	for _, s := range sockets {
		key := bpf.PolicyPolicyFlowKey{
			Ifindex: uint32(e.Index), Peer: s.peer.Addr().As16(), PodPort: bits.ReverseBytes16(s.port),
			PeerPort: bits.ReverseBytes16(s.peer.Port()), Protocol: uint8(s.protocol),
		}
		// One that the programs have seen since is theirs.
		err := m.Update(key, bpf.PolicyPolicyFlow{Seen: now, Opened: uint8(s.opened), Allowed: 1}, ebpf.UpdateNoExist)
		if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("adding a flow of interface %d: %w", e.Index, err)
		}
	}
	return nil
}

// connection is a socket of a pod that has a peer.
type connection struct {
	protocol Protocol
	port     uint16
	peer     netip.AddrPort
	opened   Direction
}

// connections lists those of a network namespace. A socket whose port another one
// listens at was opened by its peer.
func connections(path string) ([]connection, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace: %w", err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("entering the network namespace: %w", err)
	}
	defer h.Close()
	var out []connection
	for protocol, list := range map[Protocol]func(uint8) ([]*netlink.Socket, error){TCP: h.SocketDiagTCP, UDP: h.SocketDiagUDP} {
		var all []*netlink.Socket
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			sockets, err := list(family)
			if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
				return nil, fmt.Errorf("listing %v sockets: %w", protocol, err)
			}
			all = append(all, sockets...)
		}
		listens := map[uint16]bool{}
		for _, s := range all {
			if protocol == TCP && s.State == tcpListen {
				listens[s.ID.SourcePort] = true
			}
		}
		for _, s := range all {
			peer, ok := netip.AddrFromSlice(s.ID.Destination)
			if !ok || s.ID.DestinationPort == 0 || s.State == tcpListen || s.State == tcpClose && protocol == TCP || peer.Unmap().IsLoopback() {
				continue
			}
			c := connection{protocol, s.ID.SourcePort, netip.AddrPortFrom(mappedAddr(peer), s.ID.DestinationPort), Egress}
			if listens[c.port] {
				c.opened = Ingress
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// Sweep removes flows that have ended, or whose pod is gone, and returns how many
// are left.
func (k *Kernel) Sweep() (int, error) {
	m := k.objects.Maps[bpf.PolicyMapPolicyFlows]
	now, left := sinceBoot(), 0
	var key bpf.PolicyPolicyFlowKey
	var flow bpf.PolicyPolicyFlow
	var ended []bpf.PolicyPolicyFlowKey
	it := m.Iterate()
	for it.Next(&key, &flow) {
		if _, known := k.pods[key.Ifindex]; !known || hasEnded(flow, Protocol(key.Protocol), now) {
			ended = append(ended, key)
		} else {
			left++
		}
	}
	// A table that changes while it is walked may end the walk: the next one goes on.
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return left, fmt.Errorf("listing flows: %w", err)
	}
	for _, key := range ended {
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return left, fmt.Errorf("removing a flow: %w", err)
		}
	}
	return left, nil
}

// monotonic is the time since boot as programs have it, in nanoseconds.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

func sinceBoot() uint32 { return uint32(monotonic() / 1e9) }

// forgetCounts drops the counters of an interface.
func (k *Kernel) forgetCounts(index uint32) error {
	m := k.objects.Maps[bpf.PolicyMapPolicyCounts]
	for _, d := range []Direction{Ingress, Egress} {
		for reason := range reasons {
			key := bpf.PolicyPolicyCountKey{Ifindex: index, Direction: uint8(d), Reason: uint8(reason)}
			if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("removing a counter of interface %d: %w", index, err)
			}
		}
	}
	return nil
}

func hasEnded(f bpf.PolicyPolicyFlow, p Protocol, now uint32) bool {
	idle := uint32(udpIdle)
	switch {
	case f.Closed != 0:
		idle = closedIdle
	case p == TCP:
		idle = tcpIdle
	}
	return now-f.Seen > idle
}
