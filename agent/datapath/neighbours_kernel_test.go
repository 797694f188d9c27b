package datapath_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/internal/netlab"
)

// Every form of the question by neighbour discovery has its answer, which is the same size whatever
// options the question has, and whose checksum holds.
func TestNeighbourDiscovery(t *testing.T) {
	w := newWire(t, dualStack)
	target := netip.MustParseAddr("2001:db8::2:345")
	group := netip.MustParseAddr("ff02::1:ff02:345")
	w.announce(0, target.String())
	node, own := hardware(t, w.nodes[0].Namespace), hardware(t, w.client)
	client := netip.MustParseAddr(clientIP6)

	if !isMember(t, w.nodes[0].Namespace, group) {
		t.Errorf("switches do not forward queries for %v to the node", group)
	}
	source := append([]byte{1, 1}, own...)
	nonce := []byte{14, 1, 1, 2, 3, 4, 5, 6}
	for name, c := range map[string]struct {
		from, to netip.Addr
		hops     byte
		options  []byte
		back     netip.Addr // invalid: it is not answered
		flags    byte
	}{
		"by the group":              {client, group, 255, source, client, 0x60},
		"by the group, with more":   {client, group, 255, slices.Concat(source, nonce, nonce), client, 0x60},
		"straight, without options": {client, target, 255, nil, client, 0x60},
		"to use it itself":          {netip.IPv6Unspecified(), group, 255, nonce, netip.IPv6LinkLocalAllNodes(), 0x20},
		"from beyond a router":      {client, group, 254, source, netip.Addr{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			questions := [][]byte{solicitation(own, node, c.from, c.to, target, c.hops, c.options)}
			if !c.back.IsValid() {
				// The first answer is to the next question.
				questions = append(questions, solicitation(own, node, netip.IPv6Unspecified(), group, target, 255, nil))
				c.back, c.flags = netip.IPv6LinkLocalAllNodes(), 0x20
			}
			await(t, "the question is answered", func() error {
				w.announce(0, target.String()) // it lapses, and the machine may be slow
				return w.client.Do(func() error {
					got, err := solicit(target, questions...)
					if err != nil {
						return err
					}
					header, message := got[14:54], got[54:]
					want := append([]byte{136, 0, message[2], message[3], c.flags, 0, 0, 0}, target.AsSlice()...)
					want = append(append(want, 2, 1), node...)
					if !bytes.Equal(message, want) {
						return fmt.Errorf("answered %x, want %x", message, want)
					}
					from, to := netip.AddrFrom16([16]byte(header[8:24])), netip.AddrFrom16([16]byte(header[24:40]))
					if from != target || to != c.back || header[7] != 255 || !bytes.Equal(got[6:12], node) {
						return fmt.Errorf("answered from %v (%x) to %v", from, got[6:12], to)
					}
					if sum := sum16(header[8:40], []byte{0, 32, 0, 58}, message); sum != 0xffff {
						return fmt.Errorf("the checksum is wrong: %#x", sum)
					}
					return nil
				})
			})
		})
	}

	w.announce(0)
	if isMember(t, w.nodes[0].Namespace, group) {
		t.Errorf("the node is still to be asked at %v", group)
	}
	// A restarted agent is a member of the groups of its predecessor's addresses, and of none once it
	// ends.
	w.announce(0, target.String())
	n := w.nodes[0]
	holdAnnouncement(t, n, target)
	if err := n.Do(n.dp.Close); err != nil {
		t.Fatal(err)
	}
	if isMember(t, n.Namespace, group) {
		t.Error("a membership outlives its agent")
	}
	w.load(n)
	if err := n.Do(n.dp.Renew); err != nil {
		t.Fatal(err)
	}
	if !isMember(t, n.Namespace, group) {
		t.Errorf("a restarted agent receives no queries at %v", group)
	}
}

// holdAnnouncement keeps what a node answers for from lapsing, however long the test takes.
func holdAnnouncement(t *testing.T, n *wiredNode, addr netip.Addr) {
	t.Helper()
	announced, err := ebpf.LoadPinnedMap(filepath.Join(n.cfg.PinPath, "maps-v2", bpf.Uplink6MapAnnounced6), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer announced.Close()
	var value bpf.UplinkAnnouncement
	if err := announced.Lookup(addr.AsSlice(), &value); err != nil {
		t.Fatal(err)
	}
	value.Until = math.MaxInt64
	if err := announced.Put(addr.AsSlice(), value); err != nil {
		t.Fatal(err)
	}
}

// solicitation is a frame that asks for the target's hardware address.
func solicitation(own, node net.HardwareAddr, from, to, target netip.Addr, hops byte, options []byte) []byte {
	message := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	message = append(message, options...)
	addrs := append(from.AsSlice(), to.AsSlice()...)
	binary.BigEndian.PutUint16(message[2:], ^sum16(addrs, []byte{0, byte(len(message)), 0, 58}, message))
	frame := slices.Concat(node, own, []byte{0x86, 0xdd, 6 << 4, 0, 0, 0, 0, byte(len(message)), 58, hops}, addrs, message)
	if to.IsMulticast() {
		copy(frame, append([]byte{0x33, 0x33}, to.AsSlice()[12:]...))
	}
	return frame
}

// solicit sends questions and returns the first frame that answers for the target.
func solicit(target netip.Addr, questions ...[]byte) ([]byte, error) {
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(bits.ReverseBytes16(unix.ETH_P_IPV6)))
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return nil, err
	}
	for _, q := range questions {
		if err := unix.Sendto(fd, q, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}); err != nil {
			return nil, err
		}
	}
	for buf := make([]byte, 2048); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, err
		}
		if n > 78 && buf[20] == 58 && buf[54] == 136 && netip.AddrFrom16([16]byte(buf[62:78])) == target {
			return buf[:n], nil
		}
	}
}

func sum16(parts ...[]byte) uint16 {
	var sum uint32
	for _, p := range parts {
		for i := 0; i < len(p); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

func hardware(t *testing.T, ns *netlab.Namespace) (mac net.HardwareAddr) {
	t.Helper()
	err := ns.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			mac = l.Attrs().HardwareAddr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// isMember reports whether a host's interface is a member of a group.
func isMember(t *testing.T, ns *netlab.Namespace, group netip.Addr) bool {
	t.Helper()
	var text []byte
	err := ns.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/igmp6")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), hex.EncodeToString(group.AsSlice()))
}
