package rules

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/scheme"
)

// FromDescriptor returns the rules that the options of a message's fields state
// (xebec.meta.v1.FieldRules), with those that all kinds share: names are DNS subdomains, status and
// generation are the server's. check returns the errors of rules that span fields; it may be nil.
func FromDescriptor(check func(scheme.Object) field.ErrorList) scheme.Rules {
	r := For[scheme.Object]{Name: NameIsSubdomain}
	if check != nil {
		r.Check = func(o scheme.Object, c *Checker) { c.List = append(c.List, check(o)...) }
	}
	return r
}
