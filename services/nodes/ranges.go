package nodes

import (
	"math/big"
	"net/netip"
	"sync"
)

// rangePool is the ranges of one size in a cluster CIDR, and who has which. It costs the same for
// each node, however many there are. Its methods may be called concurrently.
type rangePool struct {
	cluster netip.Prefix
	bits    int // of a range

	mu sync.Mutex
	// used counts the nodes that have a range, of the pool's size, and odd those with a range of
	// another size: set by hand, or from before the size was changed.
	used, odd map[netip.Prefix]int
	// reserved are the ranges that nodes were given whose objects may not show it yet, and byNode the
	// same by their nodes.
	reserved map[netip.Prefix]struct{}
	byNode   map[string]netip.Prefix
	// low is the number of a range; no lower one is free.
	low *big.Int
}

func newRangePool(cluster netip.Prefix, bits int) *rangePool {
	return &rangePool{
		cluster: cluster, bits: bits, low: new(big.Int),
		used: map[netip.Prefix]int{}, odd: map[netip.Prefix]int{}, reserved: map[netip.Prefix]struct{}{}, byNode: map[string]netip.Prefix{},
	}
}

// use notes that a node has a range, of any family.
func (r *rangePool) use(p netip.Prefix) {
	if !sameFamily(p, r.cluster) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	counts, p := r.counts(p)
	counts[p]++
}

// drop is the opposite of use.
func (r *rangePool) drop(p netip.Prefix) {
	if !sameFamily(p, r.cluster) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	counts, p := r.counts(p)
	if counts[p]--; counts[p] <= 0 {
		delete(counts, p)
		r.freed(p)
	}
}

func (r *rangePool) counts(p netip.Prefix) (map[netip.Prefix]int, netip.Prefix) {
	p = p.Masked()
	if p.Bits() == r.bits {
		return r.used, p
	}
	return r.odd, p
}

// forget gives up what was reserved for a node that is gone.
func (r *rangePool) forget(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.byNode[node]; ok {
		delete(r.byNode, node)
		delete(r.reserved, p)
		r.freed(p)
	}
}

// reserve returns a range for a node and keeps it from others: the one that was reserved for it
// before, or else the one that it asks for, unless that is not valid, or else the lowest; one that
// overlaps no other node's. It reports false when none is free.
func (r *rangePool) reserve(node string, former netip.Prefix) (netip.Prefix, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.byNode[node]; ok && r.used[p] == 0 {
		return p, true
	}
	p := former
	if !p.IsValid() || !r.free(p) {
		var ok bool
		if p, ok = r.lowest(); !ok {
			return p, false
		}
	}
	if before, ok := r.byNode[node]; ok {
		delete(r.reserved, before)
	}
	r.reserved[p], r.byNode[node] = struct{}{}, p
	return p, true
}

// free tells whether a range of the pool's size overlaps no other. The caller holds r.mu.
func (r *rangePool) free(p netip.Prefix) bool {
	if _, taken := r.reserved[p]; taken || r.used[p] > 0 {
		return false
	}
	for other := range r.odd {
		if p.Overlaps(other) {
			return false
		}
	}
	return true
}

// lowest returns the lowest range that is free. The caller holds r.mu.
func (r *rangePool) lowest() (netip.Prefix, bool) {
	for one := big.NewInt(1); ; r.low.Add(r.low, one) {
		p, ok := r.number(r.low)
		if !ok || r.free(p) {
			return p, ok
		}
	}
}

// freed notes that a range is no longer taken. The caller holds r.mu.
func (r *rangePool) freed(p netip.Prefix) {
	at := new(big.Int)
	if first := r.cluster.Masked().Addr(); first.Less(p.Addr()) {
		at.Sub(bigOf(p.Addr()), bigOf(first))
		at.Rsh(at, uint(first.BitLen()-r.bits))
	}
	if at.Cmp(r.low) < 0 {
		r.low = at
	}
}

// number returns the n-th range, false when there are fewer.
func (r *rangePool) number(n *big.Int) (netip.Prefix, bool) {
	first := r.cluster.Masked().Addr()
	if n.BitLen() > r.bits-r.cluster.Bits() {
		return netip.Prefix{}, false
	}
	at := new(big.Int).Lsh(n, uint(first.BitLen()-r.bits))
	at.Add(at, bigOf(first))
	addr, ok := netip.AddrFromSlice(at.FillBytes(make([]byte, first.BitLen()/8)))
	return netip.PrefixFrom(addr, r.bits), ok
}

func bigOf(addr netip.Addr) *big.Int { return new(big.Int).SetBytes(addr.AsSlice()) }
