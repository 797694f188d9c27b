package networking

import (
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// maxServiceCIDRs is how many networks a ServiceCIDR may have: one of each family.
const maxServiceCIDRs = 2

var (
	serviceCIDRRules = rules.For[*networkingv1.ServiceCIDR]{
		Name:        rules.NameIsSubdomain,
		Check:       checkServiceCIDR,
		CheckUpdate: checkServiceCIDRUpdate,
		Warn: func(*networkingv1.ServiceCIDR) []string {
			return []string{"spec: ServiceCIDRs have no effect yet: cluster IPs come from the networks of the apiserver's configuration"}
		},
	}
	serviceCIDRColumns = []scheme.Column{
		column.New("CIDRS", func(s *networkingv1.ServiceCIDR) string { return strings.Join(s.GetSpec().GetCidrs(), ",") }),
		column.AgeColumn,
	}
)

func checkServiceCIDR(s *networkingv1.ServiceCIDR, c *rules.Checker) {
	p, cidrs := field.NewPath("spec", "cidrs"), s.GetSpec().GetCidrs()
	if len(cidrs) > maxServiceCIDRs {
		c.Invalid(p, cidrs, "may only hold up to 2 values")
		return
	}
	families := map[bool]bool{}
	for i, cidr := range cidrs {
		if errs := validation.IsValidCIDR(p.Index(i), cidr); len(errs) > 0 {
			c.List = append(c.List, errs...)
			continue
		}
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			c.Invalid(p.Index(i), cidr, err.Error())
			continue
		}
		if families[prefix.Addr().Is4()] {
			c.Invalid(p, cidrs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64")
		}
		families[prefix.Addr().Is4()] = true
	}
}

// checkServiceCIDRUpdate lets a network of the other family be added to a single one.
func checkServiceCIDRUpdate(now, old *networkingv1.ServiceCIDR, c *rules.Checker) {
	p, cidrs, before := field.NewPath("spec", "cidrs"), now.GetSpec().GetCidrs(), old.GetSpec().GetCidrs()
	if added := len(before) == 1 && len(cidrs) == maxServiceCIDRs; len(cidrs) != len(before) && !added {
		c.Invalid(p, cidrs, rules.Immutable)
		return
	}
	for i, cidr := range before {
		rules.Unchanged(c, p.Index(i), cidrs[i], cidr)
	}
}
