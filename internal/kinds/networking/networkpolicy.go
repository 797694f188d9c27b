// Package networking has the kinds of the groups networking.k8s.io and networking.xebec.io.
package networking

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// The directions of traffic that a network policy is about.
const (
	PolicyIngress = "Ingress"
	PolicyEgress  = "Egress"
)

var (
	networkPolicyRules = rules.For[*networkingv1.NetworkPolicy]{
		Name:     rules.NameIsSubdomain,
		Defaults: defaultNetworkPolicy,
		Check:    checkNetworkPolicy,
	}
	networkPolicyColumns = []scheme.Column{
		column.New("POD-SELECTOR", func(p *networkingv1.NetworkPolicy) string {
			return column.FormatLabelSelector(p.GetSpec().GetPodSelector())
		}),
		column.AgeColumn,
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

func checkNetworkPolicy(np *networkingv1.NetworkPolicy, c *rules.Checker) {
	spec, p := np.GetSpec(), field.NewPath("spec")
	c.LabelSelector(p.Child("podSelector"), spec.GetPodSelector())
	for i, rule := range spec.GetIngress() {
		at := p.Child("ingress").Index(i)
		checkPolicyRule(c, at, rule.GetPorts(), at.Child("from"), rule.GetFrom())
	}
	for i, rule := range spec.GetEgress() {
		at := p.Child("egress").Index(i)
		checkPolicyRule(c, at, rule.GetPorts(), at.Child("to"), rule.GetTo())
	}
	if n := len(spec.GetPolicyTypes()); n > 2 {
		c.Invalid(p.Child("policyTypes"), n, "may not specify more than two policyTypes")
	}
}

func checkPolicyRule(c *rules.Checker,
	p *field.Path, ports []*networkingv1.NetworkPolicyPort, peersAt *field.Path, peers []*networkingv1.NetworkPolicyPeer,
) {
	for i, port := range ports {
		checkPolicyPort(c, p.Child("ports").Index(i), port)
	}
	for i, peer := range peers {
		checkPolicyPeer(c, peersAt.Index(i), peer)
	}
}

func checkPolicyPort(c *rules.Checker, p *field.Path, port *networkingv1.NetworkPolicyPort) {
	if port.EndPort == nil {
		return
	}
	switch number, end := port.GetPort(), p.Child("endPort"); {
	case number == nil:
		c.Invalid(end, port.GetEndPort(), "may not be specified when `port` is not specified")
	case number.GetType() == 1:
		c.Invalid(end, port.GetEndPort(), "may not be specified when `port` is non-numeric")
	case port.GetEndPort() < number.GetIntVal():
		c.Invalid(end, port.GetEndPort(), "must be greater than or equal to `port`")
	}
}

func checkPolicyPeer(c *rules.Checker, p *field.Path, peer *networkingv1.NetworkPolicyPeer) {
	pods, namespaces, block := peer.GetPodSelector(), peer.GetNamespaceSelector(), peer.GetIpBlock()
	c.LabelSelector(p.Child("podSelector"), pods)
	c.LabelSelector(p.Child("namespaceSelector"), namespaces)
	switch {
	case pods == nil && namespaces == nil && block == nil:
		c.Required(p, "must specify a peer")
	case block != nil && (pods != nil || namespaces != nil):
		c.Forbidden(p, "may not specify both ipBlock and another peer")
	case block != nil:
		checkIpBlock(c, p.Child("ipBlock"), block)
	}
}

func checkIpBlock(c *rules.Checker, p *field.Path, block *networkingv1.IPBlock) {
	whole, err := netip.ParsePrefix(block.GetCidr())
	if err != nil {
		return
	}
	for i, text := range block.GetExcept() {
		part, err := netip.ParsePrefix(text)
		if err == nil && (!whole.Contains(part.Addr()) || part.Bits() <= whole.Bits()) {
			c.Invalid(p.Child("except").Index(i), text, "must be a strict subset of `cidr`, which is "+block.GetCidr())
		}
	}
}
