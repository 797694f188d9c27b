package validation_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// wrong has values that each format refuses.
var wrong = map[metav1.Format][]any{
	metav1.Format_FORMAT_DNS_LABEL:        {"Bad_Name", "a.b"},
	metav1.Format_FORMAT_DNS_SUBDOMAIN:    {"bad..name", "Upper"},
	metav1.Format_FORMAT_QUALIFIED_NAME:   {"a/b/c", "bad name"},
	metav1.Format_FORMAT_LABEL_VALUE:      {"bad value!"},
	metav1.Format_FORMAT_IP:               {"10.0.0.256", "010.0.0.1", "::ffff:10.0.0.1"},
	metav1.Format_FORMAT_CIDR:             {"10.0.0.0", "10.0.0.1/8"},
	metav1.Format_FORMAT_RELATIVE_PATH:    {"/abs", "../up"},
	metav1.Format_FORMAT_PORT:             {-1, 70000},
	metav1.Format_FORMAT_PORT_NAME:        {"Bad_Name", "123"},
	metav1.Format_FORMAT_CONFIG_KEY:       {"bad key", ".."},
	metav1.Format_FORMAT_ENV_NAME:         {"a=b"},
	metav1.Format_FORMAT_HTTP_HEADER:      {"bad header"},
	metav1.Format_FORMAT_USER_ID:          {-1, 2147483648},
	metav1.Format_FORMAT_GROUP_ID:         {-1, 2147483648},
	metav1.Format_FORMAT_FILE_MODE:        {-1, 512},
	metav1.Format_FORMAT_ANNOTATION_KEY:   {"a/b/c"},
	metav1.Format_FORMAT_PORT_OR_NAME:     {70000, "Bad_Name"},
	metav1.Format_FORMAT_COUNT_OR_PERCENT: {-1, "x%"},
	metav1.Format_FORMAT_PATH_SEGMENT:     {"a/b", ".."},
}

// breach is a value of a field that breaks one of its rules.
type breach struct {
	rule  string
	value any // nil for none
}

// fieldRules are the names of the rules of a field that an object, or an update of it, can break.
func fieldRules(f protoreflect.FieldDescriptor) []string {
	r := rulesOf(f)
	if r == nil {
		return nil
	}
	var out []string
	for _, rule := range []struct {
		name string
		set  bool
	}{
		{"refused", r.GetRefused() != ""},
		{"refused_values", len(r.GetRefusedValues()) > 0},
		{"required", r.GetRequired()},
		{"min", r.Min != nil},
		{"max", r.Max != nil},
		{"enum", len(r.GetEnum()) > 0},
		{"format", r.GetFormat() != 0},
		{"key_format", r.GetKeyFormat() != 0},
		{"max_items", r.GetMaxItems() > 0},
		{"max_length", r.GetMaxLength() > 0},
		{"unique", len(r.GetUnique()) > 0},
		{"check_empty", r.GetCheckEmpty()},
		{"immutable", r.GetImmutable()},
	} {
		if rule.set {
			out = append(out, rule.name)
		}
	}
	return out
}

// ruleName names a rule of a field or of a message.
func ruleName(d protoreflect.Descriptor, rule string) string {
	return string(d.FullName()) + " " + rule
}

// breaches are values that break the rules of a field, given the value that it has in a valid
// object.
func breaches(f protoreflect.FieldDescriptor, value any) []breach {
	var out []breach
	r := rulesOf(f)
	list, _ := value.([]any)
	wrap := func(v any) any {
		if f.IsList() {
			return []any{v}
		}
		return v
	}
	for _, rule := range fieldRules(f) {
		add := func(v any) { out = append(out, breach{rule, v}) }
		switch rule {
		case "refused":
			for _, v := range append([]any{map[string]any{}}, scalars(f)...) {
				if v != "" && v != 0 && v != false {
					add(wrap(v))
					break
				}
			}
		case "refused_values":
			for _, v := range r.GetRefusedValues() {
				add(wrap(v))
			}
		case "required":
			add(nil)
		case "min":
			add(wrap(r.GetMin() - 1))
		case "max":
			add(wrap(r.GetMax() + 1))
		case "enum":
			add(wrap("Unheard"))
		case "format":
			for _, v := range wrong[r.GetFormat()] {
				if f.IsMap() {
					add(map[string]any{"example.com/a": v})
				} else {
					add(wrap(v))
				}
			}
		case "key_format":
			for _, v := range wrong[r.GetKeyFormat()] {
				add(map[string]any{v.(string): "eA=="})
			}
		case "max_items":
			var item any = "x"
			if len(list) > 0 {
				item = list[0]
			}
			add(slices.Repeat([]any{item}, int(r.GetMaxItems())+1))
		case "max_length":
			add(wrap(strings.Repeat("a", int(r.GetMaxLength())+1)))
		case "unique":
			if len(list) > 0 {
				add(append(slices.Clone(list), list[0]))
			}
		case "check_empty":
			add("")
		case "immutable":
			// Values that are accepted at creation: an update alone breaks the rule.
			switch {
			case f.IsList() && len(list) > 1:
				add(list[:len(list)-1])
				continue
			case isObject(f.Message()):
				add(map[string]any{})
				continue
			case f.Kind() == protoreflect.Int32Kind:
				add(1)
				continue
			}
			for _, v := range append(slices.Clone(anyOf(r.GetEnum())), "example.com/other") {
				if v != value {
					add(v)
				}
			}
		}
	}
	return out
}

