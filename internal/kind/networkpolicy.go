package kind

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/util/validation/field"

	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// The directions of traffic that a network policy is about.
const (
	PolicyIngress = "Ingress"
	PolicyEgress  = "Egress"
)

var (
	networkPolicyRules = rulesOf[*networkingv1.NetworkPolicy]{
		name:     nameIsSubdomain,
		defaults: defaultNetworkPolicy,
		check:    checkNetworkPolicy,
	}
	networkPolicyColumns = []Column{
		column("POD-SELECTOR", func(p *networkingv1.NetworkPolicy) string {
			return FormatLabelSelector(p.GetSpec().GetPodSelector())
		}),
		AgeColumn,
	}
)

func defaultNetworkPolicy(p *networkingv1.NetworkPolicy) {
	spec := p.GetSpec()
	if len(spec.GetPolicyTypes()) == 0 {
		spec.PolicyTypes = []string{PolicyIngress}
		if len(spec.GetEgress()) > 0 {
			spec.PolicyTypes = append(spec.PolicyTypes, PolicyEgress)
		}
	}
}

func checkNetworkPolicy(np *networkingv1.NetworkPolicy, c *checker) {
	spec, p := np.GetSpec(), field.NewPath("spec")
	c.labelSelector(p.Child("podSelector"), spec.GetPodSelector())
	for i, rule := range spec.GetIngress() {
		at := p.Child("ingress").Index(i)
		c.policyRule(at, rule.GetPorts(), at.Child("from"), rule.GetFrom())
	}
	for i, rule := range spec.GetEgress() {
		at := p.Child("egress").Index(i)
		c.policyRule(at, rule.GetPorts(), at.Child("to"), rule.GetTo())
	}
	if n := len(spec.GetPolicyTypes()); n > 2 {
		c.invalid(p.Child("policyTypes"), n, "may not specify more than two policyTypes")
	}
}

func (c *checker) policyRule(
	p *field.Path, ports []*networkingv1.NetworkPolicyPort, peersAt *field.Path, peers []*networkingv1.NetworkPolicyPeer,
) {
	for i, port := range ports {
		c.policyPort(p.Child("ports").Index(i), port)
	}
	for i, peer := range peers {
		c.policyPeer(peersAt.Index(i), peer)
	}
}

func (c *checker) policyPort(p *field.Path, port *networkingv1.NetworkPolicyPort) {
	if port.EndPort == nil {
		return
	}
	switch number, end := port.GetPort(), p.Child("endPort"); {
	case number == nil:
		c.invalid(end, port.GetEndPort(), "may not be specified when `port` is not specified")
	case number.GetType() == 1:
		c.invalid(end, port.GetEndPort(), "may not be specified when `port` is non-numeric")
	case port.GetEndPort() < number.GetIntVal():
		c.invalid(end, port.GetEndPort(), "must be greater than or equal to `port`")
	}
}

func (c *checker) policyPeer(p *field.Path, peer *networkingv1.NetworkPolicyPeer) {
	pods, namespaces, block := peer.GetPodSelector(), peer.GetNamespaceSelector(), peer.GetIpBlock()
	c.labelSelector(p.Child("podSelector"), pods)
	c.labelSelector(p.Child("namespaceSelector"), namespaces)
	switch {
	case pods == nil && namespaces == nil && block == nil:
		c.required(p, "must specify a peer")
	case block != nil && (pods != nil || namespaces != nil):
		c.forbidden(p, "may not specify both ipBlock and another peer")
	case block != nil:
		c.ipBlock(p.Child("ipBlock"), block)
	}
}

func (c *checker) ipBlock(p *field.Path, block *networkingv1.IPBlock) {
	whole, err := netip.ParsePrefix(block.GetCidr())
	if err != nil {
		return
	}
	for i, text := range block.GetExcept() {
		part, err := netip.ParsePrefix(text)
		if err == nil && (!whole.Contains(part.Addr()) || part.Bits() <= whole.Bits()) {
			c.invalid(p.Child("except").Index(i), text, "must be a strict subset of `cidr`, which is "+block.GetCidr())
		}
	}
}
