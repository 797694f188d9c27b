package node

import (
	"github.com/xebec-project/xebec/internal/scheme"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// Kinds are the kinds of the group node.k8s.io, by name.
var Kinds = []*scheme.Kind{
	{
		Group: "node.k8s.io", Version: "v1", Name: "RuntimeClass", Plural: "runtimeclasses", Singular: "runtimeclass",
		New:     func() scheme.Object { return new(nodev1.RuntimeClass) },
		Columns: runtimeClassColumns, Rules: runtimeClassRules,
	},
}
