package networking

import (
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// Scopes of the object with the settings of an IngressClass.
const (
	scopeCluster   = "Cluster"
	scopeNamespace = "Namespace"
)

// maxController is how many bytes the name of a controller may have.
const maxController = 250

var (
	ingressClassRules = rules.For[*networkingv1.IngressClass]{
		Name:  rules.NameIsSubdomain,
		Check: checkIngressClass,
	}
	ingressClassColumns = []scheme.Column{
		column.At(".spec.controller", column.New("CONTROLLER", func(i *networkingv1.IngressClass) string { return i.GetSpec().GetController() })),
		column.New("PARAMETERS", ingressClassParameters),
		column.AgeColumn,
	}
)

// ingressClassParameters formats the reference to the settings: KIND.GROUP/NAME.
func ingressClassParameters(i *networkingv1.IngressClass) string {
	p := i.GetSpec().GetParameters()
	if p == nil {
		return column.None
	}
	kind := p.GetKind()
	if p.ApiGroup != nil {
		kind += "." + p.GetApiGroup()
	}
	return kind + "/" + p.GetName()
}

func checkIngressClass(i *networkingv1.IngressClass, c *rules.Checker) {
	p, spec := field.NewPath("spec"), i.GetSpec()
	if len(spec.GetController()) > maxController {
		c.Add(field.TooLong(p.Child("controller"), "", maxController))
	}
	c.List = append(c.List, validation.IsDomainPrefixedPath(p.Child("controller"), spec.GetController())...)
	params := spec.GetParameters()
	namespace := p.Child("parameters", "namespace")
	switch {
	case params == nil:
	case params.GetScope() == scopeCluster && params.Namespace != nil:
		c.Forbidden(namespace, "`parameters.scope` is set to 'Cluster'")
	case params.GetScope() == scopeNamespace && params.Namespace == nil:
		c.Required(namespace, "`parameters.scope` is set to 'Namespace'")
	case params.GetScope() == scopeNamespace:
		c.Each(namespace, params.GetNamespace(), validation.IsDNS1123Label(params.GetNamespace()))
	}
}
