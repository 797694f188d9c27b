package podnet

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Overlay says when packets between pods of different nodes are encapsulated.
type Overlay string

// The ways to reach other nodes' pods.
const (
	// OverlayNever routes to every node, which must be on the node's own network.
	OverlayNever Overlay = "never"
	// OverlayAuto routes to nodes on the node's own network and encapsulates what
	// goes to others.
	OverlayAuto Overlay = "auto"
	// OverlayAlways encapsulates what goes to any other node.
	OverlayAlways Overlay = "always"
)

const (
	// OverlayLink is the interface that encapsulates, where there is one.
	OverlayLink = "xebec-vxlan"
	// OverlayPort is the UDP port that nodes exchange encapsulated packets at.
	OverlayPort = 8472
	// overlayGrace is how long the overlay's interface outlives its use, unless configured.
	overlayGrace = 10 * time.Minute
	// overlayNetwork tells our packets from those of other overlays.
	overlayNetwork = 88
	// overlayBytes is what encapsulation adds: Ethernet, VXLAN, UDP and IPv4.
	overlayBytes = 14 + 8 + 8 + 20
)

// Valid reports whether it is one of the above.
func (o Overlay) Valid() bool {
	return o == OverlayNever || o == OverlayAuto || o == OverlayAlways
}

// OverlayAddress is the node's own address in the overlay, given its pod CIDR:
// what the node itself sends to pods there comes from it, and so do answers to
// clients of node ports. No pod has it.
func OverlayAddress(podCIDR netip.Prefix) netip.Addr { return podCIDR.Masked().Addr().Next() }

// Encapsulates reports whether packets to the pods of the node with the address are encapsulated.
// Such a node does not know pods of this one by their own addresses, except through the overlay.
func (n *Network) Encapsulates(nodeIP netip.Addr) bool {
	switch n.cfg.Overlay {
	case OverlayAlways:
		return nodeIP != n.cfg.NodeIP
	case OverlayAuto:
		return !n.uplink.Contains(nodeIP)
	default:
		return false
	}
}

// needsOverlay reports whether anything goes through the overlay: a route to another node,
// or what the node itself sends to its pods by IPv6, for which it has no other address.
func (n *Network) needsOverlay() bool {
	if n.cfg.Overlay == OverlayNever {
		return false
	}
	for _, h := range n.routes {
		if h.overlay {
			return true
		}
	}
	return n.cfg.dualStack() && !n.cfg.NodeIP6.IsValid()
}

// ensureOverlay brings the overlay interface to its desired state, if there must be one. It is
// idempotent. Routes through an interface that is recreated have to be set again. As long as the
// other nodes are not known, the interface that an earlier agent made stays.
func (n *Network) ensureOverlay() error {
	have, err := find(n.node, OverlayLink)
	if err != nil {
		return err
	}
	n.overlayIndex = 0
	if have != nil {
		n.overlayIndex = have.Attrs().Index
	}
	if n.cfg.Overlay == OverlayNever {
		n.overlayIndex = 0
		return n.deleteLink(OverlayLink)
	}
	if !n.needsOverlay() && (n.known || have == nil) {
		return nil
	}
	want := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: OverlayLink, MTU: n.uplinkMTU - overlayBytes, HardwareAddr: overlayMAC(n.cfg.NodeIP)},
		VxlanId:   overlayNetwork,
		SrcAddr:   n.cfg.NodeIP.AsSlice(),
		Port:      OverlayPort,
		NoAge:     true, // Learning stays off: who is where is known.
	}
	if have != nil && !sameTunnel(have, want) {
		if err := n.deleteLink(OverlayLink); err != nil {
			return err
		}
		have = nil
	}
	if have == nil {
		if err := n.node.LinkAdd(want); err != nil {
			return fmt.Errorf("creating the overlay interface %s (to run without one, set overlay to %q): %w", OverlayLink, OverlayNever, err)
		}
		if have, err = n.node.LinkByName(OverlayLink); err != nil {
			return fmt.Errorf("finding %s: %w", OverlayLink, err)
		}
	}
	if have.Attrs().MTU != want.MTU {
		if err := n.node.LinkSetMTU(have, want.MTU); err != nil {
			return fmt.Errorf("setting the MTU of %s: %w", OverlayLink, err)
		}
	}
	// The other end may take us to be on its own network, and send directly.
	if err := n.inside(func() error { return writeSysctl("net/ipv4/conf/"+OverlayLink+"/rp_filter", "2") }); err != nil {
		return err
	}
	if err := n.node.LinkSetUp(have); err != nil {
		return fmt.Errorf("setting %s up: %w", OverlayLink, err)
	}
	// Host scope: it is the source of what the routes say, and of nothing else.
	addr := &netlink.Addr{IPNet: ipNet(single(OverlayAddress(n.cfg.PodCIDR))), Scope: unix.RT_SCOPE_HOST}
	if err := n.node.AddrReplace(have, addr); err != nil {
		return fmt.Errorf("adding the node's address %v to %s: %w", addr.IP, OverlayLink, err)
	}
	if n.cfg.dualStack() {
		// Of global scope, which IPv6 has alone: a node without another IPv6 address reaches its own pods
		// from it as well.
		addr := &netlink.Addr{IPNet: ipNet(single(OverlayAddress(n.cfg.PodCIDR6))), Flags: unix.IFA_F_NODAD}
		if err := n.node.AddrReplace(have, addr); err != nil {
			return fmt.Errorf("adding the node's address %v to %s: %w", addr.IP, OverlayLink, err)
		}
	}
	n.overlayIndex = have.Attrs().Index
	return nil
}

