package resource

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

var (
	resourceClaimTemplateRules = rules.For[*resourcev1.ResourceClaimTemplate]{
		Name: rules.NameIsSubdomain,
		Defaults: func(t *resourcev1.ResourceClaimTemplate) {
			defaultCounts(t.GetSpec().GetSpec().GetDevices())
		},
		Check: func(t *resourcev1.ResourceClaimTemplate, c *rules.Checker) {
			checkTemplateMetadata(c, field.NewPath("spec", "metadata"), t.GetSpec().GetMetadata())
			checkDeviceClaim(c, field.NewPath("spec", "spec", "devices"), t.GetSpec().GetSpec().GetDevices())
		},
		Warn: func(t *resourcev1.ResourceClaimTemplate) []string {
			return append([]string{"spec: templates of resource claims have no effect yet: no claims are made from them"},
				warnOfRequests(field.NewPath("spec", "spec", "devices"), t.GetSpec().GetSpec().GetDevices())...)
		},
	}
	resourceClaimTemplateColumns = []scheme.Column{column.AgeColumn}
)

// checkTemplateMetadata refuses metadata that objects made of a template do not get. The labels are
// checked by the schema.
func checkTemplateMetadata(c *rules.Checker, p *field.Path, m *metav1.ObjectMeta) {
	c.Annotations(p.Child("annotations"), m.GetAnnotations())
	for _, f := range rules.FieldsOf(m.ProtoReflect()) {
		if f.Name() != "annotations" && f.Name() != "labels" && m.ProtoReflect().Has(f) {
			c.Forbidden(p.Child(f.JSONName()), "cannot be set")
		}
	}
}
