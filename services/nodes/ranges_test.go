package nodes

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// TestRangePoolInOrder hands out all ranges of clusters.
func TestRangePoolInOrder(t *testing.T) {
	tests := []struct {
		cluster string
		bits    int
		want    []string
	}{
		{"10.244.0.0/22", 24, []string{"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"}},
		{"10.244.1.7/24", 24, []string{"10.244.1.0/24"}},
		{"255.255.254.0/23", 24, []string{"255.255.254.0/24", "255.255.255.0/24"}},
		{"fd00::/63", 64, []string{"fd00::/64", "fd00:0:0:1::/64"}},
	}
	for _, tt := range tests {
		pool := newRangePool(netip.MustParsePrefix(tt.cluster), tt.bits)
		var got []string
		for i := 0; ; i++ {
			p, ok := pool.reserve(fmt.Sprint(i), netip.Prefix{})
			if !ok {
				break
			}
			got = append(got, p.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("ranges of %s: got %v, want %v", tt.cluster, got, tt.want)
		}
	}
}

func TestRangePool(t *testing.T) {
	pool := newRangePool(netip.MustParsePrefix("10.0.0.0/21"), 24)
	of := netip.MustParsePrefix
	expect := func(node string, former netip.Prefix, want string) {
		t.Helper()
		if got, ok := pool.reserve(node, former); !ok || got != of(want) {
			t.Errorf("%s: got %v, %v, want %s", node, got, ok, want)
		}
	}
	pool.use(of("10.0.0.7/24")) // as its node wrote it
	pool.use(of("10.0.2.0/23")) // of another size
	pool.use(of("fd00::/64"))   // of another family
	expect("a", netip.Prefix{}, "10.0.1.0/24")
	expect("a", netip.Prefix{}, "10.0.1.0/24") // its write may have failed
	expect("b", of("10.0.6.0/24"), "10.0.6.0/24")
	expect("c", of("10.0.6.0/24"), "10.0.4.0/24") // that is b's
	expect("d", of("10.0.3.0/24"), "10.0.5.0/24") // that overlaps
	expect("e", netip.Prefix{}, "10.0.7.0/24")
	if got, ok := pool.reserve("f", netip.Prefix{}); ok {
		t.Errorf("f: got %v though all are taken", got)
	}

	// What becomes free is given again, the lowest first, and not while a node has it.
	pool.use(of("10.0.6.0/24")) // the object of b shows it
	pool.forget("b")
	if got, ok := pool.reserve("f", netip.Prefix{}); ok {
		t.Errorf("f: got %v though all are taken", got)
	}
	pool.drop(of("10.0.6.0/24"))
	pool.drop(of("10.0.2.0/23"))
	expect("f", netip.Prefix{}, "10.0.2.0/24")
	expect("g", netip.Prefix{}, "10.0.3.0/24")
	pool.forget("a")
	pool.drop(of("10.0.0.0/24"))
	expect("h", netip.Prefix{}, "10.0.0.0/24")
	expect("i", netip.Prefix{}, "10.0.1.0/24")
	expect("j", netip.Prefix{}, "10.0.6.0/24")

	// A node whose object shows a range of another's: both lose it only when both are gone.
	pool.use(of("10.0.4.0/24"))
	pool.forget("c")
	pool.use(of("10.0.4.0/24"))
	pool.drop(of("10.0.4.0/24"))
	if got, ok := pool.reserve("k", of("10.0.4.0/24")); ok {
		t.Errorf("k: got %v though all are taken", got)
	}
}

// BenchmarkRangePool gives ranges to the nodes of a large cluster.
func BenchmarkRangePool(b *testing.B) {
	for b.Loop() {
		pool := newRangePool(netip.MustParsePrefix("10.64.0.0/11"), 24)
		for i := range 5000 {
			p, ok := pool.reserve(fmt.Sprint(i), netip.Prefix{})
			if !ok {
				b.Fatal("no range is free")
			}
			pool.use(p)
		}
	}
}
