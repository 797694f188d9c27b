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
)

// defaultPool is the name of a pool that has none, and the pool of services that ask for none.
const defaultPool = "default"

// pool is a set of addresses with a name.
type pool struct {
	name   string
	ranges []netip.Prefix
}

// parsePools reads what the configuration says of pools: each item is a range, or a name, "=" and a range. Items of one
// name are one pool. No two ranges may overlap, nor one of the others, which are named for the error.
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
		case !cidr.Addr().Is4():
			errs = append(errs, fmt.Errorf("pools: %q: load balancers have IPv4 addresses only", item))
			continue
		case cidr.Bits() < minPoolBits:
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

// minPoolBits bounds the size of a range: every address may be looked at when a pool is nearly full.
const minPoolBits = 16

// addresses yields the pool's addresses in order. A range that has room for them leaves its first and last address out,
// which are a network's own and its broadcast address where the range is a whole network.
func (p pool) addresses() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for _, r := range p.ranges {
			for addr := r.Addr(); r.Contains(addr); addr = addr.Next() {
				if usable(r, addr) && !yield(addr) {
					return
				}
			}
		}
	}
}

// size is how many addresses the pool has.
func (p pool) size() int {
	n := 0
	for _, r := range p.ranges {
		n += 1 << (r.Addr().BitLen() - r.Bits())
		if r.Bits() < r.Addr().BitLen()-1 {
			n -= 2
		}
	}
	return n
}

// contains tells whether the address is one of the pool's.
func (p pool) contains(addr netip.Addr) bool {
	return slices.ContainsFunc(p.ranges, func(r netip.Prefix) bool { return r.Contains(addr) && usable(r, addr) })
}

func usable(r netip.Prefix, addr netip.Addr) bool {
	if r.Bits() >= r.Addr().BitLen()-1 {
		return true
	}
	return addr != r.Addr() && r.Contains(addr.Next())
}
