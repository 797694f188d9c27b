package datapath_test

import (
	"net/netip"
	"testing"

	"github.com/xebec-project/xebec/agent/datapath"
)

// An endpoint on a node that has just joined may be heard of before the node is: until there is a
// route to its pods, connections go to the others.
func TestEndpointsWaitForRoutes(t *testing.T) {
	pods := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	routes := func(text ...string) (out []netip.Prefix) {
		for _, s := range text {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	table := datapath.NewTable("me")
	table.OnService(nil, benchService(1))
	table.OnEndpointSlice(nil, benchSlice(1, "10.244.0.5", "10.244.1.5", "10.244.2.5", "192.0.2.7"))
	table.OnService(nil, benchService(2))
	table.OnEndpointSlice(nil, benchSlice(2, "10.244.0.6"))
	backends := func(want ...string) {
		t.Helper()
		table.Flush()
		for s := range table.All() {
			if s.Name != "bench/svc-1" {
				continue
			}
			var got []string
			for _, b := range s.Backends {
				got = append(got, b.Addr().String())
			}
			if len(got) != len(want) {
				t.Fatalf("connections go to %v, want %v", got, want)
			}
			for i := range got {
				if got[i] != want[i] {
					t.Fatalf("connections go to %v, want %v", got, want)
				}
			}
			return
		}
		t.Fatal("the service is gone")
	}
	backends("10.244.0.5", "10.244.1.5", "10.244.2.5", "192.0.2.7") // nothing is known of routes
	table.SetRoutes(pods, routes("10.244.0.0/24", "10.244.1.0/24"))
	backends("10.244.0.5", "10.244.1.5", "192.0.2.7")
	table.SetRoutes(pods, routes("10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"))
	if change := table.Flush(); len(change.Put) != 1 || change.Put[0].Name != "bench/svc-1" {
		t.Fatalf("a route concerns %v", change.Put)
	}
	backends("10.244.0.5", "10.244.1.5", "10.244.2.5", "192.0.2.7")
	table.SetRoutes(pods, routes("10.244.0.0/24", "10.244.2.0/24"))
	backends("10.244.0.5", "10.244.2.5", "192.0.2.7")
	table.SetRoutes(pods, routes("10.244.0.0/24", "10.244.2.0/24"))
	if change := table.Flush(); !change.Empty() {
		t.Fatalf("the same routes change %v", change)
	}
}
