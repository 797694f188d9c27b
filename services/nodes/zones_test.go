package nodes

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// zoned returns a node of a zone.
func zoned(zone string, n int, ready string) *corev1.Node {
	return &corev1.Node{
		Metadata: &metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", zone, n), Labels: map[string]string{core.LabelZone: zone}},
		Status:   &corev1.NodeStatus{Conditions: []*corev1.NodeCondition{{Type: "Ready", Status: ready}}},
	}
}

// zonesOf returns zones of the given sizes; of each zone the first nodes are not ready.
func zonesOf(t *testing.T, cfg ZoneConfig, sizes map[string][2]int) *zones {
	z := newZones(cfg, zaptest.NewLogger(t))
	for name, size := range sizes {
		for n := range size[0] {
			z.observe(nil, zoned(name, n, "True"))
		}
		for n := range size[1] {
			z.observe(zoned(name, n, "True"), zoned(name, n, "Unknown"))
		}
	}
	return z
}

// TestZoneRates counts the nodes of zone a that may be tainted within 100 seconds.
func TestZoneRates(t *testing.T) {
	cfg := DefaultConfig().ZoneConfig
	for _, tt := range []struct {
		name  string
		sizes map[string][2]int // the nodes of each zone, and how many are not ready
		want  int
		why   string
	}{
		{"a node of two", map[string][2]int{"a": {2, 1}}, 11, ""},
		{"two of three are too few for a disruption", map[string][2]int{"a": {3, 2}}, 11, ""},
		{"half of a zone", map[string][2]int{"a": {20, 10}}, 11, ""},
		{"most of a small zone", map[string][2]int{"a": {20, 11}, "b": {3, 0}}, 0, `11 of 20 nodes of zone "/a" are not ready`},
		{"most of a large zone", map[string][2]int{"a": {60, 40}, "b": {3, 0}}, 2, ""},
		{"all of one zone of two", map[string][2]int{"a": {5, 5}, "b": {5, 0}}, 11, ""},
		{"all of all zones", map[string][2]int{"a": {5, 5}, "b": {5, 5}}, 0, "No node of any zone is ready"},
		{"another zone is disrupted", map[string][2]int{"a": {5, 1}, "b": {5, 4}}, 11, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := zonesOf(t, cfg, tt.sizes)
				got, reasons := 0, map[string]int{}
				for begun := time.Now(); time.Since(begun) <= 100*time.Second; {
					node := zoned("a", 0, "Unknown")
					stopped, why := z.stopped(node)
					if why != "" {
						reasons[why]++
					}
					wait := time.Second
					if !stopped {
						wait = z.reserve(node)
					}
					if wait == 0 {
						got++
					}
					time.Sleep(wait)
				}
				if got != tt.want {
					t.Errorf("%d nodes may be tainted within 100 s, want %d", got, tt.want)
				}
				if tt.why == "" && len(reasons) != 0 || tt.why != "" && (len(reasons) != 1 || reasons[tt.why] != 1) {
					t.Errorf("the reasons are %v, want %q once", reasons, tt.why)
				}
			})
		})
	}
}

// TestZoneRecovers ends a disruption: nodes are tainted at the usual rate again.
func TestZoneRecovers(t *testing.T) {
	z := zonesOf(t, DefaultConfig().ZoneConfig, map[string][2]int{"a": {5, 4}, "b": {1, 0}})
	node := zoned("a", 0, "Unknown")
	if stopped, _ := z.stopped(node); !stopped {
		t.Fatal("evictions go on while four of five nodes are not ready")
	}
	if z.observe(zoned("a", 3, "Unknown"), zoned("a", 3, "Unknown")) {
		t.Error("the disruption changed with a node that did not")
	}
	z.observe(zoned("a", 3, "Unknown"), zoned("a", 3, "True"))
	if !z.observe(zoned("a", 2, "Unknown"), zoned("a", 2, "True")) {
		t.Error("the disruption did not change when two of five nodes are not ready")
	}
	if stopped, _ := z.stopped(node); stopped || z.reserve(node) != 0 {
		t.Error("no node may be tainted while two of five are not ready")
	}
	for n := range 5 {
		z.observe(zoned("a", n, "True"), nil)
	}
	if len(z.byName) != 1 {
		t.Errorf("%d zones are left, want 1", len(z.byName))
	}
}

// TestZoneKnowsTheNode asks for a node that the informer still takes for ready: the last one of the
// only zone.
func TestZoneKnowsTheNode(t *testing.T) {
	z := zonesOf(t, DefaultConfig().ZoneConfig, map[string][2]int{"a": {3, 2}})
	if stopped, why := z.stopped(zoned("a", 2, "Unknown")); !stopped || why != "No node of any zone is ready" {
		t.Errorf("stopped %v for the reason %q, want that no node is ready", stopped, why)
	}
}

func TestZoneConfig(t *testing.T) {
	cfg := DefaultConfig()
	cfg.EvictionRate, cfg.SecondaryEvictionRate, cfg.UnhealthyZoneThreshold, cfg.LargeZoneSize = -1, -2, 1.5, -3
	err := cfg.Validate()
	for _, want := range []string{
		"evictionRate: must not be negative, is -1", "secondaryEvictionRate: must not be negative, is -2",
		"unhealthyZoneThreshold: must be 0 to 1, is 1.5", "largeZoneSize: must not be negative, is -3",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
