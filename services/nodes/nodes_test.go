package nodes

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
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
		{"dual stack", dualStack, ""},
		{"one family of services", func(c *Config) { dualStack(c); c.ServiceCIDR = "10.96.0.0/16" }, "same families"},
		{"overlapping IPv6 ranges", func(c *Config) { dualStack(c); c.ServiceCIDR = "10.96.0.0/16,fd00:10:244:1::/112" }, "overlaps"},
		{"IPv6 first", func(c *Config) { c.ClusterCIDR = "fd00:10:244::/56,10.244.0.0/16" }, "clusterCIDR"},
		{"an IPv6 mask wider than the range", func(c *Config) { dualStack(c); c.NodeMaskSize6 = 48 }, "nodeMaskSize6: must be 56 to 120"},
		{"fewer IPv6 addresses than IPv4", func(c *Config) { dualStack(c); c.NodeMaskSize6 = 121 }, "nodeMaskSize6"},
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

func dualStack(c *Config) {
	c.ClusterCIDR, c.ServiceCIDR = "10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:10:96::/112"
}

// Each node gets a range of each family, also when it has had one of the first for long, and no two
// share one.
func TestDualStackRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, c := clienttest.Start(t)
		cfg := DefaultConfig()
		dualStack(&cfg)
		s, err := New(cfg, Deps{Deps: elected.Deps{Host: "master-1", Client: c}})
		if err != nil {
			t.Fatal(err)
		}
		node := func(name string, cidrs ...string) *corev1.Node {
			n := &corev1.Node{Metadata: &metav1.ObjectMeta{Name: name}, Spec: &corev1.NodeSpec{PodCidrs: cidrs}}
			if len(cidrs) > 0 {
				n.Spec.PodCidr = cidrs[0]
			}
			return n
		}
		clienttest.Seed(server, node("old", "10.244.1.0/24"), node("whole", "10.244.0.0/24", "fd00:10:244::/64"), node("new-1"), node("new-2"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		<-time.After(10 * time.Second)
		synctest.Wait()
		all, _, err := client.List[*corev1.Node](ctx, c, client.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for _, n := range all {
			name, cidrs := n.GetMetadata().GetName(), n.GetSpec().GetPodCidrs()
			if len(cidrs) != 2 || n.GetSpec().GetPodCidr() != cidrs[0] || !strings.HasSuffix(cidrs[0], "/24") || !strings.HasSuffix(cidrs[1], "::/64") {
				t.Errorf("%s has %q and %q", name, n.GetSpec().GetPodCidr(), cidrs)
			}
			for _, cidr := range cidrs {
				if seen[cidr] != "" {
					t.Errorf("%s and %s have %s", seen[cidr], name, cidr)
				}
				seen[cidr] = name
			}
		}
		if seen["10.244.1.0/24"] != "old" || seen["fd00:10:244::/64"] != "whole" {
			t.Errorf("nodes lost the ranges that they had: %v", seen)
		}
		cancel()
		<-done
	})
}

// A node that the cluster forgot gets the ranges again that its pods have addresses of, unless they
// are another's or none that a node can have.
func TestFormerRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, c := clienttest.Start(t)
		cfg := DefaultConfig()
		dualStack(&cfg)
		s, err := New(cfg, Deps{Deps: elected.Deps{Host: "master-1", Client: c}})
		if err != nil {
			t.Fatal(err)
		}
		node := func(name, former string) *corev1.Node {
			return &corev1.Node{Metadata: &metav1.ObjectMeta{Name: name, Annotations: map[string]string{core.AnnotationPodCIDRs: former}}, Spec: &corev1.NodeSpec{}}
		}
		holder := node("holder", "")
		holder.Spec.PodCidr, holder.Spec.PodCidrs = "10.244.9.0/24", []string{"10.244.9.0/24", "fd00:10:244:9::/64"}
		clienttest.Seed(server, holder, node("back", "10.244.7.0/24,fd00:10:244:7::/64"), node("thief", "10.244.9.0/24,fd00:10:244:9::/64"),
			node("outside", "10.96.7.0/24"), node("greedy", "10.244.0.0/16"), node("odd", "10.244.8.5/24"), node("wrong", "nonsense,,"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		<-time.After(10 * time.Second)
		synctest.Wait()
		all, _, err := client.List[*corev1.Node](ctx, c, client.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for _, n := range all {
			name, cidrs := n.GetMetadata().GetName(), n.GetSpec().GetPodCidrs()
			if len(cidrs) != 2 {
				t.Errorf("%s has %q", name, cidrs)
			}
			for _, cidr := range cidrs {
				if !strings.HasPrefix(cidr, "10.244.") && !strings.HasPrefix(cidr, "fd00:10:244:") || seen[cidr] != "" {
					t.Errorf("%s has %s, which %q has", name, cidr, seen[cidr])
				}
				seen[cidr] = name
			}
		}
		for cidr, want := range map[string]string{
			"10.244.7.0/24": "back", "fd00:10:244:7::/64": "back", "10.244.9.0/24": "holder", "fd00:10:244:9::/64": "holder", "10.244.8.0/24": "", "10.244.0.0/16": "",
		} {
			if seen[cidr] != want {
				t.Errorf("%s is given to %q, want %q", cidr, seen[cidr], want)
			}
		}
		cancel()
		<-done
	})
}

