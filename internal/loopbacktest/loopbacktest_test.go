package loopbacktest

import (
	"net"
	"net/netip"
	"testing"
)

func TestAddress(t *testing.T) {
	seen := map[netip.AddrPort]bool{}
	for range 100 {
		a := Address(t)
		if seen[a] {
			t.Fatalf("%v is returned twice", a)
		}
		seen[a] = true
		l, err := net.Listen("tcp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	if a, b := ip(1<<22-2), ip(1<<16); !a.IsLoopback() || !b.IsLoopback() || a != netip.MustParseAddr("127.255.255.254") || b != netip.MustParseAddr("127.193.0.0") {
		t.Errorf("processes have %v and %v", a, b)
	}
}
