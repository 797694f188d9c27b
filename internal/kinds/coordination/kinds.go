package coordination

import (
	"github.com/xebec-project/xebec/internal/scheme"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
)

// Kinds are the kinds of the group coordination.k8s.io, by name.
var Kinds = []*scheme.Kind{
	{
		Group: "coordination.k8s.io", Version: "v1", Name: "Lease", Plural: "leases", Singular: "lease",
		Namespaced: true,
		New:        func() scheme.Object { return new(coordinationv1.Lease) },
		Columns:    leaseColumns, Rules: leaseRules,
	},
}
