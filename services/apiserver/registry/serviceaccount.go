package registry

import (
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
)

// serviceAccountStrategy reports the removal of default accounts, which are created again.
type serviceAccountStrategy struct {
	Generic
	removed func()
}

// Removed reports a default account.
func (s serviceAccountStrategy) Removed(o scheme.Object) {
	if o.GetMetadata().GetName() == core.DefaultServiceAccount {
		s.removed()
	}
}
