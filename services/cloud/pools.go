package cloud

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/xebec-project/xebec/internal/ipalloc"
	"github.com/xebec-project/xebec/internal/kinds/core"
)

// defaultPool is the name of a pool that has none, and the pool of services that ask for none.
const defaultPool = "default"

// pool is a set of addresses with a name, of one family or of both.
type pool struct {
	name   string
	ranges []netip.Prefix
}

// parsePools reads what the configuration says of pools: each item is a range, or a name, "=" and a
// range. Items of one name are one pool, of whichever family they are. No two ranges may overlap,
// nor one of the others, which are named for the error.
func parsePools(items []string, others ...ipalloc.Range) ([]pool, error) {
	var pools []pool
	var errs []error
	all := others
	for _, item := range items {
		name, text, named := strings.Cut(item, "=")
		if !named {
			name, text = defaultPool, item
		}
		if wrong := validation.IsDNS1123Label(name); len(wrong) > 0 {
			errs = append(errs, fmt.Errorf("pools: %q: the name %q: %s", item, name, strings.Join(wrong, ", ")))
			continue
		}
		cidr, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("pools: %q: %w; write a range such as 192.0.2.64/27, or NAME=RANGE", item, err))
			continue
		case cidr != cidr.Masked():
			errs = append(errs, fmt.Errorf("pools: %q: the range begins at %s: write %s", item, cidr.Masked().Addr(), cidr.Masked()))
			continue
		case cidr.Addr().Is4In6():
			errs = append(errs, fmt.Errorf("pools: %q: write IPv4 addresses as such", item))
			continue
		case hostBits(cidr) > maxHostBits:
			errs = append(errs, fmt.Errorf("pools: %q: a pool of more than 65536 addresses is not supported: write smaller ranges", item))
			continue
		}
		all = append(slices.Clip(all), ipalloc.Range{Name: "pool " + name, CIDR: cidr})
		i := slices.IndexFunc(pools, func(p pool) bool { return p.name == name })
		if i < 0 {
			i, pools = len(pools), append(pools, pool{name: name})
		}
		pools[i].ranges = append(pools[i].ranges, cidr)
	}
	if err := ipalloc.CheckDisjoint(all...); err != nil {
		errs = append(errs, fmt.Errorf("pools: %w", err))
	}
	return pools, errors.Join(errs...)
}

// maxHostBits bounds the size of a range: every address may be looked at when a pool is nearly
// full.
const maxHostBits = 16

func hostBits(r netip.Prefix) int { return r.Addr().BitLen() - r.Bits() }

// addresses yields the pool's addresses of a family, in order. A range that has room for it leaves
// out its first address, which is a network's own (RFC 4291 gives it to a network's routers) where
// the range is a whole network, and of IPv4 its last one, which is the broadcast address there.
func (p pool) addresses(family string) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for r := range p.of(family) {
			for addr := r.Addr(); r.Contains(addr); addr = addr.Next() {
				if usable(r, addr) && !yield(addr) {
					return
				}
			}
		}
	}
}

// of yields the pool's ranges of a family.
func (p pool) of(family string) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for _, r := range p.ranges {
			if familyOf(r.Addr()) == family && !yield(r) {
				return
			}
		}
	}
}

// has tells whether any of the pool's addresses is of the family.
func (p pool) has(family string) bool {
	for range p.of(family) {
		return true
	}
	return false
}

// size is how many addresses of a family the pool has.
func (p pool) size(family string) int {
	n := 0
	for r := range p.of(family) {
		n += 1 << hostBits(r)
		if hostBits(r) > 1 {
			n--
			if r.Addr().Is4() {
				n--
			}
		}
	}
	return n
}

// contains tells whether the address is one of the pool's.
func (p pool) contains(addr netip.Addr) bool {
	return slices.ContainsFunc(p.ranges, func(r netip.Prefix) bool { return r.Contains(addr) && usable(r, addr) })
}

func usable(r netip.Prefix, addr netip.Addr) bool {
	if hostBits(r) <= 1 {
		return true
	}
	return addr != r.Addr() && (addr.Is6() || r.Contains(addr.Next()))
}

// families are the names of the families of addresses, as services have them.
var families = []string{core.FamilyIPv4, core.FamilyIPv6}

func familyOf(addr netip.Addr) string {
	if addr.Is4() {
		return core.FamilyIPv4
	}
	return core.FamilyIPv6
}
