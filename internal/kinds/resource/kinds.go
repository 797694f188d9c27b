// Package resource has the kinds of the group resource.k8s.io: devices, and claims for them.
package resource

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xebec-project/xebec/internal/scheme"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

// Kinds are the kinds of the group resource.k8s.io, by name.
var Kinds = []*scheme.Kind{
	{
		Group: "resource.k8s.io", Version: "v1", Name: "DeviceClass", Plural: "deviceclasses", Singular: "deviceclass",
		New:     func() scheme.Object { return new(resourcev1.DeviceClass) },
		Columns: deviceClassColumns, Rules: deviceClassRules,
	},
	{
		Group: "resource.k8s.io", Version: "v1", Name: "ResourceClaim", Plural: "resourceclaims", Singular: "resourceclaim",
		Namespaced: true, Subresources: scheme.StatusOnly,
		New:     func() scheme.Object { return new(resourcev1.ResourceClaim) },
		Columns: resourceClaimColumns, Rules: resourceClaimRules,
	},
	{
		Group: "resource.k8s.io", Version: "v1", Name: "ResourceClaimTemplate",
		Plural: "resourceclaimtemplates", Singular: "resourceclaimtemplate", Namespaced: true,
		New:     func() scheme.Object { return new(resourcev1.ResourceClaimTemplate) },
		Columns: resourceClaimTemplateColumns, Rules: resourceClaimTemplateRules,
	},
	{
		Group: "resource.k8s.io", Version: "v1", Name: "ResourceSlice", Plural: "resourceslices", Singular: "resourceslice",
		New:     func() scheme.Object { return new(resourcev1.ResourceSlice) },
		Columns: resourceSliceColumns, Rules: resourceSliceRules,
		Fields: map[string][]protowire.Number{"spec.driver": {2, 1}, "spec.nodeName": {2, 3}},
	},
}
