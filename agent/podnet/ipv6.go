package podnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/osthread"
)

// gateway6 is where pods send IPv6 packets to.
var gateway6 = netip.MustParseAddr("fe80::1")

// dualStack reports whether pods have IPv6 addresses too.
func (c Config) dualStack() bool { return c.PodCIDR6.IsValid() }

// validate6 checks what is about IPv6.
func (c Config) validate6() error {
	switch {
	case !c.dualStack() && (c.ClusterCIDR6.IsValid() || c.ServiceCIDR6.IsValid()):
		return fmt.Errorf("the cluster has IPv6 addresses for pods or services, but the node has no IPv6 pod CIDR")
	case !c.dualStack():
		return nil
	case !c.PodCIDR6.Addr().Is6() || c.PodCIDR6.Masked() != c.PodCIDR6:
		return fmt.Errorf("pod CIDR %v is not an IPv6 network", c.PodCIDR6)
	case 128-c.PodCIDR6.Bits() < 32-c.PodCIDR.Bits():
		return fmt.Errorf("pod CIDR %v has fewer addresses than %v", c.PodCIDR6, c.PodCIDR)
	case !c.ClusterCIDR6.IsValid() || !c.ClusterCIDR6.Contains(c.PodCIDR6.Addr()) || c.ClusterCIDR6.Bits() > c.PodCIDR6.Bits():
		return fmt.Errorf("pod CIDR %v is not within the cluster CIDR %v", c.PodCIDR6, c.ClusterCIDR6)
	case c.ServiceCIDR6.IsValid() && c.ServiceCIDR6.Overlaps(c.ClusterCIDR6):
		return fmt.Errorf("service CIDR %v overlaps the cluster CIDR %v", c.ServiceCIDR6, c.ClusterCIDR6)
	case c.NodeIP6.IsValid() && !c.NodeIP6.Is6():
		return fmt.Errorf("node address %v is not IPv6", c.NodeIP6)
	}
	return nil
}

// IP6 returns the IPv6 address of the pod with an IPv4 address, which has the same place in its pod
// CIDR, so that one allocation is enough for both. It is invalid when pods have none, or the
// address is no pod's of this node.
func (n *Network) IP6(ip netip.Addr) netip.Addr {
	if !n.cfg.dualStack() || !n.cfg.PodCIDR.Contains(ip) {
		return netip.Addr{}
	}
	base, at := n.cfg.PodCIDR.Addr().As4(), ip.As4()
	b := n.cfg.PodCIDR6.Addr().As16()
	place := binary.BigEndian.Uint32(at[:]) - binary.BigEndian.Uint32(base[:])
	binary.BigEndian.PutUint32(b[12:], binary.BigEndian.Uint32(b[12:])+place)
	return netip.AddrFrom16(b)
}

// prepare6 makes the node forward IPv6. A node that takes its own address or routes from a router
// goes on doing so.
func (n *Network) prepare6() error {
	if !n.cfg.dualStack() {
		return nil
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		return fmt.Errorf("the cluster is dual-stack, but the kernel has no IPv6: %w", err)
	}
	for _, file := range []string{"default", n.uplinkName} {
		accept := "net/ipv6/conf/" + file + "/accept_ra"
		if value, err := os.ReadFile("/proc/sys/" + accept); err == nil && strings.TrimSpace(string(value)) == "1" {
			if err := writeSysctl(accept, "2"); err != nil {
				return err
			}
		}
	}
	return writeSysctl("net/ipv6/conf/all/forwarding", "1")
}

// findUplink6 looks for the network that the node's IPv6 address is on.
func (n *Network) findUplink6() error {
	if !n.cfg.dualStack() || !n.cfg.NodeIP6.IsValid() {
		return nil
	}
	addrs, err := n.node.AddrList(nil, unix.AF_INET6)
	if err != nil {
		return fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip == n.cfg.NodeIP6 {
			bits, _ := a.Mask.Size()
			n.uplink6 = netip.PrefixFrom(ip, bits)
			return nil
		}
	}
	return fmt.Errorf("no interface has the node's address %v", n.cfg.NodeIP6)
}

