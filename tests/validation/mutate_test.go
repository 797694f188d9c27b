package validation_test

import (
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// mutation is an object that differs from a valid one in one place.
type mutation struct {
	// what is the place and the change.
	what string
	// rule is the rule that the change breaks, and path the place; both are empty for other changes.
	// See rules_test.go.
	rule, path string
	object     map[string]any
}

// mutator makes mutations of one object, by the descriptor of its message.
type mutator struct {
	root map[string]any
	// skip are the places below which nothing is changed.
	skip  []string
	yield func(mutation) bool
}

// mutations returns all mutations of an object: each field is removed, set to values of its type,
// and set to values that break its rules. The object of a mutation is valid until the next one.
func mutations(message protoreflect.MessageDescriptor, object map[string]any, skip ...string) iter.Seq[mutation] {
	return func(yield func(mutation) bool) {
		(&mutator{root: object, skip: skip, yield: yield}).message(message, "", object)
	}
}

func rulesOf(f protoreflect.FieldDescriptor) *metav1.FieldRules {
	rules, _ := proto.GetExtension(f.Options(), metav1.E_Field).(*metav1.FieldRules)
	return rules
}

func messageRulesOf(m protoreflect.MessageDescriptor) *metav1.MessageRules {
	rules, _ := proto.GetExtension(m.Options(), metav1.E_Message).(*metav1.MessageRules)
	return rules
}

func formOf(m protoreflect.MessageDescriptor) metav1.JsonForm { return messageRulesOf(m).GetJsonForm() }

func (m *mutator) message(d protoreflect.MessageDescriptor, at string, object map[string]any) {
	m.oneOf(d, at, object)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		rules := rulesOf(f)
		if rules.GetInline() {
			m.message(f.Message(), at, object)
			continue
		}
		path := strings.TrimPrefix(at+"."+f.JSONName(), ".")
		if slices.Contains(m.skip, path) || windows(f) || later(f) || at == "metadata" && ignoredMetadata[f.JSONName()] {
			continue
		}
		m.breakRules(f, path, object)
		value, set := object[f.JSONName()]
		if set {
			m.emit(path+" is removed", func() func() {
				delete(object, f.JSONName())
				return func() { object[f.JSONName()] = value }
			})
		}
		for _, candidate := range candidates(f, path, value) {
			m.set(fmt.Sprintf("%s is %.60v", path, candidate), object, f.JSONName(), candidate)
		}
		m.below(f, path, value)
	}
}

// ignoredMetadata is the metadata that the server owns.
var ignoredMetadata = map[string]bool{
	"managedFields": true, "selfLink": true, "uid": true, "resourceVersion": true, "generation": true,
	"creationTimestamp": true, "deletionTimestamp": true, "deletionGracePeriodSeconds": true, "generateName": true,
}

// below changes the value of a field that is set.
func (m *mutator) below(f protoreflect.FieldDescriptor, path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		switch {
		case f.IsMap() && isObject(f.MapValue().Message()):
			for _, key := range slices.Sorted(maps.Keys(v)) {
				if object, ok := v[key].(map[string]any); ok {
					m.message(f.MapValue().Message(), path+"["+key+"]", object)
				}
			}
		case !f.IsMap() && isObject(f.Message()):
			m.message(f.Message(), path, v)
		}
	case []any:
		for i, item := range v {
			at := fmt.Sprintf("%s[%d]", path, i)
			if object, ok := item.(map[string]any); ok && f.Message() != nil && isObject(f.Message()) {
				m.message(f.Message(), at, object)
				continue
			}
			for _, candidate := range pick(at, scalars(f), 6) {
				m.emit(fmt.Sprintf("%s is %.60v", at, candidate), func() func() {
					v[i] = candidate
					return func() { v[i] = item }
				})
			}
		}
	}
}

func isObject(d protoreflect.MessageDescriptor) bool {
	return d != nil && formOf(d) == metav1.JsonForm_JSON_FORM_UNSPECIFIED && strings.HasPrefix(string(d.FullName()), "xebec.")
}

func (m *mutator) set(what string, object map[string]any, name string, value any) {
	m.emit(what, func() func() {
		old, had := object[name]
		object[name] = value
		return func() {
			if object[name] = old; !had {
				delete(object, name)
			}
		}
	})
}

// emit adds the object as change makes it, and changes it back.
func (m *mutator) emit(what string, change func() (undo func())) {
	m.emitRule(what, "", "", change)
}

func (m *mutator) emitRule(what, rule, path string, change func() (undo func())) {
	undo := change()
	m.yield(mutation{what: what, rule: rule, path: path, object: m.root})
	undo()
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			out[key] = clone(value)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, value := range v {
			out[i] = clone(value)
		}
		return out
	}
	return v
}

// candidates are the values to which a field is set.
func candidates(f protoreflect.FieldDescriptor, path string, value any) []any {
	switch {
	case f.IsMap():
		return mapsOf(f, value)
	case f.IsList():
		list, _ := value.([]any)
		out := []any{[]any{}}
		if len(list) > 0 {
			out = append(out, append(slices.Clone(list), list[0]), list[1:])
			if f.Message() == nil {
				out = append(out, slices.Repeat(list[:1], 40))
			}
		} else if f.Message() == nil {
			for _, v := range pick(path, scalars(f), 4) {
				out = append(out, []any{v})
			}
		} else if isObject(f.Message()) {
			for _, v := range objects(f.Message()) {
				out = append(out, []any{v})
			}
		}
		return out
	case f.Message() != nil && isObject(f.Message()):
		if value != nil {
			return []any{map[string]any{}}
		}
		return objects(f.Message())
	}
	if value == nil {
		return pick(path, scalars(f), 3)
	}
	return pick(path, scalars(f), 10)
}

