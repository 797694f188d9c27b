package apps

import (
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/codec/tree"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/rules"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
)

// Labels that have the hash of a ControllerRevision: of the revision itself, and of pods that were
// made from it. Pods of a StatefulSet have the name of the revision instead.
const (
	LabelRevisionHash       = "controller.kubernetes.io/hash"
	LabelControllerRevision = "controller-revision-hash"
)

var (
	controllerRevisionRules = rules.For[*appsv1.ControllerRevision]{
		Name: rules.NameIsSubdomain,
		// Data never changes, so that it is checked when the revision is created.
		CheckNew: checkRevisionData,
	}
	controllerRevisionColumns = []scheme.Column{
		column.New("CONTROLLER", revisionController),
		column.At(".revision", column.New("REVISION", func(r *appsv1.ControllerRevision) string {
			return strconv.FormatInt(r.GetRevision(), 10)
		})),
		column.AgeColumn,
	}
)

func checkRevisionData(r *appsv1.ControllerRevision, c *rules.Checker) {
	p, raw := field.NewPath("data"), r.GetData().GetRaw()
	if len(raw) == 0 {
		c.Required(p, "data is mandatory")
		return
	}
	n, err := tree.ParseJSON(raw)
	switch {
	case err != nil:
		c.Invalid(p, "<value omitted>", "error parsing data: "+err.Error())
	case n.Kind == tree.Null:
		c.Required(p, "data is mandatory")
	case n.Kind != tree.Map:
		c.Required(p, "data must be a valid JSON object")
	}
}

// revisionController is the controller of a revision as daemonset.apps/NAME.
func revisionController(r *appsv1.ControllerRevision) string {
	for _, ref := range r.GetMetadata().GetOwnerReferences() {
		if !ref.GetController() {
			continue
		}
		kind := ref.GetKind()
		if group, _, ok := strings.Cut(ref.GetApiVersion(), "/"); ok {
			kind += "." + group
		}
		return strings.ToLower(kind) + "/" + ref.GetName()
	}
	return column.None
}
