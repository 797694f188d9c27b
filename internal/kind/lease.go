package kind

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
)

var (
	leaseRules = rulesOf[*coordinationv1.Lease]{
		name:  nameIsSubdomain,
		check: checkLease,
	}
	leaseColumns = []Column{
		column("HOLDER", func(l *coordinationv1.Lease) string { return l.GetSpec().GetHolderIdentity() }),
		age,
	}
)

func checkLease(l *coordinationv1.Lease, c *checker) {
	p := field.NewPath("spec")
	s := l.GetSpec()
	if s == nil {
		return
	}
	if s.LeaseDurationSeconds != nil && s.GetLeaseDurationSeconds() <= 0 {
		c.invalid(p.Child("leaseDurationSeconds"), s.GetLeaseDurationSeconds(), "must be greater than 0")
	}
	c.notNegative(p.Child("leaseTransitions"), int64(s.GetLeaseTransitions()))
	if s.Strategy != nil {
		c.oneOf(p.Child("strategy"), s.GetStrategy(), "OldestEmulationVersion")
	}
	if s.PreferredHolder != nil && s.GetPreferredHolder() != "" && s.GetStrategy() == "" {
		c.forbidden(p.Child("preferredHolder"), "may only be specified when `strategy` is defined")
	}
}
