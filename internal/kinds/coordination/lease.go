// Package coordination has the kinds of the group coordination.k8s.io.
package coordination

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
)

var (
	leaseRules = rules.For[*coordinationv1.Lease]{
		Name:  rules.NameIsSubdomain,
		Check: checkLease,
	}
	leaseColumns = []scheme.Column{
		column.At(".spec.holderIdentity", column.New("HOLDER", func(l *coordinationv1.Lease) string { return l.GetSpec().GetHolderIdentity() })),
		column.AgeColumn,
	}
)

func checkLease(l *coordinationv1.Lease, c *rules.Checker) {
	p := field.NewPath("spec")
	s := l.GetSpec()
	if s == nil {
		return
	}
	if s.Strategy != nil {
		checkLeaseStrategy(c, p.Child("strategy"), s.GetStrategy())
	}
	if s.GetPreferredHolder() != "" && s.GetStrategy() == "" {
		c.Forbidden(p.Child("preferredHolder"), "may only be specified if `strategy` is defined")
	}
}

// checkLeaseStrategy checks a strategy: one of Kubernetes, or one with a domain prefix.
func checkLeaseStrategy(c *rules.Checker, p *field.Path, strategy string) {
	if !strings.Contains(strategy, "/") {
		if own := []string{"OldestEmulationVersion"}; !slices.Contains(own, strategy) {
			c.Add(field.NotSupported(p, strategy, own))
		}
		return
	}
	c.Each(p, strategy, validation.IsQualifiedName(strategy))
}
