package admission

import "context"

// nodeRestriction refuses what a node may not write though it has a right to the object: labels
// that attract pods, addresses that are not its own, events about others.
type nodeRestriction struct {
	restrict func(ctx context.Context, a *Attributes) error
}

// Name is Kubernetes' name of it.
func (nodeRestriction) Name() string { return "NodeRestriction" }

// Mutate runs before validation, as in Kubernetes, and changes nothing.
func (p nodeRestriction) Mutate(ctx context.Context, a *Attributes) error { return p.restrict(ctx, a) }
