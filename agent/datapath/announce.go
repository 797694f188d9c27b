package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
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
	// announceRepeats is the number of renewals after a takeover that announce the address on the
	// network again: announcements are not acknowledged, and caches ignore one that follows another
	// too soon.
	announceRepeats = 3
)

// announcer is what a node answers for.
type announcer struct {
	// sent counts the announcements of an address since this node has it.
	sent map[netip.Addr]int
	// asked are the groups that this process is a member of, to be sent the questions
	// for IPv6 addresses.
	asked map[membership]int // a socket
}

// membership is of an interface in a group.
type membership struct {
	link  int
	group netip.Addr
}

// Announce makes the node answer for these addresses on the uplink's wire, and for no others, until
// announceFor from now. A new address is announced on the network, so that neighbours that have
// another node's hardware address for it learn this one's.
func (d *Datapath) Announce(addrs []netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(addrs) == 0 && len(d.announcer.sent) == 0 && d.announcer.sent != nil {
		return nil
	}
	for _, f := range d.families {
		if m := f.announced(); m != nil {
			if err := withdraw(m, addrs); err != nil {
				return err
			}
		}
	}
	if d.announcer.sent == nil {
		d.announcer.sent = make(map[netip.Addr]int)
	}
	for addr := range d.announcer.sent {
		if !slices.Contains(addrs, addr) {
			delete(d.announcer.sent, addr)
		}
	}
	var errs []error
	asked := make(map[membership]bool)
	for _, f := range d.families {
		if mine := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !f.has(a) }); len(mine) > 0 {
			errs = append(errs, d.announce(f, mine, asked))
		}
	}
	errs = append(errs, d.announcer.leave(asked))
	return errors.Join(errs...)
}

// announce makes the node answer for addresses of a family, and adds how it is asked.
func (d *Datapath) announce(f *family, addrs []netip.Addr, asked map[membership]bool) error {
	m := f.announced()
	if m == nil {
		return nil // there is no uplink, and therefore no neighbour
	}
	uplink, err := uplinkLink(f.node)
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
		if err := errors.Join(d.announcer.joinGroup(uplink.Attrs().Index, addr, asked), m.Put(addr.AsSlice(), value)); err != nil {
			errs = append(errs, fmt.Errorf("announcing %v: %w", addr, err))
			continue
		}
		if d.announcer.sent[addr] > announceRepeats {
			continue
		}
		if err := sendAnnouncement(uplink, addr); err != nil {
			errs = append(errs, fmt.Errorf("announcing %v on the network: %w", addr, err))
			continue
		}
		d.announcer.sent[addr]++
	}
	return errors.Join(errs...)
}

// Renew has the node go on answering for what it still answers for, as an earlier agent
// left it.
func (d *Datapath) Renew() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, err := sinceBoot()
	if err != nil {
		return err
	}
	var errs []error
	asked := make(map[membership]bool)
	for _, f := range d.families {
		if m := f.announced(); m != nil {
			errs = append(errs, d.renew(f, m, now, asked))
		}
	}
	errs = append(errs, d.announcer.leave(asked))
	return errors.Join(errs...)
}

func (d *Datapath) renew(f *family, m *ebpf.Map, now time.Duration, asked map[membership]bool) error {
	held, err := announcements(m)
	if err != nil {
		return err
	}
	maps.DeleteFunc(held, func(_ netip.Addr, v bpf.UplinkAnnouncement) bool { return v.Until <= uint64(now) })
	if len(held) == 0 {
		return nil
	}
	index, err := interfaceWith(f.node)
	if err != nil {
		return err
	}
	for addr, v := range held {
		v.Until = uint64(now + announceFor)
		if err := errors.Join(d.announcer.joinGroup(index, addr, asked), m.Put(addr.AsSlice(), v)); err != nil {
			return fmt.Errorf("announcing %v: %w", addr, err)
		}
	}
	return nil
}

// announcements returns what a map of addresses holds.
func announcements(m *ebpf.Map) (map[netip.Addr]bpf.UplinkAnnouncement, error) {
	out := make(map[netip.Addr]bpf.UplinkAnnouncement)
	var k []byte
	var v bpf.UplinkAnnouncement
	it := m.Iterate()
	for it.Next(&k, &v) {
		if addr, ok := netip.AddrFromSlice(k); ok {
			out[addr] = v
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("listing the announced addresses: %w", err)
	}
	return out, nil
}

// withdraw removes all addresses from the map but these.
func withdraw(m *ebpf.Map, keep []netip.Addr) error {
	held, err := announcements(m)
	if err != nil {
		return err
	}
	for addr := range held {
		if slices.Contains(keep, addr) {
			continue
		}
		if err := m.Delete(addr.AsSlice()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("withdrawing %v: %w", addr, err)
		}
	}
	return nil
}

// announced is the map of the addresses of the family that the node answers for; nil:
// there is none.
func (f *family) announced() *ebpf.Map {
	if f.uplink == nil {
		return nil
	}
	return f.uplinkTable(bpf.UplinkMapAnnounced)
}

// joinGroup makes sure that the interface receives the queries for the address, and adds the group
// that they are sent to. For IPv4 queries are broadcast; for IPv6 they are sent to a multicast
// group by the end of the address, which switches and interfaces forward to members only. The agent
// is a member while it runs: neighbours that have the address cached query it directly.
func (a *announcer) joinGroup(link int, addr netip.Addr, asked map[membership]bool) error {
	if addr.Is4() {
		return nil
	}
	m := membership{link, solicitedNode(addr)}
	asked[m] = true
	if _, is := a.asked[m]; is {
		return nil
	}
	// One for each group: a socket has room for few.
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	mreq := &unix.IPv6Mreq{Multiaddr: m.group.As16(), Interface: uint32(link)}
	if err := unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, mreq); err != nil {
		unix.Close(fd)
		return fmt.Errorf("joining %v: %w", m.group, err)
	}
	if a.asked == nil {
		a.asked = make(map[membership]int)
	}
	a.asked[m] = fd
	return nil
}

