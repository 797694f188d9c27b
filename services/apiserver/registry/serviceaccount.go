package registry

import "github.com/xebec-project/xebec/internal/kind"

// serviceAccountStrategy reports the removal of default accounts, which are created again.
type serviceAccountStrategy struct {
	Generic
	removed func()
}

// Removed reports a default account.
func (s serviceAccountStrategy) Removed(o kind.Object) {
	if o.GetMetadata().GetName() == kind.DefaultServiceAccount {
		s.removed()
	}
}
