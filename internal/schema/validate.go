package schema

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// Validate returns an error for each broken rule of the fields of a message and of all messages
// below it, in the order of the protos. Paths begin at root, which may be nil. Fields of the
// message itself that except names are skipped.
func Validate(root *field.Path, m proto.Message, except ...protoreflect.Name) field.ErrorList {
	w := &walker{at: place{root: root}, except: except}
	w.message(planOf(m.ProtoReflect().Descriptor()), m.ProtoReflect())
	return w.errs
}

// walker validates one object.
type walker struct {
	at     place
	except []protoreflect.Name
	errs   field.ErrorList
}

func (w *walker) add(err *field.Error) { w.errs = append(w.errs, err) }

func (w *walker) message(p *plan, m protoreflect.Message) {
	top := len(w.at.elements) == 0 && len(w.except) > 0
	if len(p.oneOf) > 0 && !w.oneOf(p, m) {
		return
	}
	for _, s := range p.checks {
		if top && slices.Contains(w.except, s.field.Name()) {
			continue
		}
		if s.name == "" {
			// An absent message breaks the rule that exactly one of its fields is set.
			if m.Has(s.field) || len(s.below.oneOf) > 0 {
				w.message(s.below, m.Get(s.field).Message())
			}
			continue
		}
		w.at.push(s.name)
		w.field(s, m)
		w.at.pop()
	}
}

// oneOf checks that exactly one of the plan's fields is set; false when none is.
func (w *walker) oneOf(p *plan, m protoreflect.Message) bool {
	found := false
	for _, f := range p.oneOf {
		if !m.Has(f) {
			continue
		}
		if found {
			w.at.push(f.JSONName())
			w.add(field.Forbidden(w.at.path(), p.further))
			w.at.pop()
		}
		found = true
	}
	if !found {
		w.add(field.Required(w.at.path(), p.missing))
	}
	return found
}

func (w *walker) field(s *step, m protoreflect.Message) {
	has := m.Has(s.field)
	r := s.rules
	if why := r.GetRefused(); why != "" {
		if has {
			w.add(&field.Error{Type: field.ErrorTypeNotSupported, Field: w.at.path().String(), BadValue: s.name, Detail: why})
		}
		return
	}
	if !has && r.GetRequired() {
		w.add(field.Required(w.at.path(), r.GetRequiredDetail()))
		return
	}
	// The bounds of a number without presence hold for 0 too.
	if !has && (s.field.HasPresence() || !r.GetCheckEmpty() && s.shape != shapeNumber) {
		return
	}
	switch s.shape {
	case shapeString:
		w.checkText(s, m.Get(s.field).String())
	case shapeNumber:
		w.checkNumber(s, m.Get(s.field).Int())
	case shapeMessage:
		w.message(s.below, m.Get(s.field).Message())
	case shapeLeaf:
		w.leaf(s, m.Get(s.field).Message())
	case shapeStrings, shapeNumbers, shapeMessages:
		w.list(s, m.Get(s.field).List())
	case shapeMap:
		w.checkMap(s, m.Get(s.field).Map())
	}
}

func (w *walker) list(s *step, list protoreflect.List) {
	if n := int(s.rules.GetMaxItems()); n > 0 && list.Len() > n {
		w.add(field.TooMany(w.at.path(), list.Len(), n))
		return
	}
	var seen map[string]bool
	if len(s.rules.GetUnique()) > 0 && list.Len() > 1 {
		seen = make(map[string]bool, list.Len())
	}
	for i := range list.Len() {
		w.at.pushIndex(i)
		switch s.shape {
		case shapeStrings:
			w.checkText(s, list.Get(i).String())
		case shapeNumbers:
			w.checkNumber(s, list.Get(i).Int())
		default:
			if s.below.validates() {
				w.message(s.below, list.Get(i).Message())
			}
		}
		if seen != nil {
			w.unique(s, list.Get(i), seen)
		}
		w.at.pop()
	}
}

// unique checks an element of a list against those before it. Elements without any of the fields
// are not compared.
func (w *walker) unique(s *step, v protoreflect.Value, seen map[string]bool) {
	if len(s.unique) == 0 {
		if text := v.String(); seen[text] {
			w.add(field.Duplicate(w.at.path(), v.Interface()))
		} else {
			seen[text] = true
		}
		return
	}
	var b strings.Builder
	set := false
	for i, f := range s.unique {
		if i > 0 {
			b.WriteByte('/')
		}
		set = set || v.Message().Has(f)
		b.WriteString(v.Message().Get(f).String())
	}
	if !set {
		return
	}
	text := b.String()
	if seen[text] {
		if len(s.unique) == 1 {
			w.at.push(s.unique[0].JSONName())
			defer w.at.pop()
		}
		w.add(field.Duplicate(w.at.path(), text))
	}
	seen[text] = true
}

func (w *walker) checkMap(s *step, m protoreflect.Map) {
	if m.Len() == 0 || s.check.key == nil && s.check.text == nil && !s.below.validates() {
		return
	}
	keys := make([]string, 0, m.Len())
	m.Range(func(key protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, key.String())
		return true
	})
	slices.Sort(keys)
	// Kubernetes reports wrong labels at the map, and other keys at themselves.
	atKey := s.rules.GetKeyFormat() == metav1.Format_FORMAT_CONFIG_KEY
	for _, key := range keys {
		if atKey {
			w.at.pushKey(key)
		}
		if s.check.key != nil {
			w.checkFormat(s.check.key, key)
		}
		if s.check.text != nil {
			w.checkFormat(s.check.text, m.Get(protoreflect.ValueOfString(key).MapKey()).String())
		}
		if atKey {
			w.at.pop()
		}
		if s.below.validates() {
			w.at.pushKey(key)
			w.message(s.below, m.Get(protoreflect.ValueOfString(key).MapKey()).Message())
			w.at.pop()
		}
	}
}

// leaf checks a message that is a single JSON value.
func (w *walker) leaf(s *step, m protoreflect.Message) {
	v, ok := m.Interface().(*metav1.IntOrString)
	if !ok {
		return
	}
	isText := v.GetType() == 1
	switch format := s.rules.GetFormat(); {
	case format == metav1.Format_FORMAT_PORT_OR_NAME && isText:
		w.checkFormat(validation.IsValidPortName, v.GetStrVal())
	case format == metav1.Format_FORMAT_PORT_OR_NAME:
		for _, problem := range validation.IsValidPortNum(int(v.GetIntVal())) {
			w.add(field.Invalid(w.at.path(), v.GetIntVal(), problem))
		}
	case format == metav1.Format_FORMAT_COUNT_OR_PERCENT && isText:
		w.checkFormat(validation.IsValidPercent, v.GetStrVal())
	case format == metav1.Format_FORMAT_COUNT_OR_PERCENT && v.GetIntVal() < 0:
		w.add(field.Invalid(w.at.path(), v.GetIntVal(), "must be greater than or equal to 0"))
	}
}
