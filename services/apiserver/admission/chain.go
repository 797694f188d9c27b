package admission

import (
	"context"

	"github.com/xebec-project/xebec/internal/authz"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
)

// Config is what the plug-ins need to know of the cluster.
type Config struct {
	// AccountMissing is called when a pod was admitted although the default service account of its
	// namespace is missing.
	AccountMissing func()
	// RestrictNode refuses what a node may not write.
	RestrictNode func(ctx context.Context, a *Attributes) error
	// RestrictLockout refuses an access list of the gateways that would lock out its writer or nodes.
	RestrictLockout func(ctx context.Context, a *Attributes) error
	// PriorityClasses returns all priority classes.
	PriorityClasses func(ctx context.Context) ([]*schedulingv1.PriorityClass, error)
	// Authorize checks a right of a caller.
	Authorize func(ctx context.Context, caller authz.Caller, a authz.Attributes) error
}

// New returns the chain of all plug-ins, in the order in which they run.
func New(cfg Config) Chain {
	return Chain{
		namespaceLifecycle{},
		serviceAccount{missing: cfg.AccountMissing},
		nodeRestriction{restrict: cfg.RestrictNode},
		priority{classes: cfg.PriorityClasses},
		runtimeClass{},
		signing{authorize: cfg.Authorize},
		deviceAdminAccess{},
		gatewayLockout{restrict: cfg.RestrictLockout},
	}
}

// Plugin takes part in admission as a Mutator, a Validator or both.
type Plugin interface {
	// Name is how messages name the plug-in.
	Name() string
}

// Mutator is a plug-in that may complete or refuse an object before it is validated.
type Mutator interface {
	Plugin
	// Mutate changes a.Object, if it has to. An error refuses the write, with an error of the API.
	Mutate(ctx context.Context, a *Attributes) error
}

// Validator is a plug-in that looks at a write as it will be stored.
type Validator interface {
	Plugin
	// Validate returns an error of the API when it refuses the write. It changes no object.
	Validate(ctx context.Context, a *Attributes) error
}

// Chain is the plug-ins in their order. All see every write.
type Chain []Plugin

// Mutate runs the mutators; the first error ends the write.
func (c Chain) Mutate(ctx context.Context, a *Attributes) error {
	for _, p := range c {
		if m, ok := p.(Mutator); ok {
			if err := m.Mutate(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// Validate runs the validators; the first error ends the write.
func (c Chain) Validate(ctx context.Context, a *Attributes) error {
	for _, p := range c {
		if v, ok := p.(Validator); ok {
			if err := v.Validate(ctx, a); err != nil {
				return err
			}
		}
	}
	return nil
}
