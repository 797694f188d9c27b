package kind_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kind"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

func networkPolicy() *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{Metadata: meta("db"), Spec: &networkingv1.NetworkPolicySpec{
		PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "db"}},
		Ingress: []*networkingv1.NetworkPolicyIngressRule{{
			Ports: []*networkingv1.NetworkPolicyPort{{Port: kind.Count(6379)}},
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
	testValidate(t, networkPolicy, []badCase[policy]{
		{"no spec", func(p policy) { p.Spec = nil }, nil},
		{"selector", func(p policy) { p.Spec.PodSelector.MatchLabels["role"] = "d b" }, []string{`spec.podSelector.matchLabels: Invalid value: "d b"`}},
		{"operator", func(p policy) {
			p.Spec.PodSelector.MatchExpressions = []*metav1.LabelSelectorRequirement{{Key: "role", Operator: "Gt"}}
		}, []string{`spec.podSelector.matchExpressions[0].operator: Invalid value: "Gt"`}},

		{"port by name", func(p policy) { port(p).Port = kind.Text("redis") }, nil},
		{"all ports of a protocol", func(p policy) { port(p).Port = nil }, nil},
		{"range", func(p policy) { port(p).EndPort = proto.Int32(6380) }, nil},
		{"range of one", func(p policy) { port(p).EndPort = proto.Int32(6379) }, nil},
		{"port 0", func(p policy) { port(p).Port = kind.Count(0) }, []string{portAt + "port: Invalid value: 0"}},
		{"port name", func(p policy) { port(p).Port = kind.Text("no_such") }, []string{portAt + `port: Invalid value: "no_such"`}},
		{"range that ends before", func(p policy) { port(p).EndPort = proto.Int32(80) }, []string{portAt + "endPort: Invalid value: 80: must be greater than or equal to `port`"}},
		{"range that ends nowhere", func(p policy) { port(p).EndPort = proto.Int32(65536) }, []string{portAt + "endPort: Invalid value: 65536"}},
		{"range by name", func(p policy) { port(p).Port, port(p).EndPort = kind.Text("redis"), proto.Int32(6380) },
			[]string{portAt + "endPort: Invalid value: 6380: may not be specified when `port` is non-numeric"}},
		{"range without a beginning", func(p policy) { port(p).Port, port(p).EndPort = nil, proto.Int32(6380) },
			[]string{portAt + "endPort: Invalid value: 6380: may not be specified when `port` is not specified"}},
		{"UDP", func(p policy) { port(p).Protocol = proto.String("UDP") }, nil},
		{"SCTP", func(p policy) { port(p).Protocol = proto.String("SCTP") },
			[]string{portAt + `protocol: Unsupported value: "SCTP": the datapath carries TCP and UDP only; SCTP is not supported`}},
		{"protocol", func(p policy) { port(p).Protocol = proto.String("tcp") }, []string{portAt + `protocol: Unsupported value: "tcp": supported values: "TCP", "UDP"`}},

		{"IPv6", func(p policy) { block(p).Cidr, block(p).Except = "2001:db8::/32", []string{"2001:db8:1::/48"} }, nil},
		{"no network", func(p policy) { block(p).Cidr = "" }, []string{blockAt + "cidr: Required value"}},
		{"bad network", func(p policy) { block(p).Cidr = "172.17.0.0/33" },
			[]string{blockAt + `cidr: Invalid value: "172.17.0.0/33": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)`}},
		{"an address", func(p policy) { block(p).Cidr, block(p).Except = "172.17.0.1", nil }, []string{blockAt + `cidr: Invalid value: "172.17.0.1"`}},
		{"bits beyond the prefix", func(p policy) { block(p).Cidr = "172.17.0.1/16" },
			[]string{blockAt + `cidr: Invalid value: "172.17.0.1/16": must not have bits set beyond the prefix length`}},
		{"bad exception", func(p policy) { block(p).Except[0] = "172.17.1" }, []string{blockAt + `except[0]: Invalid value: "172.17.1"`}},
		{"exception outside", func(p policy) { block(p).Except[0] = "10.0.0.0/24" },
			[]string{blockAt + "except[0]: Invalid value: \"10.0.0.0/24\": must be a strict subset of `cidr`, which is 172.17.0.0/16"}},
		{"everything excepted", func(p policy) { block(p).Except[0] = "172.17.0.0/16" }, []string{blockAt + `except[0]: Invalid value: "172.17.0.0/16"`}},
		{"exception of the other family", func(p policy) { block(p).Except[0] = "2001:db8::/64" }, []string{blockAt + `except[0]: Invalid value: "2001:db8::/64"`}},

		{"no peer", func(p policy) { p.Spec.Ingress[0].From[0] = &networkingv1.NetworkPolicyPeer{} },
			[]string{"spec.ingress[0].from[0]: Required value: must specify a peer"}},
		{"two peers", func(p policy) { p.Spec.Ingress[0].From[0].PodSelector = &metav1.LabelSelector{} },
			[]string{"spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"}},
		{"egress", func(p policy) {
			p.Spec.Egress = []*networkingv1.NetworkPolicyEgressRule{{
				Ports: []*networkingv1.NetworkPolicyPort{{Port: kind.Count(-1)}},
				To:    []*networkingv1.NetworkPolicyPeer{{}},
			}}
		}, []string{"spec.egress[0].ports[0].port: Invalid value: -1", "spec.egress[0].to[0]: Required value: must specify a peer"}},
		{"types", func(p policy) { p.Spec.PolicyTypes = []string{"Ingress", "egress"} },
			[]string{`spec.policyTypes[1]: Unsupported value: "egress": supported values: "Egress", "Ingress"`}},
		{"too many types", func(p policy) { p.Spec.PolicyTypes = []string{"Ingress", "Egress", "Ingress"} },
			[]string{"spec.policyTypes: Invalid value: 3: may not specify more than two policyTypes"}},
	})
	expectCells(t, networkPolicy(), now, map[string]string{"POD-SELECTOR": "role=db"})
}

func TestNetworkPolicyDefaults(t *testing.T) {
	p := networkPolicy()
	k := kind.Of(p)
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
