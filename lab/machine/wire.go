package machine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgePrefix begins the names of the devices on the wire's side that machines are plugged into,
// one per segment.
const bridgePrefix = "wire"

// uplinkName is a machine's device on the wire.
const uplinkName = "eth0"

// Wire is one or more Ethernet segments in a network namespace of its own: a bridge each that
// machines are plugged into. The namespace routes between them and answers everything beyond with
// "unreachable". Nothing connects it to the real network.
type Wire struct {
	ns       *Namespace
	segments []Segment
}

// Segment is one network of a wire, given by the addresses of the wire's own end together with the
// network's prefix.
type Segment struct {
	// Router is such as 10.89.1.1/24.
	Router netip.Prefix
	// Router6 is the same for IPv6; without, the segment has none.
	Router6 netip.Prefix
}

// CreateWire makes the wire in a new network namespace of that name. Where there are several
// segments, the router between them is a strict one: it drops what comes from addresses that are
// not on the segment it comes by, such as those of pods.
func CreateWire(name string, segments ...Segment) (*Wire, error) {
	ns, err := CreateNamespace(name)
	if err != nil {
		return nil, err
	}
	w := &Wire{ns: ns, segments: segments}
	if err := ns.Do(w.setUp); err != nil {
		return nil, errors.Join(fmt.Errorf("set up wire %s: %w", name, err), w.Delete())
	}
	return w, nil
}

func (w *Wire) setUp() error {
	for i, s := range w.segments {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName(i)}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		if err := s.addAddresses(bridge, s.Router.Addr(), s.Router6.Addr()); err != nil {
			return err
		}
		if err := linkUp(bridge.Name); err != nil {
			return err
		}
	}
	sysctls := map[string]string{"ipv4/ip_forward": "1"}
	if len(w.segments) > 1 {
		sysctls["ipv4/conf/all/rp_filter"] = "1"
	}
	unreachable := []net.IPNet{{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}
	if slices.ContainsFunc(w.segments, func(s Segment) bool { return s.Router6.IsValid() }) {
		sysctls["ipv6/conf/all/forwarding"] = "1"
		unreachable = append(unreachable, net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)})
	}
	for file, value := range sysctls {
		if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0o644); err != nil {
			return err
		}
	}
	// An answer at once instead of silence: nothing in the lab should wait for an outside that does
	// not exist.
	for _, all := range unreachable {
		if err := netlink.RouteAdd(&netlink.Route{Dst: &all, Type: unix.RTN_UNREACHABLE}); err != nil {
			return err
		}
	}
	return nil
}

func bridgeName(segment int) string { return fmt.Sprint(bridgePrefix, segment+1) }

// segmentOf returns the segment with an address, and its bridge.
func (w *Wire) segmentOf(addr netip.Addr) (Segment, string, error) {
	for i, s := range w.segments {
		if s.Router.Contains(addr) {
			return s, bridgeName(i), nil
		}
	}
	return Segment{}, "", fmt.Errorf("no segment of wire %s has the address %s", w.ns.Name, addr)
}

// addAddresses gives a device addresses of the segment; an invalid one is left out.
func (s Segment) addAddresses(link netlink.Link, addr, addr6 netip.Addr) error {
	if err := addAddress(link, netip.PrefixFrom(addr, s.Router.Bits())); err != nil || !addr6.IsValid() {
		return err
	}
	return addAddress(link, netip.PrefixFrom(addr6, s.Router6.Bits()))
}

// Delete removes the wire's namespace and with it all devices of the wire, also their ends in
// machines.
func (w *Wire) Delete() error {
	return errors.Join(w.ns.Close(), DeleteNamespace(w.ns.Name))
}

// hardwareAddr is the address of the card in a machine, which keeps it when it is started again as
// a real one does: others on the wire send to it for seconds before they ask whose it is.
func hardwareAddr(wire, port string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(wire + "/" + port))
	// Locally administered, of one card.
	return append(net.HardwareAddr{sum[0]&^1 | 2}, sum[1:6]...)
}

// plug connects a namespace to the segment with the address under port and gives its end the
// addresses, of which the IPv6 one may be invalid, and default routes to the router.
func (w *Wire) plug(port string, ns *Namespace, addr, addr6 netip.Addr) error {
	segment, name, err := w.segmentOf(addr)
	if err != nil {
		return err
	}
	err = w.ns.Do(func() error {
		bridge, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find bridge: %w", err)
		}
		pair := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: port, MasterIndex: bridge.Attrs().Index},
			PeerName:      uplinkName,
			PeerNamespace: netlink.NsFd(int(ns.file.Fd())),

			PeerHardwareAddr: hardwareAddr(w.ns.Name, port),
		}
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("add veth pair: %w", err)
		}
		return linkUp(port)
	})
	if err != nil {
		return err
	}
	return ns.Do(func() error {
		link, err := netlink.LinkByName(uplinkName)
		if err != nil {
			return fmt.Errorf("find %s: %w", uplinkName, err)
		}
		if err := segment.addAddresses(link, addr, addr6); err != nil {
			return err
		}
		if err := linkUp(uplinkName); err != nil {
			return err
		}
		routers := []netip.Addr{segment.Router.Addr()}
		if addr6.IsValid() {
			routers = append(routers, segment.Router6.Addr())
		}
		for _, r := range routers {
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: r.AsSlice()}); err != nil {
				return fmt.Errorf("add default route via %s: %w", r, err)
			}
		}
		return nil
	})
}

// Cut takes a machine off the wire, as pulling its cable would: both ends lose their carrier.
func (w *Wire) Cut(port string) error {
	return w.ns.Do(func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return fmt.Errorf("find wire of %s: %w", port, err)
		}
		return netlink.LinkSetDown(link)
	})
}

// Heal plugs a machine in again. A machine that was not cut off is no error.
func (w *Wire) Heal(port string) error {
	return w.ns.Do(func() error { return linkUp(port) })
}

// unplug removes the devices between the wire and a machine; none is no error.
func (w *Wire) unplug(port string) error {
	return w.ns.Do(func() error {
		link, err := netlink.LinkByName(port)
		if _, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find wire of %s: %w", port, err)
		}
		return netlink.LinkDel(link)
	})
}

// Dial opens a TCP connection from the wire to an address on it. The deadline is ctx's.
func (w *Wire) Dial(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	var conn net.Conn
	err := w.ns.Do(func() error {
		var d net.Dialer
		// A dialer given an address, not a name, opens its one socket on the calling thread.
		c, err := d.DialContext(ctx, "tcp4", addr.String())
		conn = c
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

func addAddress(link netlink.Link, addr netip.Prefix) error {
	ipnet := &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), addr.Addr().BitLen())}
	// The address is unique: duplicate address detection takes a second.
	flags := 0
	if addr.Addr().Is6() {
		flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipnet, Flags: flags}); err != nil {
		return fmt.Errorf("add address %s: %w", addr, err)
	}
	return nil
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find device %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set device %s up: %w", name, err)
	}
	return nil
}
