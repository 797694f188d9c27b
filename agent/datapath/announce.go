package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
)

const (
	// announceEvery is how often what the node answers for is renewed.
	announceEvery = 2 * time.Second
	// announceFor is how long a node answers for an address after its agent died: about
	// as long as others take to find the node lost.
	announceFor = 10 * time.Second
	// announceRepeats is with how many renewals after a takeover the wire is told again,
	// since nobody acknowledges it, and caches refuse what comes too soon after another.
	announceRepeats = 3
)

// announcer is what a node answers for.
type announcer struct {
	// told is how often the wire was told of an address since this node has it.
	told map[netip.Addr]int
}

// Announce makes the node answer for these addresses on the uplink's wire, and for no
// others, until announceFor from now. An address that is new is told to the wire, so that
// who knows another node's hardware address for it learns this one's.
func (d *Datapath) Announce(addrs []netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.announced()
	if m == nil || len(addrs) == 0 && len(d.announcer.told) == 0 && d.announcer.told != nil {
		return nil
	}
	if err := withdraw(m, addrs); err != nil {
		return err
	}
	if d.announcer.told == nil {
		d.announcer.told = make(map[netip.Addr]int)
	}
	for addr := range d.announcer.told {
		if !slices.Contains(addrs, addr) {
			delete(d.announcer.told, addr)
		}
	}
	if len(addrs) == 0 {
		return nil
	}
	uplink, err := uplinkLink(d.cfg.NodeIP)
	if err != nil {
		return err
	}
	now, err := sinceBoot()
	if err != nil {
		return err
	}
	value := bpf.UplinkAnnouncement{Until: uint64(now + announceFor)}
	copy(value.Mac[:], uplink.Attrs().HardwareAddr)
	var errs []error
	for _, addr := range addrs {
		if err := m.Put(words(addr)[0], value); err != nil {
			errs = append(errs, fmt.Errorf("announcing %v: %w", addr, err))
			continue
		}
		if d.announcer.told[addr] > announceRepeats {
			continue
		}
		if err := tellWire(uplink, addr); err != nil {
			errs = append(errs, fmt.Errorf("telling the wire of %v: %w", addr, err))
			continue
		}
		d.announcer.told[addr]++
	}
	return errors.Join(errs...)
}

// Renew has the node go on answering for what it still answers for, as an earlier agent
// left it.
func (d *Datapath) Renew() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.announced()
	if m == nil {
		return nil
	}
	now, err := sinceBoot()
	if err != nil {
		return err
	}
	var k uint32
	var v bpf.UplinkAnnouncement
	renewed := make(map[uint32]bpf.UplinkAnnouncement)
	it := m.Iterate()
	for it.Next(&k, &v) {
		if v.Until > uint64(now) {
			v.Until = uint64(now + announceFor)
			renewed[k] = v
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("listing the addresses that are announced: %w", err)
	}
	for k, v := range renewed {
		if err := m.Put(k, v); err != nil {
			return fmt.Errorf("announcing %v: %w", address([]uint32{k}), err)
		}
	}
	return nil
}

// withdraw removes all addresses from the map but these.
func withdraw(m *ebpf.Map, keep []netip.Addr) error {
	var k uint32
	var v bpf.UplinkAnnouncement
	var old []uint32
	it := m.Iterate()
	for it.Next(&k, &v) {
		if !slices.Contains(keep, address([]uint32{k})) {
			old = append(old, k)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("listing the addresses that are announced: %w", err)
	}
	for _, k := range old {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("withdrawing %v: %w", address([]uint32{k}), err)
		}
	}
	return nil
}

// announced is the map of the addresses that the node answers for, which are of IPv4;
// nil: there is none.
func (d *Datapath) announced() *ebpf.Map {
	if f := d.families[0]; f.uplink != nil {
		return f.uplink.Maps[bpf.UplinkMapAnnounced]
	}
	return nil
}

// uplinkLink is the interface that has the node's address.
func uplinkLink(node netip.Addr) (netlink.Link, error) {
	index, err := interfaceWith(node)
	if err != nil {
		return nil, err
	}
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil, fmt.Errorf("asking for the uplink: %w", err)
	}
	return l, nil
}

// sinceBoot is the time that programs read from the kernel's clock.
func sinceBoot() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0, fmt.Errorf("reading the kernel's clock: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// tellWire broadcasts that the address is at the interface: an ARP announcement (RFC
// 5227), once as a request and once as a reply, since caches heed the one or the other.
func tellWire(l netlink.Link, addr netip.Addr) error {
	mac := l.Attrs().HardwareAddr
	if len(mac) != 6 {
		return fmt.Errorf("interface %s is no Ethernet", l.Attrs().Name)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // receives nothing
	if err != nil {
		return fmt.Errorf("opening a packet socket: %w", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}
	for _, operation := range []uint16{1, 2} {
		if err := unix.Sendto(fd, arpAnnouncement(mac, addr, operation), 0, to); err != nil {
			return fmt.Errorf("sending: %w", err)
		}
	}
	return nil
}

// arpAnnouncement is a frame that says whose the address is: operation 1 is a request,
// 2 a reply.
func arpAnnouncement(mac []byte, addr netip.Addr, operation uint16) []byte {
	const broadcast = "\xff\xff\xff\xff\xff\xff"
	ip := addr.As4()
	frame := make([]byte, 0, 42)
	frame = append(frame, broadcast...)
	frame = append(frame, mac...)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_ARP)
	frame = binary.BigEndian.AppendUint16(frame, unix.ARPHRD_ETHER)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_IP)
	frame = append(frame, 6, 4) // bytes of the two kinds of address
	frame = binary.BigEndian.AppendUint16(frame, operation)
	frame = append(append(frame, mac...), ip[:]...)
	return append(append(frame, broadcast...), ip[:]...)
}
