// Package loopbacktest gives tests addresses to serve at. The tests of several packages run at
// once, and a port that was found free, or that a server left to come back to, may by then belong
// to another process, or be the near end of a connection. No other process uses these addresses.
package loopbacktest

import (
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
)

// The first port, and how many there are: all below those that Linux gives away by itself.
const (
	firstPort = 10000
	ports     = 20000
)

var used atomic.Uint32

// Address returns an address of loopback with a port at which no program listens and only the
// caller will: the IP address is this process's own, and the port has not been returned before.
func Address(tb testing.TB) netip.AddrPort {
	tb.Helper()
	n := used.Add(1) - 1
	if n >= ports {
		tb.Fatalf("this process has had %d addresses", ports)
	}
	return netip.AddrPortFrom(ip(os.Getpid()), uint16(firstPort+n))
}

// ip is a process's own in the upper quarter of 127.0.0.0/8: Linux has 2^22 process IDs.
func ip(pid int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 192 | byte(pid>>16), byte(pid >> 8), byte(pid)})
}
