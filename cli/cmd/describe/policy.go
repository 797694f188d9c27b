package describe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/networking"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// networkPolicy says in words what a policy allows.
func (r *report) networkPolicy(p *networkingv1.NetworkPolicy) {
	spec := p.GetSpec()
	r.metadata(p)
	r.time("Created", p.GetMetadata().GetCreationTimestamp())
	r.labels(p)
	r.field("Selects", selected("pods", spec.GetPodSelector())+" in this namespace")
	r.field("Policy Types", strings.Join(spec.GetPolicyTypes(), ", "))
	if slices.Contains(spec.GetPolicyTypes(), networking.PolicyIngress) {
		r.group("Ingress", func() {
			for i, rule := range spec.GetIngress() {
				r.policyRule(i, "From", rule.GetFrom(), "To Port", rule.GetPorts())
			}
			if len(spec.GetIngress()) == 0 {
				r.line("none allowed")
			}
		})
	}
	if slices.Contains(spec.GetPolicyTypes(), networking.PolicyEgress) {
		r.group("Egress", func() {
			for i, rule := range spec.GetEgress() {
				r.policyRule(i, "To", rule.GetTo(), "To Port", rule.GetPorts())
			}
			if len(spec.GetEgress()) == 0 {
				r.line("none allowed")
			}
		})
	}
}

func (r *report) policyRule(
	i int,
	peersName string,
	peers []*networkingv1.NetworkPolicyPeer,
	portsName string,
	ports []*networkingv1.NetworkPolicyPort,
) {
	r.group(fmt.Sprintf("Rule %d", i+1), func() {
		var who, where []string
		for _, p := range peers {
			who = append(who, policyPeer(p))
		}
		for _, p := range ports {
			where = append(where, policyPort(p))
		}
		if len(who) == 0 {
			who = []string{"anywhere"}
		}
		if len(where) == 0 {
			where = []string{"all ports of all protocols"}
		}
		r.list(peersName, who)
		r.list(portsName, where)
	})
}

func policyPeer(p *networkingv1.NetworkPolicyPeer) string {
	switch b := p.GetIpBlock(); {
	case b != nil && len(b.GetExcept()) > 0:
		return b.GetCidr() + " except " + strings.Join(b.GetExcept(), ", ")
	case b != nil:
		return b.GetCidr()
	case p.GetNamespaceSelector() == nil:
		return selected("pods", p.GetPodSelector()) + " in this namespace"
	case p.GetPodSelector() == nil:
		return "all pods in " + selected("namespaces", p.GetNamespaceSelector())
	}
	return selected("pods", p.GetPodSelector()) + " in " + selected("namespaces", p.GetNamespaceSelector())
}

// selected says which of some things a selector selects.
func selected(what string, s *metav1.LabelSelector) string {
	if len(s.GetMatchLabels()) == 0 && len(s.GetMatchExpressions()) == 0 {
		return "all " + what
	}
	return what + " with " + column.FormatLabelSelector(s)
}

func policyPort(p *networkingv1.NetworkPolicyPort) string {
	number := "all"
	if p.GetPort() != nil {
		number = printer.IntOrString(p.GetPort())
	}
	if p.EndPort != nil {
		number += fmt.Sprintf("-%d", p.GetEndPort())
	}
	return number + "/" + p.GetProtocol()
}