// leave ends all memberships but these.
func (a *announcer) leave(keep map[membership]bool) error {
	var errs []error
	for m, fd := range a.asked {
		if !keep[m] {
			errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
			delete(a.asked, m)
		}
	}
	return errors.Join(errs...)
}

// solicitedNode is the group that is asked for an IPv6 address (RFC 4291, 2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	group, b := netip.MustParseAddr("ff02::1:ff00:0").As16(), addr.As16()
	copy(group[13:], b[13:])
	return netip.AddrFrom16(group)
}

// uplinkLink is the interface that has the node's address.
func uplinkLink(node netip.Addr) (netlink.Link, error) {
	index, err := interfaceWith(node)
	if err != nil {
		return nil, err
	}
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil, fmt.Errorf("inspecting the uplink: %w", err)
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

// sendAnnouncement announces that the address is at the interface.
func sendAnnouncement(l netlink.Link, addr netip.Addr) error {
	mac := l.Attrs().HardwareAddr
	if len(mac) != 6 {
		return fmt.Errorf("interface %s is not an Ethernet interface", l.Attrs().Name)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // receives nothing
	if err != nil {
		return fmt.Errorf("opening a packet socket: %w", err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}
	for _, frame := range takeover([6]byte(mac), addr) {
		if err := unix.Sendto(fd, frame, 0, to); err != nil {
			return fmt.Errorf("sending a frame: %w", err)
		}
	}
	return nil
}

// takeover are the frames that tell a wire whose an address is: for IPv4 an ARP
// announcement (RFC 5227), once as a request and once as a reply, since caches heed the
// one or the other, for IPv6 an unsolicited advertisement (RFC 4861, 7.2.6).
func takeover(mac [6]byte, addr netip.Addr) [][]byte {
	if addr.Is6() {
		return [][]byte{advertisement(mac, addr)}
	}
	return [][]byte{arpAnnouncement(mac, addr, 1), arpAnnouncement(mac, addr, 2)}
}

// arpAnnouncement is a frame that says whose the address is: operation 1 is a request,
// 2 a reply.
func arpAnnouncement(mac [6]byte, addr netip.Addr, operation uint16) []byte {
	const broadcast = "\xff\xff\xff\xff\xff\xff"
	ip := addr.As4()
	frame := make([]byte, 0, 42)
	frame = append(frame, broadcast...)
	frame = append(frame, mac[:]...)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_ARP)
	frame = binary.BigEndian.AppendUint16(frame, unix.ARPHRD_ETHER)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_IP)
	frame = append(frame, 6, 4) // bytes of the two kinds of address
	frame = binary.BigEndian.AppendUint16(frame, operation)
	frame = append(append(frame, mac[:]...), ip[:]...)
	return append(append(frame, broadcast...), ip[:]...)
}

// advertisement is a frame to all nodes of the wire that puts this hardware address in the
// place of the one that they have for the address.
func advertisement(mac [6]byte, addr netip.Addr) []byte {
	const (
		neighbourAdvertisement = 136
		override               = 1 << 29
		targetAddress          = 2 // an option
		hops                   = 255
	)
	ip, all := addr.As16(), netip.IPv6LinkLocalAllNodes().As16()
	message := binary.BigEndian.AppendUint32([]byte{neighbourAdvertisement, 0, 0, 0}, override)
	message = append(append(message, ip[:]...), targetAddress, 1)
	message = append(message, mac[:]...)
	header := append(append([]byte(nil), ip[:]...), all[:]...)
	binary.BigEndian.PutUint16(message[2:], checksum(header, []byte{0, byte(len(message)), 0, unix.IPPROTO_ICMPV6}, message))

	frame := append([]byte{0x33, 0x33, 0, 0, 0, 1}, mac[:]...)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_IPV6)
	frame = append(frame, 6<<4, 0, 0, 0, 0, byte(len(message)), unix.IPPROTO_ICMPV6, hops)
	return append(append(frame, header...), message...)
}

// checksum is the Internet's (RFC 1071), of parts that are each of an even length.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, p := range parts {
		for ; len(p) > 0; p = p[2:] {
			sum += uint32(binary.BigEndian.Uint16(p))
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
