package datapath_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/datapath"
)

// watchDrops returns a node's drops, as text, as they come.
func watchDrops(t *testing.T, dp *datapath.Datapath) (*datapath.Syncer, func() string) {
	t.Helper()
	s := datapath.NewSyncer("node", dp, zap.NewNop())
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.WatchDrops(ctx, dp) }()
	_, next, forget := s.Drops()
	t.Cleanup(func() {
		forget()
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("watching drops ended: %v", err)
		}
	})
	return s, func() string {
		select {
		case d := <-next:
			if age := time.Since(d.Time); age < 0 || age > time.Minute || d.Message == "" {
				t.Errorf("a drop of %v ago: %+v", age, d)
			}
			from := "a socket"
			if d.Source.IsValid() {
				from = d.Source.Addr().String()
			}
			return fmt.Sprintf("%v %s -> %v: %s", d.Protocol, from, d.Destination, d.Reason)
		case <-time.After(20 * time.Second):
			return "no drop was reported"
		}
	}
}

// Drops of the uplink are reported with source, destination and reason.
func TestDropsAreReported(t *testing.T) {
	w := newWire(t, dualStack)
	_, ip := w.pod(0, "pod")
	ranged := outside("192.0.2.1:30081", datapath.UDP, ip+":5353")
	ranged.Sources = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	nowhere := outside("192.0.2.1:30082", datapath.UDP, "10.244.0.99:5353") // the rest of the pods' network is unreachable
	w.replace(0, outside("192.0.2.1:30080", datapath.UDP), outside("[2001:db8::1]:30080", datapath.UDP), ranged, nowhere)
	_, next := watchDrops(t, w.nodes[0].dp)
	for _, c := range []struct{ to, want string }{
		{"192.0.2.1:30080", "UDP 192.0.2.100 -> 192.0.2.1:30080: no_endpoint"},
		{"[2001:db8::1]:30080", "UDP 2001:db8::100 -> [2001:db8::1]:30080: no_endpoint"},
		{"192.0.2.1:30081", "UDP 192.0.2.100 -> 192.0.2.1:30081: source_range"},
		{"192.0.2.1:30082", "UDP 192.0.2.100 -> 192.0.2.1:30082: no_route"},
	} {
		conn, err := dial(w.client, "udp", c.to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("who")); err != nil {
			t.Fatal(err)
		}
		if got := next(); got != c.want {
			t.Errorf("reported %q, want %q", got, c.want)
		}
	}
}

// A connection to a service without endpoints is refused, and reported with the service's name.
func TestRefusalsAreReported(t *testing.T) {
	h := newHost6(t)
	h.replace(service("10.96.0.1:80", datapath.TCP), service("[fd00:10:96::2]:80", datapath.UDP))
	_, next := watchDrops(t, h.dp)
	for _, c := range []struct{ network, to, want string }{
		{"tcp", "10.96.0.1:80", "TCP a socket -> 10.96.0.1:80: refused"},
		{"udp", "[fd00:10:96::2]:80", "UDP a socket -> [fd00:10:96::2]:80: refused"},
	} {
		if conn, err := dial(h.Namespace, c.network, c.to); err == nil {
			conn.Close()
			t.Errorf("%s is not refused", c.to)
		}
		if got := next(); got != c.want {
			t.Errorf("reported %q, want %q", got, c.want)
		}
	}
}
