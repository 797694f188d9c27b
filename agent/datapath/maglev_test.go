package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

func maglevBackends(n int) []netip.AddrPort {
	out := make([]netip.AddrPort, n)
	for i := range out {
		out[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, byte(i / 200), byte(i%200 + 2)}), 8080)
	}
	return out
}

func TestMaglevBalances(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 100, 1000} {
		shares := make([]int, n)
		for _, i := range maglevTable(maglevBackends(n)) {
			shares[i]++
		}
		if least, most := slices.Min(shares), slices.Max(shares); most-least > 1 || least == 0 {
			t.Errorf("of %d places, %d backends have %d to %d", maglevSize, n, least, most)
		}
	}
}

// How nodes number the backends must not matter: the same flow has the same one.
func TestMaglevIsTheSameOnAllNodes(t *testing.T) {
	here := maglevBackends(7)
	there := slices.Clone(here)
	slices.Reverse(there)
	a, b := maglevTable(here), maglevTable(there)
	for i := range a {
		if here[a[i]] != there[b[i]] {
			t.Fatalf("place %d belongs to %v here and to %v there", i, here[a[i]], there[b[i]])
		}
	}
}

// When a backend goes, its own places change hands, and of the others a few.
func TestMaglevDisruption(t *testing.T) {
	for _, n := range []int{3, 10, 50} {
		all := maglevBackends(n)
		before := maglevTable(all)
		for gone := range n {
			left := slices.Delete(slices.Clone(all), gone, gone+1)
			moved := 0
			for i, to := range maglevTable(left) {
				if was := all[before[i]]; was != all[gone] && was != left[to] {
					moved++
				}
			}
			// Each backend's own share must move; plain modulo would move nearly all.
			if limit := maglevSize / 10; moved > limit {
				t.Errorf("%d backends: when %v goes, %d of %d places of others change hands, want at most %d", n, all[gone], moved, maglevSize, limit)
			}
		}
	}
}

func BenchmarkMaglevTable(b *testing.B) {
	for _, n := range []int{3, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			backends := maglevBackends(n)
			for b.Loop() {
				maglevTable(backends)
			}
		})
	}
}