func anyOf(texts []string) []any {
	var out []any
	for _, text := range texts {
		out = append(out, text)
	}
	return out
}

// breakRules breaks each rule of a field.
func (m *mutator) breakRules(f protoreflect.FieldDescriptor, path string, object map[string]any) {
	name := f.JSONName()
	value, had := object[name]
	for _, b := range breaches(f, value) {
		m.emitRule(fmt.Sprintf("%s breaks %s by %.60v", path, b.rule, b.value), ruleName(f, b.rule), path, func() func() {
			if object[name] = b.value; b.value == nil {
				delete(object, name)
			}
			return func() {
				if object[name] = value; !had {
					delete(object, name)
				}
			}
		})
	}
}

// oneOf breaks the rule of a message of which exactly one field is set.
func (m *mutator) oneOf(d protoreflect.MessageDescriptor, at string, object map[string]any) {
	if messageRulesOf(d).GetOneOfMissing() == "" {
		return
	}
	full := maps.Clone(object)
	restore := func() { maps.Copy(object, full) }
	var unset []string
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if _, set := object[f.JSONName()]; !set && f.Message() != nil && !f.IsList() && rulesOf(f).GetRefused() == "" && !later(f) {
			unset = append(unset, f.JSONName())
		}
	}
	m.emitRule(at+" has none of its fields", ruleName(d, "one_of_missing"), at, func() func() {
		for i := range d.Fields().Len() {
			if f := d.Fields().Get(i); f.Message() != nil && !f.IsList() {
				delete(object, f.JSONName())
			}
		}
		return restore
	})
	for _, name := range unset {
		m.emitRule(at+" also has "+name, ruleName(d, "one_of_further"), at, func() func() {
			object[name] = map[string]any{}
			return func() { delete(object, name) }
		})
	}
}

// unreachable has the fields that no valid object can have, with the reason. Their rules are not
// compared.
var unreachable = map[protoreflect.FullName]string{
	"xebec.core.v1.PodSpec.ephemeral_containers": "ephemeral containers are added to pods that exist",
	"xebec.core.v1.Container.volume_devices":     "devices are persistent volume claims, which are refused",
}

// rulesBelow returns the names of all rules that objects with a message can break.
func rulesBelow(d protoreflect.MessageDescriptor, skip ...protoreflect.Name) map[string]bool {
	out, seen := map[string]bool{}, map[protoreflect.FullName]bool{}
	var walk func(d protoreflect.MessageDescriptor, skip ...protoreflect.Name)
	walk = func(d protoreflect.MessageDescriptor, skip ...protoreflect.Name) {
		if seen[d.FullName()] {
			return
		}
		seen[d.FullName()] = true
		if messageRulesOf(d).GetOneOfMissing() != "" {
			out[ruleName(d, "one_of_further")] = true
			// A volume without a source is an empty directory by default.
			if d.FullName() != "xebec.core.v1.VolumeSource" {
				out[ruleName(d, "one_of_missing")] = true
			}
		}
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			if windows(f) || later(f) || slices.Contains(skip, f.Name()) || unreachable[f.FullName()] != "" {
				continue
			}
			for _, rule := range fieldRules(f) {
				out[ruleName(f, rule)] = true
			}
			if f.Message() != nil && !f.IsMap() && isObject(f.Message()) && rulesOf(f).GetRefused() == "" {
				walk(f.Message())
			}
		}
	}
	walk(d, skip...)
	return out
}
