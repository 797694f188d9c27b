package scheduling

import (
	"github.com/xebec-project/xebec/internal/scheme"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
)

// Kinds are the kinds of the group scheduling.k8s.io, by version and name.
var Kinds = []*scheme.Kind{
	{
		Group: "scheduling.k8s.io", Version: "v1", Name: "PriorityClass", Plural: "priorityclasses", Singular: "priorityclass",
		ShortNames: []string{"pc"},
		New:        func() scheme.Object { return new(schedulingv1.PriorityClass) },
		Columns:    priorityClassColumns, Rules: priorityClassRules,
	},
	{
		Group: "scheduling.k8s.io", Version: "v1alpha2", Name: "PodGroup", Plural: "podgroups", Singular: "podgroup",
		Namespaced: true, Subresources: scheme.StatusOnly,
		New:     func() scheme.Object { return new(schedulingv1alpha2.PodGroup) },
		Columns: podGroupColumns, Rules: podGroupRules,
	},
	{
		Group: "scheduling.k8s.io", Version: "v1alpha2", Name: "Workload", Plural: "workloads", Singular: "workload",
		Namespaced: true,
		New:        func() scheme.Object { return new(schedulingv1alpha2.Workload) },
		Columns:    workloadColumns, Rules: workloadRules,
	},
}