// configurePod6 sets the pod's IPv6 address and routes, without duplicate address detection: no
// other host can have the address.
func configurePod6(pod *netlink.Handle, eth0 netlink.Link, ip netip.Addr) error {
	if err := pod.AddrReplace(eth0, &netlink.Addr{IPNet: ipNet(single(ip)), Flags: unix.IFA_F_NODAD}); err != nil {
		return fmt.Errorf("adding the address %v: %w", ip, err)
	}
	index := eth0.Attrs().Index
	if err := pod.NeighSet(neighbour(index, gateway6, hostMAC)); err != nil {
		return fmt.Errorf("adding the IPv6 gateway's neighbour entry: %w", err)
	}
	r := &netlink.Route{LinkIndex: index, Dst: ipNet(netip.PrefixFrom(netip.IPv6Unspecified(), 0)), Gw: gateway6.AsSlice()}
	if err := pod.RouteReplace(r); err != nil {
		return fmt.Errorf("adding the IPv6 route: %w", err)
	}
	return nil
}

// allowIPv6 undoes what a host's defaults may forbid in new network namespaces.
func allowIPv6(ns int) error {
	return osthread.Do(func() error {
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		for _, name := range []string{"all", "default", "lo", podLink} {
			if err := writeSysctl("net/ipv6/conf/"+name+"/disable_ipv6", "0"); err != nil {
				return err
			}
		}
		// Its link-local address is not used, and duplicate address detection takes a second.
		return writeSysctl("net/ipv6/conf/"+podLink+"/accept_dad", "0")
	})
}

// configureHost6 is configureHost for the pod's IPv6 address.
func (n *Network) configureHost6(veth netlink.Link, ip, ip6 netip.Addr) error {
	index := veth.Attrs().Index
	e := neighbour(index, ip6, podMAC(ip))
	if err := n.node.NeighSet(e); err != nil {
		return fmt.Errorf("adding the pod's IPv6 neighbour entry: %w", err)
	}
	r := &netlink.Route{LinkIndex: index, Dst: ipNet(single(ip6)), Protocol: routeProtocol}
	if err := n.node.RouteReplace(r); err != nil {
		return fmt.Errorf("adding the route to %v: %w", ip6, err)
	}
	return nil
}

// overlayGateway6 is the address that IPv6 routes through the overlay name for a node: it exists as
// a neighbour entry only, and carries the node's address.
func overlayGateway6(nodeIP netip.Addr) netip.Addr {
	b := gateway6.As16()
	v4 := nodeIP.As4()
	copy(b[8:], []byte{0x0a, 0x59, 0, 0, v4[0], v4[1], v4[2], v4[3]})
	return netip.AddrFrom16(b)
}

// nodeOfGateway6 is the inverse of overlayGateway6, invalid for what it did not make.
func nodeOfGateway6(via netip.Addr) netip.Addr {
	b := via.As16()
	node := netip.AddrFrom4([4]byte(b[12:]))
	if overlayGateway6(node) != via {
		return netip.Addr{}
	}
	return node
}

// Encapsulates6 is Encapsulates for IPv6: it reports whether packets to the pods of the node with
// these addresses are encapsulated, or cannot be sent at all.
func (n *Network) Encapsulates6(nodeIP, nodeIP6 netip.Addr) bool {
	return !n.uplink6.IsValid() || !n.uplink6.Contains(nodeIP6) || n.Encapsulates(nodeIP)
}

// hopTo6 is hopTo for IPv6 pods. Where the nodes have no IPv6 network in common, the overlay is the
// way, unless there is none.
func (n *Network) hopTo6(r NodeRoute) (hop, error) {
	switch {
	case !n.Encapsulates6(r.NodeIP, r.NodeIP6):
		return hop{via: r.NodeIP6, node: r.NodeIP}, nil
	case n.cfg.Overlay != OverlayNever:
		return hop{via: overlayGateway6(r.NodeIP), overlay: true, node: r.NodeIP}, nil
	}
	return hop{}, fmt.Errorf(
		"the pods %v of the node %v are unreachable: the nodes share no IPv6 network, and the overlay is disabled",
		r.PodCIDR,
		r.NodeIP,
	)
}
