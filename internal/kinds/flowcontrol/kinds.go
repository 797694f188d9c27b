// Package flowcontrol has the kinds of the group flowcontrol.apiserver.k8s.io.
package flowcontrol

import (
	"github.com/xebec-project/xebec/internal/scheme"
	flowcontrolv1 "github.com/xebec-project/xebec/proto/xebec/flowcontrol/v1"
)

// group is the API group.
const group = "flowcontrol.apiserver.k8s.io"

// Kinds are the kinds of the group flowcontrol.apiserver.k8s.io, by name.
var Kinds = []*scheme.Kind{
	{
		Group: group, Version: "v1", Name: "FlowSchema", Plural: "flowschemas", Singular: "flowschema",
		Subresources: scheme.StatusOnly,
		New:          func() scheme.Object { return new(flowcontrolv1.FlowSchema) },
		Columns:      flowSchemaColumns, Rules: flowSchemaRules,
	},
	{
		Group: group, Version: "v1", Name: "PriorityLevelConfiguration",
		Plural: "prioritylevelconfigurations", Singular: "prioritylevelconfiguration",
		Subresources: scheme.StatusOnly,
		New:          func() scheme.Object { return new(flowcontrolv1.PriorityLevelConfiguration) },
		Columns:      priorityLevelColumns, Rules: priorityLevelRules,
	},
}
