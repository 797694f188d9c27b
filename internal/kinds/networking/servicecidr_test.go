package networking_test

import (
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

func TestServiceCIDR(t *testing.T) {
	type networks = *networkingv1.ServiceCIDR
	of := func(cidrs ...string) func(networks) {
		return func(s networks) { s.Spec.Cidrs = cidrs }
	}
	base := func() networks {
		return &networkingv1.ServiceCIDR{Metadata: &metav1.ObjectMeta{Name: "more"}, Spec: &networkingv1.ServiceCIDRSpec{Cidrs: []string{"10.96.0.0/16"}}}
	}
	kindtest.Validate(t, base, []kindtest.Bad[networks]{
		{Name: "none", Edit: of(), Want: []string{"spec.cidrs: Required value: at least one CIDR required"}},
		{Name: "three", Edit: of("10.0.0.0/8", "fd00::/64", "fd01::/64"), Want: []string{"spec.cidrs: Invalid value"}},
		{Name: "two of a family", Edit: of("10.0.0.0/8", "11.0.0.0/8"), Want: []string{"spec.cidrs: Invalid value"}},
		{Name: "bits beyond the prefix", Edit: of("10.0.0.1/8"), Want: []string{`spec.cidrs[0]: Invalid value: "10.0.0.1/8"`}},
		{Name: "no network", Edit: of("10.0.0.0"), Want: []string{`spec.cidrs[0]: Invalid value: "10.0.0.0"`}},
		{Name: "two families", Edit: of("fd00::/64", "10.0.0.0/8")},
	})
	kindtest.Update(t, base, []kindtest.Edit[networks]{
		{Name: "other", Edit: of("10.97.0.0/16"), Want: []string{`spec.cidrs[0]: Invalid value: "10.97.0.0/16": field is immutable`}},
		{Name: "second family", Edit: of("10.96.0.0/16", "fd00::/64")},
		{Name: "second family first", Edit: of("fd00::/64", "10.96.0.0/16"), Want: []string{`spec.cidrs[0]: Invalid value: "fd00::/64": field is immutable`}},
	})
	dual := func() networks {
		s := base()
		of("10.96.0.0/16", "fd00::/64")(s)
		return s
	}
	kindtest.Update(t, dual, []kindtest.Edit[networks]{
		{Name: "one less", Edit: of("10.96.0.0/16"), Want: []string{"spec.cidrs: Invalid value"}},
	})
	kindtest.ExpectCells(t, dual(), kindtest.Now, map[string]string{"CIDRS": "10.96.0.0/16,fd00::/64"})
}
