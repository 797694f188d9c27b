package schema

import (
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation/field"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// immutable is the detail of the error about an immutable field that changed.
const immutable = "field is immutable"

// ValidateUpdate returns the immutable fields in which a message differs from the one that it
// replaces, in the order of the protos. A field that was not set may not be set either. Elements of
// a list with keys (LIST_TYPE_MAP) are compared with those of the same keys: elements may come and
// go. Below other lists and below maps nothing is compared: the field that holds them can be
// immutable as a whole. Paths begin at root, which may be nil.
func ValidateUpdate(root *field.Path, updated, old proto.Message) field.ErrorList {
	w := &updateWalker{at: place{root: root}}
	w.message(updated.ProtoReflect(), old.ProtoReflect())
	return w.errs
}

// updateWalker walks two states of one object.
type updateWalker struct {
	at   place
	errs field.ErrorList
}

func (w *updateWalker) message(updated, old protoreflect.Message) {
	d := updated.Descriptor()
	if !leadsToImmutable(d) {
		return
	}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if RulesOf(f).GetInline() {
			w.field(f, updated, old)
			continue
		}
		w.at.push(f.JSONName())
		w.field(f, updated, old)
		w.at.pop()
	}
}

func (w *updateWalker) field(f protoreflect.FieldDescriptor, updated, old protoreflect.Message) {
	rules := RulesOf(f)
	switch {
	case rules.GetImmutable():
		if updated.Has(f) != old.Has(f) || updated.Has(f) && !updated.Get(f).Equal(old.Get(f)) {
			w.errs = append(w.errs, field.Invalid(w.at.path(), shown(updated, f), immutable))
		}
	case f.Message() == nil || f.IsMap():
	case f.IsList():
		if rules.GetListType() == metav1.ListType_LIST_TYPE_MAP {
			w.elements(rules.GetListMapKeys(), updated.Get(f).List(), old.Get(f).List())
		}
	case updated.Has(f) && old.Has(f):
		w.message(updated.Get(f).Message(), old.Get(f).Message())
	}
}

func (w *updateWalker) elements(keys []string, updated, old protoreflect.List) {
	for i := range updated.Len() {
		now := updated.Get(i).Message()
		if !leadsToImmutable(now.Descriptor()) {
			return
		}
		for j := range old.Len() {
			if before := old.Get(j).Message(); sameKeys(keys, now, before) {
				w.at.pushIndex(i)
				w.message(now, before)
				w.at.pop()
				break
			}
		}
	}
}

func sameKeys(keys []string, a, b protoreflect.Message) bool {
	for _, key := range keys {
		f := a.Descriptor().Fields().ByJSONName(key)
		if f == nil || !a.Get(f).Equal(b.Get(f)) {
			return false
		}
	}
	return true
}

// shown is the value of a field as errors show it, nil when it is not set.
func shown(m protoreflect.Message, f protoreflect.FieldDescriptor) any {
	switch {
	case !m.Has(f):
		return nil
	case f.IsList(), f.IsMap(), f.Message() != nil:
		return field.OmitValueType{}
	}
	return m.Get(f).Interface()
}

// immutables caches leadsToImmutable by message descriptor.
var immutables sync.Map

// leadsToImmutable reports whether a message or one below it has an immutable field.
func leadsToImmutable(d protoreflect.MessageDescriptor) bool {
	if known, ok := immutables.Load(d); ok {
		return known.(bool)
	}
	leads := searchImmutable(d, map[protoreflect.FullName]bool{})
	immutables.Store(d, leads)
	return leads
}

// searchImmutable is leadsToImmutable without the messages in seen, which are being searched.
func searchImmutable(d protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if seen[d.FullName()] {
		return false
	}
	seen[d.FullName()] = true
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if RulesOf(f).GetImmutable() || f.Message() != nil && !f.IsMap() && searchImmutable(f.Message(), seen) {
			return true
		}
	}
	return false
}
