package scheme

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Scale says where objects of a kind hold their number of replicas. Paths are JSONPaths without
// braces and lead through messages only: .spec.replicas.
type Scale struct {
	// Replicas is the wanted number, and StatusReplicas the present one.
	Replicas, StatusReplicas string
	// Selector is the selector of the pods that are counted, as text, as a map of labels or as a
	// LabelSelector; empty when there is none.
	Selector string
}

// Replicas returns the wanted number of replicas of an object of a kind with a Scale; 0 when it is
// not set.
func (k *Kind) Replicas(o Object) int32 { return k.number(o, k.Scale.Replicas) }

// StatusReplicas returns the present number of replicas of an object of a kind with a Scale; 0 when
// it is not set.
func (k *Kind) StatusReplicas(o Object) int32 { return k.number(o, k.Scale.StatusReplicas) }

func (k *Kind) number(o Object, path string) int32 {
	v, ok := valueAt(o.ProtoReflect(), path)
	if !ok {
		return 0
	}
	return int32(v.Int())
}

// SetReplicas sets the wanted number of replicas of an object of a kind with a Scale.
func (k *Kind) SetReplicas(o Object, n int32) {
	m, names := o.ProtoReflect(), strings.Split(k.Scale.Replicas[1:], ".")
	last := len(names) - 1
	for _, name := range names[:last] {
		m = m.Mutable(m.Descriptor().Fields().ByJSONName(name)).Message()
	}
	m.Set(m.Descriptor().Fields().ByJSONName(names[last]), protoreflect.ValueOfInt32(n))
}

// Selector returns the selector of an object of a kind with a Scale, a string, a map or a message;
// false when there is none.
func (k *Kind) Selector(o Object) (protoreflect.Value, bool) {
	if k.Scale.Selector == "" {
		return protoreflect.Value{}, false
	}
	return valueAt(o.ProtoReflect(), k.Scale.Selector)
}

func valueAt(m protoreflect.Message, path string) (protoreflect.Value, bool) {
	names := strings.Split(path[1:], ".")
	for i, name := range names {
		f := m.Descriptor().Fields().ByJSONName(name)
		if !m.Has(f) {
			return protoreflect.Value{}, false
		}
		if i == len(names)-1 {
			return m.Get(f), true
		}
		m = m.Get(f).Message()
	}
	return protoreflect.Value{}, false
}

// checkScale returns what makes the Scale of a kind unusable.
func (k *Kind) checkScale() error {
	if k.HasSubresource("scale") != (k.Scale != nil) {
		return errors.New("a kind has the subresource scale and a Scale, or neither")
	}
	if k.Scale == nil {
		return nil
	}
	d := k.New().ProtoReflect().Descriptor()
	for _, path := range []string{k.Scale.Replicas, k.Scale.StatusReplicas} {
		f, err := fieldAt(d, path)
		if err != nil {
			return err
		}
		if f.Kind() != protoreflect.Int32Kind || f.IsList() {
			return fmt.Errorf("scale: %s is no int32", path)
		}
	}
	if k.Scale.Selector == "" {
		return nil
	}
	f, err := fieldAt(d, k.Scale.Selector)
	isText := err == nil && (f.Kind() == protoreflect.StringKind || f.IsMap() && f.MapValue().Kind() == protoreflect.StringKind)
	if err == nil && (f.IsList() || !isText && (f.IsMap() || f.Message() == nil)) {
		err = fmt.Errorf("scale: %s is neither text nor labels nor a message", k.Scale.Selector)
	}
	return err
}

func fieldAt(d protoreflect.MessageDescriptor, path string) (protoreflect.FieldDescriptor, error) {
	rest, ok := strings.CutPrefix(path, ".")
	if !ok {
		return nil, fmt.Errorf("scale: path %q: want one such as .spec.replicas", path)
	}
	names := strings.Split(rest, ".")
	for i, name := range names {
		f := d.Fields().ByJSONName(name)
		switch {
		case f == nil:
			return nil, fmt.Errorf("scale: path %s: %s has no field %q", path, d.FullName(), name)
		case i == len(names)-1:
			return f, nil
		case f.Message() == nil || f.IsList() || f.IsMap():
			return nil, fmt.Errorf("scale: path %s: %s is no message", path, name)
		}
		d = f.Message()
	}
	return nil, fmt.Errorf("scale: path %q is empty", path)
}
