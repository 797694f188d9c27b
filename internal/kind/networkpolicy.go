package kind

import (
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
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
	if p.Spec == nil {
		p.Spec = &networkingv1.NetworkPolicySpec{}
	}
	spec := p.GetSpec()
	if spec.PodSelector == nil {
		spec.PodSelector = &metav1.LabelSelector{} // which Kubernetes cannot tell from one that is not set
	}
	if len(spec.GetPolicyTypes()) == 0 {
		spec.PolicyTypes = []string{PolicyIngress}
		if len(spec.GetEgress()) > 0 {
			spec.PolicyTypes = append(spec.PolicyTypes, PolicyEgress)
		}
	}
	for _, rule := range spec.GetIngress() {
		defaultPolicyPorts(rule.GetPorts())
	}
	for _, rule := range spec.GetEgress() {
		defaultPolicyPorts(rule.GetPorts())
	}
}

func defaultPolicyPorts(ports []*networkingv1.NetworkPolicyPort) {
	for _, port := range ports {
		if port.Protocol == nil {
			port.Protocol = proto.String(ProtocolTCP)
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
	types := p.Child("policyTypes")
	if n := len(spec.GetPolicyTypes()); n > 2 {
		c.invalid(types, n, "may not specify more than two policyTypes")
		return
	}
	for i, t := range spec.GetPolicyTypes() {
		c.oneOf(types.Index(i), t, PolicyEgress, PolicyIngress)
	}
}

func (c *checker) policyRule(p *field.Path, ports []*networkingv1.NetworkPolicyPort, peersAt *field.Path, peers []*networkingv1.NetworkPolicyPeer) {
	for i, port := range ports {
		c.policyPort(p.Child("ports").Index(i), port)
	}
	for i, peer := range peers {
		c.policyPeer(peersAt.Index(i), peer)
	}
}

func (c *checker) policyPort(p *field.Path, port *networkingv1.NetworkPolicyPort) {
	if port.GetProtocol() == ProtocolSCTP {
		c.notYet(p.Child("protocol"), ProtocolSCTP, sctpNotServed)
	} else {
		c.oneOf(p.Child("protocol"), port.GetProtocol(), ProtocolTCP, ProtocolUDP)
	}
	number, name, end := port.GetPort(), p.Child("port"), p.Child("endPort")
	switch {
	case number == nil:
		if port.EndPort != nil {
			c.invalid(end, port.GetEndPort(), "may not be specified when `port` is not specified")
		}
	case number.GetType() == 1:
		c.each(name, number.GetStrVal(), validation.IsValidPortName(number.GetStrVal()))
		if port.EndPort != nil {
			c.invalid(end, port.GetEndPort(), "may not be specified when `port` is non-numeric")
		}
	default:
		c.portNumber(name, number.GetIntVal())
		if port.EndPort == nil {
			return
		}
		c.portNumber(end, port.GetEndPort())
		if port.GetEndPort() < number.GetIntVal() {
			c.invalid(end, port.GetEndPort(), "must be greater than or equal to `port`")
		}
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
	if block.GetCidr() == "" {
		c.required(p.Child("cidr"), "")
		return
	}
	whole := c.cidr(p.Child("cidr"), block.GetCidr())
	for i, text := range block.GetExcept() {
		at := p.Child("except").Index(i)
		part := c.cidr(at, text)
		if whole.IsValid() && part.IsValid() && (!whole.Contains(part.Addr()) || part.Bits() <= whole.Bits()) {
			c.invalid(at, text, "must be a strict subset of `cidr`, which is "+block.GetCidr())
		}
	}
}
