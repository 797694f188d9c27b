// Package node has the kinds of the group node.k8s.io.
package node

import (
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

var (
	runtimeClassRules = rules.For[*nodev1.RuntimeClass]{
		Name:  rules.NameIsSubdomain,
		Check: checkRuntimeClass,
	}
	runtimeClassColumns = []scheme.Column{
		column.At(".handler", column.New("HANDLER", (*nodev1.RuntimeClass).GetHandler)),
		column.AgeColumn,
	}
)

func checkRuntimeClass(r *nodev1.RuntimeClass, c *rules.Checker) {
	if o := r.GetOverhead(); o != nil {
		core.CheckResources(c, field.NewPath("overhead"), &corev1.ResourceRequirements{Limits: o.GetPodFixed()})
	}
	at, tolerations := field.NewPath("scheduling", "tolerations"), r.GetScheduling().GetTolerations()
	core.CheckTolerations(c, at, tolerations)
	type key struct{ key, operator, value, effect string }
	seen := make(map[key]bool, len(tolerations))
	for i, t := range tolerations {
		k := key{t.GetKey(), t.GetOperator(), t.GetValue(), t.GetEffect()}
		if seen[k] {
			c.Add(field.Duplicate(at.Index(i), field.OmitValueType{}))
		}
		seen[k] = true
	}
}
