package gateway

import (
	"github.com/xebec-project/xebec/internal/scheme"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
)

// Kinds are the kinds of the group gateway.xebec.io, by name.
var Kinds = []*scheme.Kind{
	{
		Group: GroupGateway, Version: "v1", Name: "GatewayAccess", Plural: "gatewayaccesses", Singular: "gatewayaccess",
		ShortNames: []string{"gwa"},
		New:        func() scheme.Object { return new(gatewayv1.GatewayAccess) },
		Columns:    gatewayAccessColumns, Rules: gatewayAccessRules,
	},
}
