package admission

import "context"

// gatewayLockout refuses an access list of the gateways that would lock out its writer or nodes of
// the cluster.
type gatewayLockout struct {
	restrict func(ctx context.Context, a *Attributes) error
}

// Name is how messages name the plug-in.
func (gatewayLockout) Name() string { return "GatewayLockout" }

// Validate looks at the list as it will be stored.
func (p gatewayLockout) Validate(ctx context.Context, a *Attributes) error { return p.restrict(ctx, a) }
