// Package rules has what the rules of all kinds share: metadata, defaults and checks that the
// schema states, status and generation. For builds the rules of a kind from what is particular to
// it.
package rules

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/schema"
	"github.com/xebec-project/xebec/internal/scheme"
)

var _ scheme.Rules = For[scheme.Object]{}

// For implements scheme.Rules for the kind with message T. It handles what all kinds share:
// metadata, status and generation. The functions add what is particular to the kind; each may be
// nil except name.
type For[T scheme.Object] struct {
	// name returns what is wrong with a name of this kind.
	Name func(string) []string
	// defaults sets defaults that depend on other fields, after those of the schema.
	Defaults func(T)
	// check checks the rules that span fields, other than those of the metadata.
	Check func(T, *Checker)
	// checkNew refuses fields that only an existing object may have.
	CheckNew func(T, *Checker)
	// checkUpdate and checkStatus take the new object first.
	CheckUpdate func(new, old T, c *Checker)
	CheckStatus func(new, old T, c *Checker)
	// create and update run after the shared preparation.
	Create func(T)
	Update func(new, old T)
	// prepareStatus runs after the shared preparation of a write of the status.
	PrepareStatus func(new, old T)
	// warn returns warnings about values that have no effect.
	Warn func(T) []string
	// Generation gives objects a generation although the kind has no status, as Kubernetes does.
	Generation bool
	// keepsStatus lets the creator set the status, as a node does when it registers itself.
	KeepsStatus bool
}

// Default implements scheme.Rules.
func (r For[T]) Default(o scheme.Object) {
	schema.Default(o)
	if r.Defaults != nil {
		r.Defaults(o.(T))
	}
}

// Validate implements scheme.Rules.
func (r For[T]) Validate(k *scheme.Kind, o scheme.Object) field.ErrorList {
	c := &Checker{}
	c.metadata(o.GetMetadata(), k.Namespaced, r.Name)
	if r.KeepsStatus {
		c.List = append(c.List, schema.Validate(nil, o)...)
	} else {
		c.List = append(c.List, schema.Validate(nil, o, "status")...)
	}
	if r.Check != nil {
		r.Check(o.(T), c)
	}
	return c.List
}

// ValidateNew implements scheme.Rules.
func (r For[T]) ValidateNew(o scheme.Object) field.ErrorList {
	c := &Checker{}
	if r.CheckNew != nil {
		r.CheckNew(o.(T), c)
	}
	return c.List
}

// ValidateUpdate implements scheme.Rules.
func (r For[T]) ValidateUpdate(new, old scheme.Object) field.ErrorList {
	c := &Checker{}
	c.metadataUpdate(new.GetMetadata(), old.GetMetadata())
	c.List = append(c.List, schema.ValidateUpdate(nil, new, old)...)
	if r.CheckUpdate != nil {
		r.CheckUpdate(new.(T), old.(T), c)
	}
	return c.List
}

// ValidateStatusUpdate implements scheme.Rules.
func (r For[T]) ValidateStatusUpdate(new, old scheme.Object) field.ErrorList {
	c := &Checker{}
	c.metadataUpdate(new.GetMetadata(), old.GetMetadata())
	if m := new.ProtoReflect(); statusField(m) != nil {
		c.List = append(c.List, schema.Validate(field.NewPath("status"), m.Get(statusField(m)).Message().Interface())...)
	}
	if r.CheckStatus != nil {
		r.CheckStatus(new.(T), old.(T), c)
	}
	return c.List
}

// PrepareCreate implements scheme.Rules.
func (r For[T]) PrepareCreate(o scheme.Object) {
	m := o.ProtoReflect()
	if f := statusField(m); f != nil && !r.KeepsStatus {
		m.Clear(f)
	}
	if meta := o.GetMetadata(); meta != nil {
		meta.Generation = 0
		if r.Generation || hasGeneration(m) {
			meta.Generation = 1
		}
	}
	if r.Create != nil {
		r.Create(o.(T))
	}
}

// PrepareUpdate implements scheme.Rules.
func (r For[T]) PrepareUpdate(new, old scheme.Object) {
	m := new.ProtoReflect()
	if f := statusField(m); f != nil {
		m.Clear(f)
		if from := old.ProtoReflect(); from.Has(f) {
			m.Set(f, protoreflect.ValueOfMessage(proto.Clone(from.Get(f).Message().Interface()).ProtoReflect()))
		}
	}
	if r.Update != nil {
		r.Update(new.(T), old.(T))
	}
	if meta := new.GetMetadata(); meta != nil {
		meta.Generation = old.GetMetadata().GetGeneration()
		if (r.Generation || hasGeneration(m)) && wantedChanged(m, old.ProtoReflect()) {
			meta.Generation++
		}
	}
}

// PrepareStatusUpdate implements scheme.Rules.
func (r For[T]) PrepareStatusUpdate(new, old scheme.Object) {
	m := new.ProtoReflect()
	status := statusField(m)
	if status == nil {
		return
	}
	version := new.GetMetadata().GetResourceVersion()
	kept := m.Get(status)
	had := m.Has(status)
	fresh := proto.Clone(old).ProtoReflect()
	for _, f := range FieldsOf(m) {
		switch {
		case f == status:
		case fresh.Has(f):
			m.Set(f, fresh.Get(f))
		default:
			m.Clear(f)
		}
	}
	if had {
		m.Set(status, kept)
	}
	if r.PrepareStatus != nil {
		r.PrepareStatus(new.(T), old.(T))
	}
	if meta := new.GetMetadata(); meta != nil {
		meta.ResourceVersion = version
	}
}

// Warnings implements scheme.Rules.
func (r For[T]) Warnings(o scheme.Object) []string {
	if r.Warn == nil {
		return nil
	}
	return r.Warn(o.(T))
}

func statusField(m protoreflect.Message) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName("status")
}

// hasGeneration reports whether a controller acts on the object's spec and reports its progress by
// the generation.
func hasGeneration(m protoreflect.Message) bool {
	fields := m.Descriptor().Fields()
	return fields.ByName("spec") != nil && fields.ByName("status") != nil
}

// wantedChanged compares all but metadata and status.
func wantedChanged(a, b protoreflect.Message) bool {
	for _, f := range FieldsOf(a) {
		if f.Name() == "metadata" || f.Name() == "status" {
			continue
		}
		if a.Has(f) != b.Has(f) || a.Has(f) && !a.Get(f).Equal(b.Get(f)) {
			return true
		}
	}
	return false
}

// FieldsOf returns the fields of a message, set or not.
func FieldsOf(m protoreflect.Message) []protoreflect.FieldDescriptor {
	fields := m.Descriptor().Fields()
	out := make([]protoreflect.FieldDescriptor, fields.Len())
	for i := range out {
		out[i] = fields.Get(i)
	}
	return out
}
