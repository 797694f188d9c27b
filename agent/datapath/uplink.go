package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/hook"
)

// loadUplinkPrograms loads the programs of the uplink, which share the maps of services. Port is
// the overlay's.
func (f *family) loadUplinkPrograms(maps string, policies map[string]*ebpf.Map, port uint16) error {
	spec, err := f.loadUplink()
	if err != nil {
		return fmt.Errorf("reading the uplink's programs: %w", err)
	}
	values := map[string]netip.Addr{bpf.UplinkVarNodeAddr: f.node, bpf.UplinkVarOverlayAddr: f.overlay}
	if f.pods.IsValid() {
		values[bpf.UplinkVarPodNet], values[bpf.UplinkVarPodMask] = f.pods.Masked().Addr(), mask(f.pods)
	}
	for name, value := range values {
		if !value.IsValid() {
			continue
		}
		if err := spec.Variables[name].Set(words(value)); err != nil {
			return fmt.Errorf("configuring the uplink's programs: %w", err)
		}
	}
	if err := spec.Variables[bpf.UplinkVarOverlayPort].Set(port); err != nil {
		return fmt.Errorf("configuring the uplink's programs: %w", err)
	}
	shared := map[string]*ebpf.Map{}
	for name, m := range policies {
		if spec.Maps[name] != nil && !strings.HasPrefix(name, ".") { // those have variables
			shared[name] = m
		}
	}
	f.uplink, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: maps}, MapReplacements: shared})
	if err != nil {
		return fmt.Errorf("loading the uplink's programs (maps pinned in %s): %w", maps, err)
	}
	if !f.cluster.IsValid() {
		return nil
	}
	// Before the programs are in place: else pods would meet each other's nodes.
	if err := f.uplinkTable(bpf.UplinkMapClusterNetworks).Put(networkKey(f.cluster), uint8(1)); err != nil {
		return fmt.Errorf("adding the cluster's network: %w", err)
	}
	return nil
}

// networkKey is struct network.
func networkKey(p netip.Prefix) []byte {
	return append(binary.NativeEndian.AppendUint32(nil, uint32(p.Bits())), p.Masked().Addr().AsSlice()...)
}

// mask is the netmask of a prefix, as an address.
func mask(p netip.Prefix) netip.Addr {
	b := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// SetClusterNetworks says where pods are known by their own addresses: the
// cluster's pods and nodes. What pods send to elsewhere gets the node's address.
func (d *Datapath) SetClusterNetworks(networks []netip.Prefix) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.families {
		if err := f.setClusterNetworks(networks); err != nil {
			return err
		}
	}
	return nil
}

func (f *family) setClusterNetworks(networks []netip.Prefix) error {
	if f.uplink == nil {
		return nil
	}
	m := f.uplinkTable(bpf.UplinkMapClusterNetworks)
	wanted := make(map[string]bool, len(networks))
	for _, p := range networks {
		if f.has(p.Addr()) {
			wanted[string(networkKey(p))] = true
		}
	}
	for k := range wanted {
		if err := m.Put([]byte(k), uint8(1)); err != nil {
			return fmt.Errorf("adding a network of the cluster: %w", err)
		}
	}
	var stale [][]byte
	var k []byte
	var v uint8
	it := m.Iterate()
	for it.Next(&k, &v) {
		if !wanted[string(k)] {
			stale = append(stale, []byte(string(k)))
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

// attachUplink makes sure that the uplink's programs are attached to the
// interface that has the node's address now. The way back comes first, as with the
// hooks of sockets.
func (d *Datapath) attachUplink(f *family, links string, renew bool) error {
	if f.uplink == nil {
		return nil
	}
	index, err := interfaceWith(f.node)
	if err != nil {
		return err
	}
	ensure := func(pin, program string, index int, egress bool) error {
		return hook.Interface{
			Pin: filepath.Join(links, pin), Name: program, Program: f.uplink.Programs[program], Filter: f.filter,
			Index: index, Egress: egress, Classic: d.cfg.ClassicTC,
		}.Ensure(renew)
	}
	if err := ensure(f.toUplink, f.toUplink, index, true); err != nil {
		return err
	}
	if err := ensure(f.fromUplink, f.fromUplink, index, false); err != nil {
		return err
	}
	return d.attachOverlay(f, links, renew)
}

// attachOverlay does the same for the overlay's interface, if there is one now.
func (d *Datapath) attachOverlay(f *family, links string, renew bool) error {
	if f.uplink == nil || d.cfg.OverlayLink == "" {
		return nil
	}
	overlay, err := netlink.LinkByName(d.cfg.OverlayLink)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding the overlay's interface: %w", err)
	}
	return hook.Interface{
		Pin: filepath.Join(links, f.overlayPin), Name: f.fromUplink, Program: f.uplink.Programs[f.fromUplink], Filter: f.filter,
		Index: overlay.Attrs().Index, Classic: d.cfg.ClassicTC,
	}.Ensure(renew)
}

func interfaceWith(ip netip.Addr) (int, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return 0, fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addrs {
		if found, ok := netip.AddrFromSlice(a.IP); ok && found.Unmap() == ip {
			return a.LinkIndex, nil
		}
	}
	return 0, fmt.Errorf("no interface has the node's address %v", ip)
}