// objects are an empty object and one with each of its single fields.
func objects(d protoreflect.MessageDescriptor) []any {
	out := []any{map[string]any{}}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if f.IsList() || f.IsMap() || isObject(f.Message()) || windows(f) || later(f) {
			continue
		}
		for _, v := range pick(string(f.FullName()), scalars(f), 2) {
			out = append(out, map[string]any{f.JSONName(): v})
		}
	}
	return out
}

// pick returns some of the values for a place: the first, and a choice that depends on the place
// alone.
func pick(place string, values []any, some int) []any {
	if len(values) <= some+1 {
		return values
	}
	h := fnv.New64a()
	io.WriteString(h, place)
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	out := values[:1:1]
	for _, i := range r.Perm(len(values) - 1)[:some] {
		out = append(out, values[1+i])
	}
	return out
}

func mapsOf(f protoreflect.FieldDescriptor, value any) []any {
	given, _ := value.(map[string]any)
	with := func(key string, value any) any {
		out := clone(given).(map[string]any)
		if out == nil {
			out = map[string]any{}
		}
		out[key] = value
		return out
	}
	var fine any = "x"
	switch {
	case f.MapValue().Kind() == protoreflect.BytesKind:
		fine = "eA=="
	case isObject(f.MapValue().Message()):
		fine = map[string]any{}
	case f.MapValue().Message() != nil:
		fine = "1"
	}
	out := []any{map[string]any{}}
	for _, key := range []string{"Bad Key!", "a/b/c", "Upper.Example/Key", "-x", "x..y", strings.Repeat("k", 64), strings.Repeat("k", 254), "kubernetes.io/x", "cpu", "pods", "hugepages-2Mi", "example.com/foo"} {
		out = append(out, with(key, fine))
	}
	for _, v := range pick(string(f.FullName()), scalars(f.MapValue()), 4) {
		out = append(out, with("example.com/bar", v), with("memory", v))
	}
	return out
}

// scalars returns values of the type of a field or of the elements of a list: values at the limits
// of rules, and wrong ones.
func scalars(f protoreflect.FieldDescriptor) []any {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return []any{true, false}
	case protoreflect.Int32Kind:
		return []any{-1, 0, 1, 2, 101, 256, 512, 65536, 86401, 2147483647}
	case protoreflect.Int64Kind:
		return []any{-1, 0, 1, 599, 2147483648, 4294967297}
	case protoreflect.StringKind:
		return texts
	case protoreflect.BytesKind:
		return []any{"", "eA=="}
	case protoreflect.MessageKind:
		switch {
		case f.Message().FullName() == "google.protobuf.Timestamp":
			return []any{"2026-02-03T04:05:06.000007Z"}
		case formOf(f.Message()) == metav1.JsonForm_JSON_FORM_QUANTITY:
			return []any{"0", "-1", "1", "100m", "1500m", "1Gi", "1T"}
		case formOf(f.Message()) == metav1.JsonForm_JSON_FORM_INT_OR_STRING:
			return []any{0, -1, 1, 70000, "", "http", "Bad_Name", "50%", "0%", "150%", "-1%", "x%", strings.Repeat("a", 16)}
		}
	}
	return nil
}

// texts has examples of all formats.
var texts = []any{
	"", "x", "Upper", "bad value!", "-x", "x-", "a.b", "a..b", "under_score", "a/b", "a/b/c", "/abs", "../up", "a/../b", " padded ", "1x", "123",
	"10.0.0.1", "010.0.0.1", "10.0.0.0/8", "10.0.0.1/8", "127.0.0.1", "169.254.1.1", "224.0.0.1", "0.0.0.0", "::1", "fe80::1", "fd00::5", "fd00::/64", "::ffff:10.0.0.1",
	"None", "Always", "Never", "Localhost", "Exists", "Equal", "In", "Gt", "NoSchedule", "NoExecute", "TCP", "SCTP", "HTTPS", "Local", "Cluster", "v1", "v2",
	"metadata.name", "metadata.labels", "metadata.labels['a']", "metadata.labels['a b']", "spec.nodeName", "status.podIP", "limits.cpu", "requests.memory", "windows",
	strings.Repeat("a", 16), strings.Repeat("a", 64), strings.Repeat("a", 129), strings.Repeat("a", 254), strings.Repeat("a", 1025),
}

// windows reports that a field has settings for Windows, which have no effect and whose contents
// are not checked.
func windows(f protoreflect.FieldDescriptor) bool { return f.Name() == "windows_options" }

// later reports that a field is of a later version of Kubernetes than the one compared with.
func later(f protoreflect.FieldDescriptor) bool { return rulesOf(f).GetSince() != "" }

// member finds a field by its JSON name, inline messages included.
func member(d protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if rulesOf(f).GetInline() {
			if below := member(f.Message(), name); below != nil {
				return below
			}
		} else if f.JSONName() == name {
			return f
		}
	}
	return nil
}