func TestEvictionTime(t *testing.T) {
	added := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	unreachable := &corev1.Taint{Key: taintUnreachable, Effect: noExecute, TimeAdded: timestamppb.New(added)}
	notReady := &corev1.Taint{Key: taintNotReady, Effect: noExecute, TimeAdded: timestamppb.New(added)}
	byDefault := patience{unreachable: 10 * time.Second, notReady: 30 * time.Second}
	other := &corev1.Taint{Key: "drained", Effect: noExecute, TimeAdded: timestamppb.New(added)}
	for15 := int64(15)
	now := int64(-1)
	tests := []struct {
		name        string
		tolerations []*corev1.Toleration
		taints      []*corev1.Taint
		want        time.Time
		evicted     bool
	}{
		{"none named: the default", nil, []*corev1.Taint{unreachable}, added.Add(10 * time.Second), true},
		{"none named: the default of a node that is there", nil, []*corev1.Taint{notReady}, added.Add(30 * time.Second), true},
		{"a time of its own", []*corev1.Toleration{{Key: taintUnreachable, Operator: "Exists", Effect: noExecute, TolerationSeconds: &for15}}, []*corev1.Taint{unreachable}, added.Add(15 * time.Second), true},
		{"for good", []*corev1.Toleration{{Key: taintUnreachable, Operator: "Exists"}}, []*corev1.Taint{unreachable}, time.Time{}, false},
		{"everything for good", []*corev1.Toleration{{Operator: "Exists"}}, []*corev1.Taint{unreachable, other}, time.Time{}, false},
		{"negative is at once", []*corev1.Toleration{{Key: taintUnreachable, Operator: "Exists", TolerationSeconds: &now}}, []*corev1.Taint{unreachable}, added, true},
		{"another taint evicts at once", nil, []*corev1.Taint{unreachable, other}, time.Time{}, true},
		{"the shorter of two tolerations", []*corev1.Toleration{{Operator: "Exists"}, {Key: taintUnreachable, Operator: "Exists", TolerationSeconds: &for15}}, []*corev1.Taint{unreachable}, added.Add(15 * time.Second), true},
	}
	for _, tt := range tests {
		at, evicted := evictionTime(tt.tolerations, tt.taints, byDefault, time.Time{})
		if evicted != tt.evicted || !at.Equal(tt.want) {
			t.Errorf("%s: got %v, %v; want %v, %v", tt.name, at, evicted, tt.want, tt.evicted)
		}
	}
	// A term that has just begun gives lost nodes the time to be heard of, and no pod any that a
	// person's taint takes.
	term := added.Add(time.Hour)
	if at, evicted := evictionTime(nil, []*corev1.Taint{unreachable}, byDefault, term); !evicted || !at.Equal(term) {
		t.Errorf("a taint of before the term evicts at %v, %t; want %v", at, evicted, term)
	}
	if at, evicted := evictionTime(nil, []*corev1.Taint{unreachable, other}, byDefault, term); !evicted || !at.IsZero() {
		t.Errorf("a person's taint evicts at %v, %t; want at once", at, evicted)
	}
}
