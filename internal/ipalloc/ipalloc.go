// Package ipalloc computes which addresses and ports to try for an allocation. It keeps no state:
// an allocation is a key in etcd, and the client that creates the key has the address. Each search
// starts at a random place, so that two searches rarely meet, and walks on from there, so that it
// finds a free address whenever there is one.
package ipalloc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// Candidates yields every address of a range that may be allocated, once, from a random one on: not
// the network's own address, not an IPv4 broadcast address, and not the reserved ones, which are
// had only by asking for them. Of an IPv6 range the first 2^64 addresses count. It is safe for
// concurrent use, and each range over it starts elsewhere.
func Candidates(cidr netip.Prefix, reserved ...netip.Addr) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		n := usable(cidr)
		if n == 0 {
			return
		}
		start := rand.Uint64N(n)
		for i := range n {
			at := start + i
			if at >= n || at < start {
				at = i - (n - start)
			}
			addr := nth(cidr, at+1) // 0 is the network's own.
			if !slices.Contains(reserved, addr) && !yield(addr) {
				return
			}
		}
	}
}

// First returns the first address of a range that may be allocated. Of the range of services it is
// that of the service default/kubernetes, by which pods reach the cluster.
func First(cidr netip.Prefix) netip.Addr { return nth(cidr, 1) }

// usable is how many addresses of a range may be allocated, the reserved ones included.
func usable(cidr netip.Prefix) uint64 {
	if !cidr.IsValid() {
		return 0
	}
	bits := cidr.Addr().BitLen() - cidr.Bits()
	if cidr.Addr().Is6() {
		// The network's own address is left out; so is the last of 2^64, that the count may fit.
		return 1<<min(bits, 63) - 1
	}
	// Network and broadcast address are left out. Smaller ranges have none to spare.
	return max(uint64(1)<<bits, 2) - 2
}

// nth returns the address n places after the first of the range.
func nth(cidr netip.Prefix, n uint64) netip.Addr {
	base := cidr.Masked().Addr()
	if base.Is4() {
		b := base.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := base.As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	return netip.AddrFrom16(b)
}

// PortRange is a range of node ports, both ends included.
type PortRange struct{ First, Last uint16 }

// String returns the range as "30000-32767".
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// Contains reports whether a port is in the range.
func (r PortRange) Contains(port int32) bool {
	return port >= int32(r.First) && port <= int32(r.Last)
}

// Candidates yields every port of the range once, from a random one on.
func (r PortRange) Candidates() iter.Seq[int32] {
	return func(yield func(int32) bool) {
		if r.First == 0 || r.First > r.Last {
			return
		}
		n := int32(r.Last) - int32(r.First) + 1
		start := rand.Int32N(n)
		for i := range n {
			if !yield(int32(r.First) + (start+i)%n) {
				return
			}
		}
	}
}

// Range is an address range with the name that people know it by, such as "service CIDR".
type Range struct {
	Name string
	CIDR netip.Prefix
}

// CheckDisjoint returns an error that names every two ranges that overlap and says what to change,
// or nil. Ranges that are not set are passed over.
func CheckDisjoint(ranges ...Range) error {
	var errs []error
	for i, a := range ranges {
		for _, b := range ranges[i+1:] {
			if a.CIDR.IsValid() && b.CIDR.IsValid() && a.CIDR.Overlaps(b.CIDR) {
				errs = append(errs, fmt.Errorf("%s %s overlaps %s %s: choose ranges that share no address", a.Name, a.CIDR, b.Name, b.CIDR))
			}
		}
	}
	return errors.Join(errs...)
}

// ParseFamilies reads a range of IPv4 addresses, such as "10.96.0.0/16", and, for a dual-stack
// cluster, one of IPv6 addresses after a comma, such as "10.96.0.0/16,fd00:10:96::/112". The error
// says what to write instead.
func ParseFamilies(text string) ([]netip.Prefix, error) {
	const want = "write an IPv4 range such as 10.96.0.0/16, for dual stack followed by an IPv6 one such as fd00:10:96::/112, after a comma"
	var out []netip.Prefix
	for part := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("%w; %s", err, want)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%s has bits beyond its prefix length: write %s", p, p.Masked())
		}
		out = append(out, p)
	}
	if len(out) > 2 || !out[0].Addr().Is4() || len(out) == 2 && (!out[1].Addr().Is6() || out[1].Addr().Is4In6()) {
		return nil, fmt.Errorf("%q: %s", text, want)
	}
	return out, nil
}

// Named gives ranges a name in common, for CheckDisjoint.
func Named(name string, cidrs []netip.Prefix) []Range {
	out := make([]Range, 0, len(cidrs))
	for _, c := range cidrs {
		out = append(out, Range{Name: name, CIDR: c})
	}
	return out
}
