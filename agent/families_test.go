package agent

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func TestValidateRanges(t *testing.T) {
	const pods, services = "10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:10:96::/112"
	for what, test := range map[string]struct{ address, cluster, services, dns, want string }{
		"IPv4":                   {"10.0.0.1", "10.244.0.0/16", "10.96.0.0/16", "10.96.0.10", ""},
		"dual stack":             {"10.0.0.1,fd01::1", pods, services, "10.96.0.10", ""},
		"on an IPv4 network":     {"10.0.0.1", pods, services, "10.96.0.10", ""},
		"IPv6 first":             {"fd01::1,10.0.0.1", pods, services, "10.96.0.10", "address"},
		"two of a family":        {"10.0.0.1,10.0.0.2", pods, services, "10.96.0.10", "address"},
		"IPv6 without use":       {"10.0.0.1,fd01::1", "10.244.0.0/16", "10.96.0.0/16", "10.96.0.10", "cannot be used"},
		"one family of pods":     {"10.0.0.1", "10.244.0.0/16", services, "10.96.0.10", "same families"},
		"one family of services": {"10.0.0.1", pods, "10.96.0.0/16", "10.96.0.10", "same families"},
		"overlap":                {"10.0.0.1", pods, "10.96.0.0/16,fd00:10:244:1::/112", "10.96.0.10", "overlaps"},
		"IPv6 pods only":         {"10.0.0.1", "fd00:10:244::/56", services, "10.96.0.10", "clusterCIDR"},
		"DNS by IPv6":            {"10.0.0.1", pods, services, "fd00:10:96::a", "clusterDNS"},
	} {
		c := Config{Address: test.address, ClusterCIDR: test.cluster, ServiceCIDR: test.services, ClusterDNS: test.dns}
		var problems []string
		c.validateRanges(func(key, format string, args ...any) {
			problems = append(problems, key+": "+fmt.Sprintf(format, args...))
		})
		if all := strings.Join(problems, "\n"); (all == "") != (test.want == "") || !strings.Contains(all, test.want) {
			t.Errorf("%s: %q, want %q in it", what, all, test.want)
		}
	}
}

func TestPodCIDRs(t *testing.T) {
	node := func(cidrs ...string) *corev1.Node {
		n := &corev1.Node{Spec: &corev1.NodeSpec{PodCidrs: cidrs}}
		if len(cidrs) > 0 {
			n.Spec.PodCidr = cidrs[0]
		}
		return n
	}
	const four, six = "10.244.1.0/24", "fd00:10:244:1::/64"
	both := ranges{netip.MustParsePrefix(four), netip.MustParsePrefix(six)}
	for what, test := range map[string]struct {
		known    *corev1.Node
		received []*corev1.Node
		dual     bool
		want     ranges
	}{
		"known":                   {node(four), nil, false, ranges{four: both.four}},
		"known, both":             {node(four, six), nil, true, both},
		"received":                {nil, []*corev1.Node{node(four)}, false, ranges{four: both.four}},
		"received one, then both": {node(four), []*corev1.Node{node(four), node(four, six)}, true, both},
		"not to be used":          {node(four, six), nil, false, ranges{four: both.four}},
	} {
		w := &watches{cidrs: make(chan ranges, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for _, n := range test.received {
				r, _ := podRanges(n)
				w.cidrs <- r
			}
		}()
		if got, err := w.podCIDRs(ctx, test.known, test.dual); err != nil || got != test.want {
			t.Errorf("%s: %v, %v; want %v", what, got, err, test.want)
		}
		cancel()
	}
	if _, err := new(watches).podCIDRs(t.Context(), node("x"), false); err == nil {
		t.Error("nonsense was taken for a range")
	}
}

func TestRoutesOf(t *testing.T) {
	n := &corev1.Node{Spec: &corev1.NodeSpec{PodCidr: "10.244.1.0/24", PodCidrs: []string{"10.244.1.0/24", "fd00:10:244:1::/64"}}}
	if got := routesOf(n); got != nil {
		t.Errorf("routes to a node without an address: %v", got)
	}
	n.Status = &corev1.NodeStatus{Addresses: []*corev1.NodeAddress{{Type: "InternalIP", Address: "10.0.0.1"}, {Type: "InternalIP", Address: "fd01::1"}, {Type: "Hostname", Address: "n"}}}
	if got, want := fmt.Sprint(routesOf(n)), "[{10.244.1.0/24 10.0.0.1 fd01::1} {fd00:10:244:1::/64 10.0.0.1 fd01::1}]"; got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
}
