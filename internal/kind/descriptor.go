package kind

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/schema"
	"github.com/xebec-project/xebec/internal/scheme"
)

// FromDescriptor returns the rules that the options of the fields of a message state (xebec.meta.v1.FieldRules), with those
// that all kinds share: names are DNS subdomains, status and generation are the server's. check returns the errors of rules
// that span fields; it may be nil.
func FromDescriptor(check func(Object) field.ErrorList) scheme.Rules {
	return rulesOf[Object]{
		name:     nameIsSubdomain,
		defaults: func(o Object) { schema.Default(o) },
		check: func(o Object, c *checker) {
			c.list = append(c.list, schema.Validate(nil, o, "metadata", "status")...)
			if check != nil {
				c.list = append(c.list, check(o)...)
			}
		},
		checkStatus: func(new, _ Object, c *checker) {
			m := new.ProtoReflect()
			if f := statusField(m); f != nil && m.Has(f) {
				c.list = append(c.list, schema.Validate(field.NewPath("status"), m.Get(f).Message().Interface())...)
			}
		},
	}
}
