package kind

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
)

var (
	leaseRules = rulesOf[*coordinationv1.Lease]{
		name:  nameIsSubdomain,
		check: checkLease,
	}
	leaseColumns = []Column{
		at(".spec.holderIdentity", column("HOLDER", func(l *coordinationv1.Lease) string { return l.GetSpec().GetHolderIdentity() })),
		AgeColumn,
	}
)

func checkLease(l *coordinationv1.Lease, c *checker) {
	p := field.NewPath("spec")
	s := l.GetSpec()
	if s == nil {
		return
	}
	if s.Strategy != nil {
		c.leaseStrategy(p.Child("strategy"), s.GetStrategy())
	}
	if s.GetPreferredHolder() != "" && s.GetStrategy() == "" {
		c.forbidden(p.Child("preferredHolder"), "may only be specified if `strategy` is defined")
	}
}

// leaseStrategy checks a strategy: one of Kubernetes, or one with a domain prefix.
func (c *checker) leaseStrategy(p *field.Path, strategy string) {
	if !strings.Contains(strategy, "/") {
		if own := []string{"OldestEmulationVersion"}; !slices.Contains(own, strategy) {
			c.add(field.NotSupported(p, strategy, own))
		}
		return
	}
	c.each(p, strategy, validation.IsQualifiedName(strategy))
}
