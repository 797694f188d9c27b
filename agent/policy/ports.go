package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Protocol is a number of an IP protocol.
type Protocol uint8

// Protocols that have ports.
const (
	TCP Protocol = unix.IPPROTO_TCP
	UDP Protocol = unix.IPPROTO_UDP
)

// ParseProtocol is String's opposite; false for a protocol without a name here.
func ParseProtocol(name string) (Protocol, bool) {
	switch name {
	case "TCP":
		return TCP, true
	case "UDP":
		return UDP, true
	}
	return 0, false
}

// String is the protocol's name, or its number where it has none here.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return "ICMP"
	case unix.IPPROTO_SCTP:
		return "SCTP"
	}
	return strconv.Itoa(int(p))
}

// Range is ports of a protocol, from first to last, both included. Protocol 0 is
// all protocols, those without ports too.
type Range struct {
	Protocol    Protocol
	First, Last uint16
}

// everything is the range of all ports of all protocols.
var everything = Range{Last: 65535}

// contains reports whether the range has the port.
func (r Range) contains(protocol Protocol, port uint16) bool {
	return r.Protocol == 0 || r.Protocol == protocol && r.First <= port && port <= r.Last
}

// Ports is a set of ports, written the same way whenever it is the same: "" is
// none, "*" all ports of all protocols, and "TCP/80,TCP/8000-8999,UDP/53" some.
type Ports string

// Sets of ports that stand for themselves.
const (
	NoPorts  Ports = ""
	AllPorts Ports = "*"
)

// portsOf joins ranges to a set.
func portsOf(ranges []Range) Ports {
	if len(ranges) == 0 {
		return NoPorts
	}
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b Range) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	if sorted[0].Protocol == 0 {
		return AllPorts
	}
	joined := sorted[:1]
	for _, r := range sorted[1:] {
		last := &joined[len(joined)-1]
		if r.Protocol == last.Protocol && int(r.First) <= int(last.Last)+1 {
			last.Last = max(last.Last, r.Last)
		} else {
			joined = append(joined, r)
		}
	}
	var b strings.Builder
	for i, r := range joined {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s/%d", r.Protocol, r.First)
		if r.Last != r.First {
			fmt.Fprintf(&b, "-%d", r.Last)
		}
	}
	return Ports(b.String())
}

// Ranges takes the set apart.
func (p Ports) Ranges() []Range {
	switch p {
	case NoPorts:
		return nil
	case AllPorts:
		return []Range{everything}
	}
	var out []Range
	for part := range strings.SplitSeq(string(p), ",") {
		name, ports, _ := strings.Cut(part, "/")
		first, last, isRange := strings.Cut(ports, "-")
		if !isRange {
			last = first
		}
		protocol, _ := ParseProtocol(name)
		out = append(out, Range{protocol, number(first), number(last)})
	}
	return out
}

func number(s string) uint16 {
	n, _ := strconv.ParseUint(s, 10, 16)
	return uint16(n)
}

// Contains reports whether the set has the port. For protocols without ports it is 0.
func (p Ports) Contains(protocol Protocol, port uint16) bool {
	return slices.ContainsFunc(p.Ranges(), func(r Range) bool { return r.contains(protocol, port) })
}

// portPrefix is the ports whose first bits are those of port.
type portPrefix struct {
	port uint16
	bits uint8
}

// prefixes covers a range by as few prefixes as there can be.
func (r Range) prefixes() []portPrefix {
	var out []portPrefix
	for first, last := uint32(r.First), uint32(r.Last); first <= last; {
		size, bits := uint32(1), uint8(16)
		for bits > 0 && first%(2*size) == 0 && first+2*size-1 <= last {
			size, bits = 2*size, bits-1
		}
		out = append(out, portPrefix{uint16(first), bits})
		first += size
	}
	return out
}
