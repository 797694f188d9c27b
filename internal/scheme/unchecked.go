package scheme

import "k8s.io/apimachinery/pkg/util/validation/field"

// Unchecked are the rules of a kind that a client learned of from the server, which applies the
// rules itself: they change and refuse nothing.
type Unchecked struct{}

// PrepareCreate implements Rules.
func (Unchecked) PrepareCreate(Object) {}

// PrepareUpdate implements Rules.
func (Unchecked) PrepareUpdate(_, _ Object) {}

// PrepareStatusUpdate implements Rules.
func (Unchecked) PrepareStatusUpdate(_, _ Object) {}

// Default implements Rules.
func (Unchecked) Default(Object) {}

// Validate implements Rules.
func (Unchecked) Validate(*Kind, Object) field.ErrorList { return nil }

// ValidateNew implements Rules.
func (Unchecked) ValidateNew(Object) field.ErrorList { return nil }

// ValidateUpdate implements Rules.
func (Unchecked) ValidateUpdate(_, _ Object) field.ErrorList { return nil }

// ValidateStatusUpdate implements Rules.
func (Unchecked) ValidateStatusUpdate(_, _ Object) field.ErrorList { return nil }

// Warnings implements Rules.
func (Unchecked) Warnings(Object) []string { return nil }
