package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/hook"
)

// overlayPin names the link of the program that takes answers from the overlay.
const overlayPin = "from_overlay"

type uplinkHook struct {
	program string
	egress  bool
}

// fromUplink is the index of the hook for what arrives.
const fromUplink = 1

// uplinkHooks are the programs on the interface with the node's address. The
// way back comes first, as with the hooks of sockets.
var uplinkHooks = [...]uplinkHook{
	{bpf.UplinkProgToUplink, true},
	fromUplink: {bpf.UplinkProgFromUplink, false},
}

// loadUplink loads the programs of the uplink, which share the maps of services.
func (d *Datapath) loadUplink(maps string) error {
	spec, err := bpf.LoadUplink()
	if err != nil {
		return fmt.Errorf("reading the uplink's programs: %w", err)
	}
	values := map[string]uint32{bpf.UplinkVarNodeAddr: networkOrder(d.cfg.NodeIP)}
	if d.cfg.PodCIDR.IsValid() {
		values[bpf.UplinkVarPodNet] = networkOrder(d.cfg.PodCIDR.Masked().Addr())
		values[bpf.UplinkVarPodMask] = networkOrder(mask(d.cfg.PodCIDR))
	}
	if d.cfg.OverlayIP.IsValid() {
		values[bpf.UplinkVarOverlayAddr] = networkOrder(d.cfg.OverlayIP)
	}
	for name, value := range values {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("configuring the uplink's programs: %w", err)
		}
	}
	shared := map[string]*ebpf.Map{}
	for name, m := range d.cfg.PolicyMaps {
		if spec.Maps[name] != nil {
			shared[name] = m
		}
	}
	d.uplink, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: maps}, MapReplacements: shared})
	if err != nil {
		return fmt.Errorf("loading the uplink's programs (maps pinned in %s): %w", maps, err)
	}
	if !d.cfg.ClusterCIDR.IsValid() {
		return nil
	}
	// Before the programs are in place: else pods would meet each other's nodes.
	if err := d.uplink.Maps[bpf.UplinkMapClusterNetworks].Put(networkKey(d.cfg.ClusterCIDR), uint8(1)); err != nil {
		return fmt.Errorf("adding the cluster's network: %w", err)
	}
	return nil
}

func networkKey(p netip.Prefix) bpf.UplinkNetwork {
	return bpf.UplinkNetwork{Bits: uint32(p.Bits()), Addr: networkOrder(p.Masked().Addr())}
}

// mask is the netmask of a prefix, as an address.
func mask(p netip.Prefix) netip.Addr {
	ones := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return netip.PrefixFrom(ones, p.Bits()).Masked().Addr()
}

// SetClusterNetworks says where pods are known by their own addresses: the
// cluster's pods and nodes. What pods send to elsewhere gets the node's address.
func (d *Datapath) SetClusterNetworks(networks []netip.Prefix) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.uplink == nil {
		return nil
	}
	m := d.uplink.Maps[bpf.UplinkMapClusterNetworks]
	wanted := make(map[bpf.UplinkNetwork]bool, len(networks))
	for _, p := range networks {
		if p.Addr().Is4() {
			wanted[networkKey(p)] = true
		}
	}
	for k := range wanted {
		if err := m.Put(k, uint8(1)); err != nil {
			return fmt.Errorf("adding a network of the cluster: %w", err)
		}
	}
	var stale []bpf.UplinkNetwork
	var k bpf.UplinkNetwork
	var v uint8
	it := m.Iterate()
	for it.Next(&k, &v) {
		if !wanted[k] {
			stale = append(stale, k)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("listing the networks of the cluster: %w", err)
	}
	for _, k := range stale {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("removing a network of the cluster: %w", err)
		}
	}
	return nil
}

// eachUplinkHook makes sure that the uplink's programs are attached to the
// interface that has the node's address now.
func (d *Datapath) eachUplinkHook(renew bool) error {
	if d.uplink == nil {
		return nil
	}
	index, err := interfaceWith(d.cfg.NodeIP)
	if err != nil {
		return err
	}
	for _, h := range uplinkHooks {
		if err := d.ensureHook(h.program, index, h, renew); err != nil {
			return err
		}
	}
	if d.cfg.OverlayLink == "" {
		return nil
	}
	overlay, err := netlink.LinkByName(d.cfg.OverlayLink)
	if err != nil {
		return fmt.Errorf("finding the overlay's interface: %w", err)
	}
	return d.ensureHook(overlayPin, overlay.Attrs().Index, uplinkHooks[fromUplink], renew)
}

// ensureHook attaches a program to an interface; the pin tells its places apart.
func (d *Datapath) ensureHook(pin string, index int, h uplinkHook, renew bool) error {
	return hook.Interface{
		Pin: filepath.Join(d.cfg.PinPath, linksDir, pin), Name: h.program, Program: d.uplink.Programs[h.program],
		Index: index, Egress: h.egress, Classic: d.cfg.ClassicTC,
	}.Ensure(renew)
}

func interfaceWith(ip netip.Addr) (int, error) {
	addrs, err := netlink.AddrList(nil, unix.AF_INET)
	if err != nil {
		return 0, fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addrs {
		if found, ok := netip.AddrFromSlice(a.IP.To4()); ok && found == ip {
			return a.LinkIndex, nil
		}
	}
	return 0, fmt.Errorf("no interface has the node's address %v", ip)
}
