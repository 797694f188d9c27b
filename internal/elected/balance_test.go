package elected

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/controller"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
)

func TestMove(t *testing.T) {
	abc := []string{"a", "b", "c"}
	views := func(hosts []string, leaders ...string) view {
		var v view
		for i, leader := range leaders {
			v = append(v, leadership{fmt.Sprint("s", i), leader, "uid", hosts})
		}
		return v
	}
	missing := views(abc, "a", "a", "a", "b")
	missing[1].hosts = []string{"a", "b"}
	for _, tt := range []struct {
		name string
		v    view
		want string
	}{
		{"none", nil, ""},
		{"one host", views([]string{"a"}, "a", "a", "a"), ""},
		{"even", views(abc, "a", "b", "c", "a", "b", "c"), ""},
		{"one more", views(abc, "a", "b", "c", "a"), ""},
		{"two on one of three", views(abc, "b", "b"), "s0 to a"},
		{"six of seven", views(abc, "c", "a", "a", "a", "a", "a", "a"), "s1 to b"},
		{"an instance is missing", missing, ""},
		{"the leader's instance is missing", views([]string{"b", "c"}, "a", "b", "b", "b"), ""},
		{"nothing is known of instances", views(nil, "a", "a", "a"), ""},
	} {
		got := ""
		if service, to, ok := tt.v.move(); ok {
			got = service + " to " + to
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestLeadersSpreadOverHosts starts seven services on one host, which leads all, and then on two
// others.
func TestLeadersSpreadOverHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := clienttest.Start(t)
		var mu sync.Mutex
		var running sync.WaitGroup
		hosts := map[string][]string{}
		instances := func() map[string][]string {
			mu.Lock()
			defer mu.Unlock()
			return maps.Clone(hosts)
		}
		ctx, cancel := context.WithCancel(t.Context())
		start := func(service, host string) {
			e, err := newElection(Config{Name: service, Setup: func(*controller.Term) error { return nil }},
				Deps{Host: host, Client: c, Instances: instances})
			if err != nil {
				t.Fatal(err)
			}
			running.Go(func() { _ = e.run(ctx) })
			mu.Lock()
			defer mu.Unlock()
			hosts[service] = append(slices.Clone(hosts[service]), host)
		}
		leaders := func() map[string]string {
			leases, _, err := client.List[*coordinationv1.Lease](ctx, c, client.ListOptions{Namespace: electionNamespace})
			if err != nil {
				t.Fatal(err)
			}
			out := map[string]string{}
			for _, l := range leases {
				_, out[l.GetMetadata().GetName()], _ = strings.Cut(l.GetSpec().GetHolderIdentity(), "@")
			}
			return out
		}
		counts := func() map[string]int {
			out := map[string]int{}
			for _, host := range leaders() {
				out[host]++
			}
			return out
		}
		const services = 7
		for i := range services {
			start(fmt.Sprint("s", i), "a")
		}
		<-time.After(10 * time.Second)
		for i := range services {
			start(fmt.Sprint("s", i), "b")
		}
		for i := range services - 1 {
			start(fmt.Sprint("s", i), "c")
		}
		<-time.After(5 * time.Minute)
		if got := counts(); got["a"] != services {
			t.Errorf("leaders moved while an instance was missing: %v", got)
		}
		start("s6", "c")
		now, moved := leaders(), time.Time{}
		for range 6000 {
			<-time.After(100 * time.Millisecond)
			before := now
			now = leaders()
			changed := 0
			for service, host := range now {
				if before[service] != "" && before[service] != host {
					changed++
				}
			}
			if changed == 0 && len(now) == len(before) {
				continue
			}
			if changed > 1 || len(now) < services-1 {
				t.Fatalf("from %v to %v at once", before, now)
			}
			if changed == 1 {
				if !moved.IsZero() && time.Since(moved) < balanceSettled {
					t.Errorf("two moves within %v", time.Since(moved))
				}
				moved = time.Now()
			}
		}
		if got := counts(); got["a"] > 3 || got["b"] > 3 || got["c"] > 3 || len(got) != 3 {
			t.Errorf("leaders by host: %v", got)
		}
		if quiet := time.Since(moved); moved.IsZero() || quiet < 3*time.Minute {
			t.Errorf("the last move was %v ago", quiet)
		}
		cancel()
		running.Wait()
	})
}
