package core

import (
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// FamilyOf returns an address's IP family, empty for what is no address.
func FamilyOf(address string) string {
	a, err := netip.ParseAddr(address)
	switch {
	case err != nil:
		return ""
	case a.Unmap().Is4():
		return FamilyIPv4
	}
	return FamilyIPv6
}

// SettleFamilies completes a service's IP families and their policy, as Kubernetes does, for a
// cluster whose services can have addresses of the families given, the first of which is what they
// have unless they ask for more. old is nil for a new service. What an update leaves out stays, and
// changing the policy to SingleStack gives the second family and its address up. It returns what
// the cluster cannot give, or what contradicts itself; validation does the rest.
func SettleFamilies(s, old *corev1.ServiceSpec, cluster []string) field.ErrorList {
	if s.GetType() == ServiceExternalName {
		return nil
	}
	c := &rules.Checker{}
	if old != nil && old.GetType() != ServiceExternalName {
		keepFamilies(s, old)
	}
	if s.IpFamilyPolicy == nil {
		policy := SingleStack
		if len(s.GetIpFamilies()) > 1 || len(s.GetClusterIps()) > 1 {
			policy = RequireDualStack
		}
		s.IpFamilyPolicy = &policy
	}
	for _, ip := range s.GetClusterIps()[min(len(s.GetIpFamilies()), len(s.GetClusterIps())):] {
		if f := FamilyOf(ip); f != "" {
			s.IpFamilies = append(s.IpFamilies, f)
		}
	}
	if len(s.GetIpFamilies()) == 0 {
		s.IpFamilies = []string{cluster[0]}
	}
	at := field.NewPath("spec")
	for i, f := range s.GetIpFamilies() {
		if (f == FamilyIPv4 || f == FamilyIPv6) && !slices.Contains(cluster, f) {
			c.Invalid(at.Child("ipFamilies").Index(i), f, "not configured on this cluster")
		}
	}
	switch policy := s.GetIpFamilyPolicy(); {
	case policy == RequireDualStack && len(cluster) < 2:
		c.Invalid(at.Child("ipFamilyPolicy"), policy, "this cluster is not configured for dual-stack services")
	case policy == PreferDualStack && samePreference(s, old):
		// A service keeps its families when those of the cluster change.
	case policy == RequireDualStack || policy == PreferDualStack:
		for _, f := range cluster {
			if len(s.GetIpFamilies()) < 2 && !slices.Contains(s.GetIpFamilies(), f) {
				s.IpFamilies = append(s.IpFamilies, f)
			}
		}
	}
	return c.List
}

// samePreference reports whether an update keeps PreferDualStack, the families and the addresses of
// a service.
func samePreference(s, old *corev1.ServiceSpec) bool {
	return old.GetIpFamilyPolicy() == PreferDualStack &&
		slices.Equal(s.GetIpFamilies(), old.GetIpFamilies()) && slices.Equal(s.GetClusterIps(), old.GetClusterIps())
}

// keepFamilies copies fields that an update leaves out from the stored service.
func keepFamilies(s, old *corev1.ServiceSpec) {
	if s.IpFamilyPolicy == nil {
		s.IpFamilyPolicy = old.IpFamilyPolicy
	}
	single := s.GetIpFamilyPolicy() == SingleStack
	if len(s.GetIpFamilies()) == 0 {
		s.IpFamilies = slices.Clone(old.GetIpFamilies())
	}
	// An update with the first address alone keeps the second.
	if ips := old.GetClusterIps(); len(ips) == 2 && len(s.GetClusterIps()) == 1 && s.GetClusterIps()[0] == ips[0] && !single {
		s.ClusterIps = slices.Clone(ips)
	}
	if single {
		if slices.Equal(s.GetIpFamilies(), old.GetIpFamilies()) && len(s.GetIpFamilies()) == 2 {
			s.IpFamilies = s.GetIpFamilies()[:1:1]
		}
		if slices.Equal(s.GetClusterIps(), old.GetClusterIps()) && len(s.GetClusterIps()) == 2 {
			s.ClusterIps = s.GetClusterIps()[:1:1]
		}
	}
}

// checkFamilies checks a service's addresses, their families and the policy against each other.
func checkFamilies(c *rules.Checker, p *field.Path, s *corev1.ServiceSpec) {
	ips, families := s.GetClusterIps(), s.GetIpFamilies()
	at := p.Child("clusterIPs")
	if ip := s.GetClusterIp(); ip != "" && ip != ClusterIPNone {
		c.IP(p.Child("clusterIP"), ip)
	}
	switch {
	case len(ips) > 0 && s.GetClusterIp() == "":
		c.Invalid(at, ips, "must be empty when `clusterIP` is not specified")
	case len(ips) > 0 && ips[0] != s.GetClusterIp():
		c.Invalid(at, ips, "first value must match `clusterIP`")
	}
	if len(ips) > 2 {
		c.Add(field.TooMany(at, len(ips), 2))
	}
	if s.GetIpFamilyPolicy() == SingleStack && (len(ips) > 1 || len(families) > 1) {
		c.Invalid(p.Child("ipFamilyPolicy"), SingleStack,
			"must be RequireDualStack or PreferDualStack when multiple cluster IPs or IP families are specified")
	}
	for i, ip := range ips {
		switch {
		case ip == ClusterIPNone && len(ips) > 1:
			c.Invalid(at.Index(i), ip, "must be the only value, where the service is to have no address")
		case ip == ClusterIPNone:
		case i > 0 && !c.IP(at.Index(i), ip).IsValid():
		case i < len(families) && FamilyOf(ip) != "" && FamilyOf(ip) != families[i]:
			c.Invalid(at.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", families[i], i))
		case i == 1 && FamilyOf(ip) == FamilyOf(ips[0]):
			c.Invalid(at, ips, "may specify no more than one IP for each IP family")
		}
	}
}

// checkFamiliesUpdate checks what may not change of a service's addresses and families.
func checkFamiliesUpdate(c *rules.Checker, p *field.Path, s, old *corev1.ServiceSpec) {
	if s.GetClusterIp() == ClusterIPNone && old.GetClusterIp() == ClusterIPNone {
		return // The families of a headless service may change.
	}
	single := s.GetIpFamilyPolicy() == SingleStack
	for _, list := range []struct {
		name     string
		now, was []string
	}{{"ipFamilies", s.GetIpFamilies(), old.GetIpFamilies()}, {"clusterIPs", s.GetClusterIps(), old.GetClusterIps()}} {
		at := p.Child(list.name)
		for i, was := range list.was {
			switch {
			case i >= len(list.now) && i == 1 && single: // given up
			case i >= len(list.now) && i == 1:
				c.Invalid(p.Child("ipFamilyPolicy"), s.GetIpFamilyPolicy(), "must be SingleStack when the second of `"+list.name+"` is released")
			case i >= len(list.now):
				c.Required(at, "")
			case list.now[i] != was && !(i == 0 && list.name == "clusterIPs"): // clusterIP is said to be immutable already
				c.Invalid(at.Index(i), list.now[i], "may not change once set")
			}
		}
	}
}
