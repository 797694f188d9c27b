package networking_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

func networkPolicy() *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{Metadata: kindtest.Meta("db"), Spec: &networkingv1.NetworkPolicySpec{
		PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "db"}},
		Ingress: []*networkingv1.NetworkPolicyIngressRule{{
			Ports: []*networkingv1.NetworkPolicyPort{{Port: object.Count(6379)}},
			From: []*networkingv1.NetworkPolicyPeer{
				{IpBlock: &networkingv1.IPBlock{Cidr: "172.17.0.0/16", Except: []string{"172.17.1.0/24"}}},
				{NamespaceSelector: &metav1.LabelSelector{}, PodSelector: &metav1.LabelSelector{}},
			},
		}},
	}}
}

func TestNetworkPolicy(t *testing.T) {
	type policy = *networkingv1.NetworkPolicy
	port := func(p policy) *networkingv1.NetworkPolicyPort { return p.Spec.Ingress[0].Ports[0] }
	block := func(p policy) *networkingv1.IPBlock { return p.Spec.Ingress[0].From[0].IpBlock }
	const portAt, blockAt = "spec.ingress[0].ports[0].", "spec.ingress[0].from[0].ipBlock."
	kindtest.Validate(t, networkPolicy, []kindtest.Bad[policy]{
		{Name: "no spec", Edit: func(p policy) { p.Spec = nil }, Want: nil},
		{Name: "selector", Edit: func(p policy) { p.Spec.PodSelector.MatchLabels["role"] = "d b" }, Want: []string{`spec.podSelector.matchLabels: Invalid value: "d b"`}},
		{Name: "operator", Edit: func(p policy) {
			p.Spec.PodSelector.MatchExpressions = []*metav1.LabelSelectorRequirement{{Key: "role", Operator: "Gt"}}
		}, Want: []string{`spec.podSelector.matchExpressions[0].operator: Invalid value: "Gt"`}},

		{Name: "port by name", Edit: func(p policy) { port(p).Port = object.Text("redis") }, Want: nil},
		{Name: "all ports of a protocol", Edit: func(p policy) { port(p).Port = nil }, Want: nil},
		{Name: "range", Edit: func(p policy) { port(p).EndPort = proto.Int32(6380) }, Want: nil},
		{Name: "range of one", Edit: func(p policy) { port(p).EndPort = proto.Int32(6379) }, Want: nil},
		{Name: "port 0", Edit: func(p policy) { port(p).Port = object.Count(0) }, Want: []string{portAt + "port: Invalid value: 0"}},
		{Name: "port name", Edit: func(p policy) { port(p).Port = object.Text("no_such") }, Want: []string{portAt + `port: Invalid value: "no_such"`}},
		{Name: "range that ends before", Edit: func(p policy) { port(p).EndPort = proto.Int32(80) }, Want: []string{portAt + "endPort: Invalid value: 80: must be greater than or equal to `port`"}},
		{Name: "range that ends nowhere", Edit: func(p policy) { port(p).EndPort = proto.Int32(65536) }, Want: []string{portAt + "endPort: Invalid value: 65536"}},
		{Name: "range by name", Edit: func(p policy) { port(p).Port, port(p).EndPort = object.Text("redis"), proto.Int32(6380) },
			Want: []string{portAt + "endPort: Invalid value: 6380: may not be specified when `port` is non-numeric"}},
		{Name: "range without a beginning", Edit: func(p policy) { port(p).Port, port(p).EndPort = nil, proto.Int32(6380) },
			Want: []string{portAt + "endPort: Invalid value: 6380: may not be specified when `port` is not specified"}},
		{Name: "UDP", Edit: func(p policy) { port(p).Protocol = proto.String("UDP") }, Want: nil},
		{Name: "SCTP", Edit: func(p policy) { port(p).Protocol = proto.String("SCTP") },
			Want: []string{portAt + `protocol: Unsupported value: "SCTP": the datapath carries TCP and UDP only; SCTP is not supported`}},
		{Name: "protocol", Edit: func(p policy) { port(p).Protocol = proto.String("tcp") }, Want: []string{portAt + `protocol: Unsupported value: "tcp": supported values: "TCP", "UDP"`}},

		{Name: "IPv6", Edit: func(p policy) { block(p).Cidr, block(p).Except = "2001:db8::/32", []string{"2001:db8:1::/48"} }, Want: nil},
		{Name: "no network", Edit: func(p policy) { block(p).Cidr = "" }, Want: []string{blockAt + "cidr: Required value"}},
		{Name: "bad network", Edit: func(p policy) { block(p).Cidr = "172.17.0.0/33" },
			Want: []string{blockAt + `cidr: Invalid value: "172.17.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)`}},
		{Name: "an address", Edit: func(p policy) { block(p).Cidr, block(p).Except = "172.17.0.1", nil }, Want: []string{blockAt + `cidr: Invalid value: "172.17.0.1"`}},
		{Name: "bits beyond the prefix", Edit: func(p policy) { block(p).Cidr = "172.17.0.1/16" },
			Want: []string{blockAt + `cidr: Invalid value: "172.17.0.1/16": must not have bits set beyond the prefix length`}},
		{Name: "bad exception", Edit: func(p policy) { block(p).Except[0] = "172.17.1" }, Want: []string{blockAt + `except[0]: Invalid value: "172.17.1"`}},
		{Name: "exception outside", Edit: func(p policy) { block(p).Except[0] = "10.0.0.0/24" },
			Want: []string{blockAt + "except[0]: Invalid value: \"10.0.0.0/24\": must be a strict subset of `cidr`, which is 172.17.0.0/16"}},
		{Name: "everything excepted", Edit: func(p policy) { block(p).Except[0] = "172.17.0.0/16" }, Want: []string{blockAt + `except[0]: Invalid value: "172.17.0.0/16"`}},
		{Name: "exception of the other family", Edit: func(p policy) { block(p).Except[0] = "2001:db8::/64" }, Want: []string{blockAt + `except[0]: Invalid value: "2001:db8::/64"`}},

		{Name: "no peer", Edit: func(p policy) { p.Spec.Ingress[0].From[0] = &networkingv1.NetworkPolicyPeer{} },
			Want: []string{"spec.ingress[0].from[0]: Required value: must specify a peer"}},
		{Name: "two peers", Edit: func(p policy) { p.Spec.Ingress[0].From[0].PodSelector = &metav1.LabelSelector{} },
			Want: []string{"spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"}},
		{Name: "egress", Edit: func(p policy) {
			p.Spec.Egress = []*networkingv1.NetworkPolicyEgressRule{{
				Ports: []*networkingv1.NetworkPolicyPort{{Port: object.Count(-1)}},
				To:    []*networkingv1.NetworkPolicyPeer{{}},
			}}
		}, Want: []string{"spec.egress[0].ports[0].port: Invalid value: -1", "spec.egress[0].to[0]: Required value: must specify a peer"}},
		{Name: "types", Edit: func(p policy) { p.Spec.PolicyTypes = []string{"Ingress", "egress"} },
			Want: []string{`spec.policyTypes[1]: Unsupported value: "egress": supported values: "Egress", "Ingress"`}},
		{Name: "too many types", Edit: func(p policy) { p.Spec.PolicyTypes = []string{"Ingress", "Egress", "Ingress"} },
			Want: []string{"spec.policyTypes: Invalid value: 3: may not specify more than two policyTypes"}},
	})
	kindtest.ExpectCells(t, networkPolicy(), kindtest.Now, map[string]string{"POD-SELECTOR": "role=db"})
}

func TestNetworkPolicyDefaults(t *testing.T) {
	p := networkPolicy()
	k := kinds.Of(p)
	k.Default(p)
	if got := p.GetSpec().GetPolicyTypes(); !slices.Equal(got, []string{"Ingress"}) {
		t.Errorf("policy types of ingress rules are %v", got)
	}
	if got := p.GetSpec().GetIngress()[0].GetPorts()[0].GetProtocol(); got != "TCP" {
		t.Errorf("the protocol is %q", got)
	}
	p = networkPolicy()
	p.Spec.Ingress, p.Spec.Egress = nil, []*networkingv1.NetworkPolicyEgressRule{{}}
	k.Default(p)
	if got := p.GetSpec().GetPolicyTypes(); !slices.Equal(got, []string{"Ingress", "Egress"}) {
		t.Errorf("policy types of egress rules are %v", got)
	}
}