// dropOverlay removes the overlay's interface some time after nothing goes through it any more:
// an interface that takes encapsulated packets is a way in. Until then, nodes whose agents were
// not reconfigured yet are still heard.
func (n *Network) dropOverlay() error {
	if n.overlayIndex == 0 || n.needsOverlay() {
		n.unneeded = time.Time{}
		return nil
	}
	if n.unneeded.IsZero() {
		n.unneeded = time.Now()
	}
	if time.Since(n.unneeded) < n.cfg.OverlayGrace {
		return nil
	}
	n.overlayIndex = 0
	return n.deleteLink(OverlayLink)
}

// sameTunnel compares what cannot be changed of an interface.
func sameTunnel(link netlink.Link, want *netlink.Vxlan) bool {
	have, ok := link.(*netlink.Vxlan)
	return ok && have.VxlanId == want.VxlanId && have.Port == want.Port && !have.Learning && !have.FlowBased &&
		have.SrcAddr.Equal(want.SrcAddr) && bytes.Equal(have.HardwareAddr, want.HardwareAddr)
}

// overlayMAC is the hardware address of a node's end of the overlay: it is computed from the node's
// address, so that no resolution is required.
func overlayMAC(nodeIP netip.Addr) net.HardwareAddr {
	b := nodeIP.As4()
	return net.HardwareAddr{0x0a, 0x59, b[0], b[1], b[2], b[3]}
}

// peer is what the overlay's interface has to know of one address: next hops
// have a hardware address, hardware addresses a node.
type peer struct {
	ip  netip.Addr
	mac string
}

// peers are the entries of the overlay's interface, by family: AF_INET for next
// hops, AF_BRIDGE for nodes.
type peers map[int]map[peer]bool

// wantedPeers follow from the routes.
func (n *Network) wantedPeers() peers {
	out := peers{unix.AF_INET: {}, unix.AF_BRIDGE: {}}
	if n.cfg.dualStack() {
		out[unix.AF_INET6] = map[peer]bool{}
	}
	for _, h := range n.routes {
		if !h.overlay {
			continue
		}
		mac := overlayMAC(h.node).String()
		out[family(h.via)][peer{h.via, mac}] = true
		out[unix.AF_BRIDGE][peer{h.node, mac}] = true
	}
	return out
}

// listPeers returns the entries that the kernel has.
func (n *Network) listPeers(families peers) (peers, error) {
	out := peers{}
	for family := range families {
		list, err := n.node.NeighList(n.overlayIndex, family)
		if err != nil {
			return nil, fmt.Errorf("listing the neighbours in the overlay: %w", err)
		}
		out[family] = map[peer]bool{}
		for _, e := range list {
			ip, ok := netip.AddrFromSlice(e.IP)
			if ok && e.State&netlink.NUD_PERMANENT != 0 {
				out[family][peer{ip.Unmap(), e.HardwareAddr.String()}] = true
			}
		}
	}
	return out, nil
}

// addPeers enters those that are missing. A route to them may follow.
func (n *Network) addPeers(have, want peers) error {
	var errs []error
	for family, list := range want {
		for p := range list {
			if have[family][p] {
				continue
			}
			if err := n.node.NeighSet(n.entry(family, p)); err != nil {
				errs = append(errs, fmt.Errorf("adding %v to the overlay: %w", p.ip, err))
			}
		}
	}
	return errors.Join(errs...)
}

// removePeers takes those out that no route leads to any more.
func (n *Network) removePeers(have, want peers) error {
	var errs []error
	for family, list := range have {
		for p := range list {
			if want[family][p] || replaced(want[family], p, family) {
				continue
			}
			if err := n.node.NeighDel(n.entry(family, p)); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("removing %v from the overlay: %w", p.ip, err))
			}
		}
	}
	return errors.Join(errs...)
}

// replaced reports whether the entry's place has been taken by a wanted one: next hops are unique
// by address.
func replaced(want map[peer]bool, p peer, family int) bool {
	if family == unix.AF_BRIDGE {
		return false
	}
	for w := range want {
		if w.ip == p.ip {
			return true
		}
	}
	return false
}

func (n *Network) entry(family int, p peer) *netlink.Neigh {
	mac, _ := net.ParseMAC(p.mac) // it was one before it was text
	e := &netlink.Neigh{LinkIndex: n.overlayIndex, Family: family, State: netlink.NUD_PERMANENT, IP: p.ip.AsSlice(), HardwareAddr: mac}
	if family == unix.AF_BRIDGE {
		e.Flags = netlink.NTF_SELF
	}
	return e
}
