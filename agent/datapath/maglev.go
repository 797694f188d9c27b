package datapath

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"
)

// maglevSize is how many places a lookup table has. It is a prime, so that every
// step through the table comes by all its places, and the programs know it as
// MAGLEV_SIZE.
const maglevSize = 4093

// maglevTable spreads a table's places over the backends: each gets as many as any
// other, give or take one, and when a backend comes or goes few of the other places
// change hands. It returns the index of a backend for each place. The algorithm is
// that of Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
// Balancer", NSDI 2016, section 3.4: each backend goes through the table in an order
// of its own, and in turn they take the next place in their order that is still
// free. Turns go by address, so that all nodes make the same table however they
// number the backends. There must be at least one backend, and no more than 65536.
func maglevTable(backends []netip.AddrPort) []uint16 {
	turns := make([]maglevTurn, len(backends))
	for i, b := range backends {
		turns[i] = newMaglevTurn(b, uint16(i))
	}
	slices.SortFunc(turns, func(a, b maglevTurn) int { return a.backend.Compare(b.backend) })
	table := make([]uint16, maglevSize)
	taken := make([]bool, maglevSize)
	for left := maglevSize; ; {
		for i := range turns {
			t := &turns[i]
			for taken[t.at] {
				t.step()
			}
			table[t.at], taken[t.at] = t.index, true
			t.step()
			if left--; left == 0 {
				return table
			}
		}
	}
}

// maglevTurn is a backend on its way through a table.
type maglevTurn struct {
	backend  netip.AddrPort
	index    uint16
	at, skip uint32
}

func newMaglevTurn(b netip.AddrPort, index uint16) maglevTurn {
	h := fnv.New128a()
	addr := b.Addr().As16()
	h.Write(addr[:])
	h.Write(binary.BigEndian.AppendUint16(nil, b.Port()))
	sum := h.Sum(nil)
	start, skip := scatter(binary.BigEndian.Uint64(sum)), scatter(binary.BigEndian.Uint64(sum[8:]))
	return maglevTurn{backend: b, index: index, at: uint32(start % maglevSize), skip: uint32(skip%(maglevSize-1)) + 1}
}

func (t *maglevTurn) step() { t.at = (t.at + t.skip) % maglevSize }

// scatter spreads a number over all bits, since neighbouring addresses have hashes
// that are alike. It is the finalizer of MurmurHash3.
func scatter(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
