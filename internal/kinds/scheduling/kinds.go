package scheduling

import (
	"github.com/xebec-project/xebec/internal/scheme"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
)

// Kinds are the kinds of the group scheduling.k8s.io, by name.
var Kinds = []*scheme.Kind{
	{
		Group: "scheduling.k8s.io", Version: "v1", Name: "PriorityClass", Plural: "priorityclasses", Singular: "priorityclass",
		ShortNames: []string{"pc"},
		New:        func() scheme.Object { return new(schedulingv1.PriorityClass) },
		Columns:    priorityClassColumns, Rules: priorityClassRules,
	},
}
