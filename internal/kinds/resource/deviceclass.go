package resource

import (
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

var (
	deviceClassRules = rules.For[*resourcev1.DeviceClass]{
		Name:       rules.NameIsSubdomain,
		Check:      checkDeviceClass,
		Generation: true,
		Warn: func(d *resourcev1.DeviceClass) []string {
			return append([]string{"spec: device classes have no effect yet: no devices are allocated"},
				warnOfSelectors(field.NewPath("spec", "selectors"), d.GetSpec().GetSelectors())...)
		},
	}
	deviceClassColumns = []scheme.Column{column.AgeColumn}
)

func checkDeviceClass(d *resourcev1.DeviceClass, c *rules.Checker) {
	p, spec := field.NewPath("spec"), d.GetSpec()
	for i, config := range spec.GetConfig() {
		checkConfiguration(c, p.Child("config").Index(i), config.GetDeviceConfiguration())
	}
	if spec != nil && spec.ExtendedResourceName != nil && !isExtendedResource(spec.GetExtendedResourceName()) {
		c.Invalid(p.Child("extendedResourceName"), spec.GetExtendedResourceName(), "must be a valid extended resource name")
	}
}

// isExtendedResource reports whether a name is that of a resource outside of Kubernetes' domain,
// which a quota can limit.
func isExtendedResource(name string) bool {
	const quotaPrefix = "requests."
	return strings.Contains(name, "/") && !strings.Contains(name, "kubernetes.io/") && !strings.HasPrefix(name, quotaPrefix) &&
		len(validation.IsQualifiedName(quotaPrefix+name)) == 0
}
