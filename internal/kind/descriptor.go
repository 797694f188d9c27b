package kind

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/scheme"
)

// FromDescriptor returns the rules that the options of a message's fields state
// (xebec.meta.v1.FieldRules), with those that all kinds share: names are DNS subdomains, status and
// generation are the server's. check returns the errors of rules that span fields; it may be nil.
func FromDescriptor(check func(Object) field.ErrorList) scheme.Rules {
	r := rulesOf[Object]{name: nameIsSubdomain}
	if check != nil {
		r.check = func(o Object, c *checker) { c.list = append(c.list, check(o)...) }
	}
	return r
}
