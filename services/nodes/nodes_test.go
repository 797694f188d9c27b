package nodes

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func TestConfig(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   string // part of the error, empty for none
	}{
		{"the defaults", func(*Config) {}, ""},
		{"overlapping ranges", func(c *Config) { c.ServiceCIDR = "10.244.128.0/17" }, "overlaps"},
		{"one range within the other", func(c *Config) { c.ClusterCIDR = "10.0.0.0/8" }, "overlaps"},
		{"no range", func(c *Config) { c.ClusterCIDR = "10.244.0.0" }, "clusterCIDR"},
		{"a mask wider than the range", func(c *Config) { c.NodeMaskSize = 15 }, "nodeMaskSize: must be 16 to 30"},
		{"a mask without hosts", func(c *Config) { c.NodeMaskSize = 31 }, "nodeMaskSize"},
		{"negative eviction", func(c *Config) { c.EvictAfter = -time.Second }, "evictAfter"},
	}
	for _, tt := range tests {
		c := DefaultConfig()
		tt.change(&c)
		err := c.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestEvictionTime(t *testing.T) {
	added := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	unreachable := &corev1.Taint{Key: taintUnreachable, Effect: noExecute, TimeAdded: timestamppb.New(added)}
	other := &corev1.Taint{Key: "drained", Effect: noExecute, TimeAdded: timestamppb.New(added)}
	for10 := int64(10)
	now := int64(-1)
	tests := []struct {
		name        string
		tolerations []*corev1.Toleration
		taints      []*corev1.Taint
		want        time.Time
		evicted     bool
	}{
		{"none named: the default", nil, []*corev1.Taint{unreachable}, added.Add(30 * time.Second), true},
		{"a time of its own", []*corev1.Toleration{{Key: taintUnreachable, Operator: "Exists", Effect: noExecute, TolerationSeconds: &for10}}, []*corev1.Taint{unreachable}, added.Add(10 * time.Second), true},
		{"for good", []*corev1.Toleration{{Key: taintUnreachable, Operator: "Exists"}}, []*corev1.Taint{unreachable}, time.Time{}, false},
		{"everything for good", []*corev1.Toleration{{Operator: "Exists"}}, []*corev1.Taint{unreachable, other}, time.Time{}, false},
		{"negative is at once", []*corev1.Toleration{{Key: taintUnreachable, Operator: "Exists", TolerationSeconds: &now}}, []*corev1.Taint{unreachable}, added, true},
		{"another taint evicts at once", nil, []*corev1.Taint{unreachable, other}, time.Time{}, true},
		{"the shorter of two tolerations", []*corev1.Toleration{{Operator: "Exists"}, {Key: taintUnreachable, Operator: "Exists", TolerationSeconds: &for10}}, []*corev1.Taint{unreachable}, added.Add(10 * time.Second), true},
	}
	for _, tt := range tests {
		at, evicted := evictionTime(tt.tolerations, tt.taints, 30*time.Second, time.Time{})
		if evicted != tt.evicted || !at.Equal(tt.want) {
			t.Errorf("%s: got %v, %v; want %v, %v", tt.name, at, evicted, tt.want, tt.evicted)
		}
	}
	// A term that has just begun gives lost nodes the time to be heard of, and no pod any that a person's taint takes.
	term := added.Add(time.Hour)
	if at, evicted := evictionTime(nil, []*corev1.Taint{unreachable}, 30*time.Second, term); !evicted || !at.Equal(term) {
		t.Errorf("a taint of before the term evicts at %v, %t; want %v", at, evicted, term)
	}
	if at, evicted := evictionTime(nil, []*corev1.Taint{unreachable, other}, 30*time.Second, term); !evicted || !at.IsZero() {
		t.Errorf("a person's taint evicts at %v, %t; want at once", at, evicted)
	}
}

func TestSubnets(t *testing.T) {
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
		var got []string
		for p := range subnets(netip.MustParsePrefix(tt.cluster), tt.bits) {
			got = append(got, p.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("subnets of %s: got %v, want %v", tt.cluster, got, tt.want)
		}
	}
	if p, ok := firstFree(netip.MustParsePrefix("10.0.0.0/23"), 24, func(p netip.Prefix) bool { return p.String() == "10.0.0.0/24" }); !ok || p.String() != "10.0.1.0/24" {
		t.Errorf("got %v, %v", p, ok)
	}
}
