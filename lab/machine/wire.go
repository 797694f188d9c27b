package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeName is the device on the wire's side that all machines are plugged into.
const bridgeName = "wire"

// uplinkName is a machine's device on the wire.
const uplinkName = "eth0"

// Wire is an Ethernet segment in a network namespace of its own: a bridge that machines are plugged into, and a router
// address on it that answers everything beyond the segment with "unreachable". Nothing connects it to the real network.
type Wire struct {
	ns     *Namespace
	router netip.Prefix
}

// CreateWire makes the wire in a new network namespace of that name. router is the address of the wire's own end
// together with the segment's prefix, such as 10.89.1.1/24.
func CreateWire(name string, router netip.Prefix) (*Wire, error) {
	ns, err := CreateNamespace(name)
	if err != nil {
		return nil, err
	}
	w := &Wire{ns: ns, router: router}
	if err := ns.Do(w.setUp); err != nil {
		return nil, errors.Join(fmt.Errorf("set up wire %s: %w", name, err), w.Delete())
	}
	return w, nil
}

func (w *Wire) setUp() error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	if err := addAddress(bridge, w.router); err != nil {
		return err
	}
	if err := linkUp(bridgeName); err != nil {
		return err
	}
	// An answer at once instead of silence: nothing in the lab should wait for an outside that does not exist.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Type: unix.RTN_UNREACHABLE})
}

// Delete removes the wire's namespace and with it all devices of the wire, also their ends in machines.
func (w *Wire) Delete() error {
	return errors.Join(w.ns.Close(), DeleteNamespace(w.ns.Name))
}

// plug connects a namespace to the wire under port and gives its end the address and a default route to the router.
func (w *Wire) plug(port string, ns *Namespace, addr netip.Addr) error {
	err := w.ns.Do(func() error {
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return fmt.Errorf("find bridge: %w", err)
		}
		pair := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: port, MasterIndex: bridge.Attrs().Index},
			PeerName:      uplinkName,
			PeerNamespace: netlink.NsFd(int(ns.file.Fd())),
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
		if err := addAddress(link, netip.PrefixFrom(addr, w.router.Bits())); err != nil {
			return err
		}
		if err := linkUp(uplinkName); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: w.router.Addr().AsSlice()})
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
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipnet}); err != nil {
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
