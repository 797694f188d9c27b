package datapath_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/xebec-project/xebec/agent/bpf"
	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
)

// agedFlows opens the table of flows and makes those that match look as if nothing had passed since
// the machine started.
func (w *wire) agedFlows(node int, match func(bpf.UplinkTuple, bpf.UplinkFlow) bool) {
	w.t.Helper()
	flows, err := ebpf.LoadPinnedMap(filepath.Join(w.nodes[node].cfg.PinPath, "maps-v2", bpf.UplinkMapFlows), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer flows.Close()
	var k bpf.UplinkTuple
	var f bpf.UplinkFlow
	all := map[bpf.UplinkTuple]bpf.UplinkFlow{}
	for it := flows.Iterate(); it.Next(&k, &f); {
		all[k] = f
	}
	for k, f := range all {
		if match(k, f) {
			f.Seen = 0
			if err := flows.Put(k, f); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

func (w *wire) states(node int) []string {
	w.t.Helper()
	list, err := w.nodes[node].dp.Flows()
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, f := range list {
		out = append(out, f.Direction+" "+f.Protocol.String()+" "+f.State)
	}
	slices.Sort(out)
	return out
}

// What has ended goes from the table in time, both entries at once, and what is used by one way
// only stays.
func TestSweep(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m := datapath.NewMetrics(registry)
	w := newWire(t, func(c *datapath.Config) {
		if c.NodeIP.String() == "192.0.2.1" {
			c.Metrics = m
		}
	})
	_, one := w.pod(0, "one")
	w.replace(0, outside("192.0.2.1:30080", datapath.TCP, one+":8080"), outside("192.0.2.1:30053", datapath.UDP, one+":5353"),
		outside("192.0.2.1:30054", datapath.UDP, one+":9"), outside("192.0.2.1:30055", datapath.TCP))
	for range 3 {
		w.expect(w.client, "tcp4", "192.0.2.1:30080", one+" saw "+clientIP) // closed after the answer
	}
	stays, err := dial(w.client, "tcp4", "192.0.2.1:30080")
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Close()
	datagrams, err := dial(w.client, "udp4", "192.0.2.1:30053")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	for _, c := range []interface{ Write([]byte) (int, error) }{stays, datagrams} {
		if _, err := c.Write([]byte("who\n")); err != nil {
			t.Fatal(err)
		}
	}
	silent, err := dial(w.client, "udp4", "192.0.2.1:30054")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := silent.Write([]byte("no listener is there")); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(w.client, "tcp4", "192.0.2.1:30055"); err == nil {
		t.Error("a service without endpoints answered")
	}
	open := []string{"in TCP open", "in UDP open", "in UDP unanswered"}
	want := slices.Sorted(slices.Values(append(slices.Repeat([]string{"in TCP closed"}, 3), open...)))
	await(t, "the flows are known", func() error { return same(w.states(0), want) })

	counts := func(name, labels string, want float64) {
		t.Helper()
		if got := metricstest.Values(t, registry, name)[labels]; got != want {
			t.Errorf("%s{%s} is %v, want %v", name, labels, got, want)
		}
	}
	sweep := func() {
		t.Helper()
		if err := w.nodes[0].dp.Sweep(); err != nil {
			t.Fatal(err)
		}
	}
	sweep()
	if err := same(w.states(0), want); err != nil {
		t.Errorf("flows were removed before their time: %v", err)
	}
	counts(metrics.DatapathFlows, "", 12)
	counts(metrics.DatapathFlowsCapacity, "", 1<<17)
	counts(metrics.DatapathFlowsEntered, "", 12)
	counts(metrics.DatapathFlowsEvicted, "", 0)
	counts(metrics.DatapathDrops, "no_endpoint", 1)
	// No names are resolved here.
	counts(metrics.DatapathConnections, "other,other", 6)

	// One way of the datagrams is in use still; all that was closed or never answered is old.
	w.agedFlows(0, func(k bpf.UplinkTuple, f bpf.UplinkFlow) bool {
		return f.Closed != 0 || k.Protocol == 17 && f.Way == 1
	})
	sweep()
	if err := same(w.states(0), open); err != nil {
		t.Errorf("after closed flows are old: %v", err)
	}
	counts(metrics.DatapathFlowsRemoved, "", 6)
	w.agedFlows(0, func(k bpf.UplinkTuple, f bpf.UplinkFlow) bool { return k.Protocol == 17 })
	sweep()
	if err := same(w.states(0), []string{"in TCP open"}); err != nil {
		t.Errorf("after datagrams are old: %v", err)
	}
	counts(metrics.DatapathFlows, "", 2)
	counts(metrics.DatapathFlowsEvicted, "", 0)
	if _, err := askOn(stays); err != nil {
		t.Errorf("the connection that is open: %v", err)
	}
}

func same(got, want []string) error {
	if !slices.Equal(got, want) {
		return fmt.Errorf("%q, want %q", got, want)
	}
	return nil
}
