package discovery

import (
	"github.com/xebec-project/xebec/internal/scheme"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// Kinds are the kinds of the group discovery.k8s.io, by name.
var Kinds = []*scheme.Kind{
	{
		Group: "discovery.k8s.io", Version: "v1", Name: "EndpointSlice", Plural: "endpointslices", Singular: "endpointslice",
		Namespaced:   true,
		Subresources: endpointSliceSubresources,
		New:          func() scheme.Object { return new(discoveryv1.EndpointSlice) },
		Columns:      endpointSliceColumns, Rules: endpointSliceRules,
	},
}

var endpointSliceSubresources = []scheme.Subresource{{Name: "acknowledgement", Verbs: []string{"update"}}}
