package kind

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/schema"
)

// rulesOf implements scheme.Rules for the kind with message T. It handles what all kinds share:
// metadata, status and generation. The functions add what is particular to the kind; each may be
// nil except name.
type rulesOf[T Object] struct {
	// name returns what is wrong with a name of this kind.
	name func(string) []string
	// defaults sets defaults that depend on other fields, after those of the schema.
	defaults func(T)
	// check checks the rules that span fields, other than those of the metadata.
	check func(T, *checker)
	// checkNew refuses fields that only an existing object may have.
	checkNew func(T, *checker)
	// checkUpdate and checkStatus take the new object first.
	checkUpdate func(new, old T, c *checker)
	checkStatus func(new, old T, c *checker)
	// create and update run after the shared preparation.
	create func(T)
	update func(new, old T)
	// warn returns warnings about values that have no effect.
	warn func(T) []string
	// keepsStatus lets the creator set the status, as a node does when it registers itself.
	keepsStatus bool
}

// Default implements scheme.Rules.
func (r rulesOf[T]) Default(o Object) {
	schema.Default(o)
	if r.defaults != nil {
		r.defaults(o.(T))
	}
}

// Validate implements scheme.Rules.
func (r rulesOf[T]) Validate(k *Kind, o Object) field.ErrorList {
	c := &checker{}
	c.metadata(o.GetMetadata(), k.Namespaced, r.name)
	if r.keepsStatus {
		c.list = append(c.list, schema.Validate(nil, o)...)
	} else {
		c.list = append(c.list, schema.Validate(nil, o, "status")...)
	}
	if r.check != nil {
		r.check(o.(T), c)
	}
	return c.list
}

// ValidateNew implements scheme.Rules.
func (r rulesOf[T]) ValidateNew(o Object) field.ErrorList {
	c := &checker{}
	if r.checkNew != nil {
		r.checkNew(o.(T), c)
	}
	return c.list
}

// ValidateUpdate implements scheme.Rules.
func (r rulesOf[T]) ValidateUpdate(new, old Object) field.ErrorList {
	c := &checker{}
	c.metadataUpdate(new.GetMetadata(), old.GetMetadata())
	c.list = append(c.list, schema.ValidateUpdate(nil, new, old)...)
	if r.checkUpdate != nil {
		r.checkUpdate(new.(T), old.(T), c)
	}
	return c.list
}

// ValidateStatusUpdate implements scheme.Rules.
func (r rulesOf[T]) ValidateStatusUpdate(new, old Object) field.ErrorList {
	c := &checker{}
	c.metadataUpdate(new.GetMetadata(), old.GetMetadata())
	if m := new.ProtoReflect(); statusField(m) != nil {
		c.list = append(c.list, schema.Validate(field.NewPath("status"), m.Get(statusField(m)).Message().Interface())...)
	}
	if r.checkStatus != nil {
		r.checkStatus(new.(T), old.(T), c)
	}
	return c.list
}

// PrepareCreate implements scheme.Rules.
func (r rulesOf[T]) PrepareCreate(o Object) {
	m := o.ProtoReflect()
	if f := statusField(m); f != nil && !r.keepsStatus {
		m.Clear(f)
	}
	if meta := o.GetMetadata(); meta != nil {
		meta.Generation = 0
		if hasGeneration(m) {
			meta.Generation = 1
		}
	}
	if r.create != nil {
		r.create(o.(T))
	}
}

// PrepareUpdate implements scheme.Rules.
func (r rulesOf[T]) PrepareUpdate(new, old Object) {
	m := new.ProtoReflect()
	if f := statusField(m); f != nil {
		m.Clear(f)
		if from := old.ProtoReflect(); from.Has(f) {
			m.Set(f, protoreflect.ValueOfMessage(proto.Clone(from.Get(f).Message().Interface()).ProtoReflect()))
		}
	}
	if r.update != nil {
		r.update(new.(T), old.(T))
	}
	if meta := new.GetMetadata(); meta != nil {
		meta.Generation = old.GetMetadata().GetGeneration()
		if hasGeneration(m) && wantedChanged(m, old.ProtoReflect()) {
			meta.Generation++
		}
	}
}

// PrepareStatusUpdate implements scheme.Rules.
func (r rulesOf[T]) PrepareStatusUpdate(new, old Object) {
	m := new.ProtoReflect()
	status := statusField(m)
	if status == nil {
		return
	}
	version := new.GetMetadata().GetResourceVersion()
	kept := m.Get(status)
	had := m.Has(status)
	fresh := proto.Clone(old).ProtoReflect()
	for _, f := range fieldsOf(m) {
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
	if meta := new.GetMetadata(); meta != nil {
		meta.ResourceVersion = version
	}
}

// Warnings implements scheme.Rules.
func (r rulesOf[T]) Warnings(o Object) []string {
	if r.warn == nil {
		return nil
	}
	return r.warn(o.(T))
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
	for _, f := range fieldsOf(a) {
		if f.Name() == "metadata" || f.Name() == "status" {
			continue
		}
		if a.Has(f) != b.Has(f) || a.Has(f) && !a.Get(f).Equal(b.Get(f)) {
			return true
		}
	}
	return false
}

func fieldsOf(m protoreflect.Message) []protoreflect.FieldDescriptor {
	fields := m.Descriptor().Fields()
	out := make([]protoreflect.FieldDescriptor, fields.Len())
	for i := range out {
		out[i] = fields.Get(i)
	}
	return out
}
