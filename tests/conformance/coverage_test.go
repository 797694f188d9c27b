package conformance_test

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/apimachinery/pkg/api/resource"
	k8smetav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// mirrored are the kinds that Kubernetes has too.
func mirrored() []*scheme.Kind {
	return slices.DeleteFunc(kinds.NewScheme().Served(), func(k *scheme.Kind) bool { return strings.HasSuffix(k.Group, ".xebec.io") })
}

// TestFieldCoverage compares every field of every Kubernetes type that our kinds reach with our
// descriptors: number, type, presence, JSON name and how strategic merge patches treat it. All have
// to be there, and none more.
func TestFieldCoverage(t *testing.T) {
	s := kubernetesScheme(t)
	c := newCoverage()
	for _, k := range mirrored() {
		c.message(reflect.TypeOf(counterpart(t, s, k)).Elem(), k.New().ProtoReflect().Descriptor())
	}
	t.Logf("%d of %d fields of %d Kubernetes types are covered: %.1f %%", c.covered, c.total, len(c.seen), 100*float64(c.covered)/float64(c.total))
	slices.Sort(c.wrong)
	for _, w := range c.wrong {
		t.Error(w)
	}
}

func newCoverage() *coverage {
	return &coverage{seen: map[reflect.Type]bool{}, unset: map[protoreflect.FullName]string{}}
}

type coverage struct {
	seen           map[reflect.Type]bool
	total, covered int
	wrong          []string
	// unset has how Kubernetes' JSON shows the fields that it does not just leave out when they are
	// not set.
	unset map[protoreflect.FullName]string
}

// message compares the fields of a Kubernetes struct with those of our message.
func (c *coverage) message(theirs reflect.Type, ours protoreflect.MessageDescriptor) {
	if c.seen[theirs] {
		return
	}
	c.seen[theirs] = true
	known := map[protoreflect.FieldNumber]bool{}
	for i := range theirs.NumField() {
		field := theirs.Field(i)
		tag, ok := field.Tag.Lookup("protobuf")
		if !ok || field.Type == reflect.TypeFor[k8smetav1.TypeMeta]() {
			continue
		}
		c.total++
		number, err := c.field(field, tag, ours)
		if err != nil {
			c.wrong = append(c.wrong, fmt.Sprintf("%s.%s: %v", ours.FullName(), field.Name, err))
			continue
		}
		known[number] = true
		c.covered++
	}
	for i := range ours.Fields().Len() {
		if field := ours.Fields().Get(i); !known[field.Number()] {
			c.wrong = append(c.wrong, fmt.Sprintf("%s: Kubernetes has no such field with this number", field.FullName()))
		}
	}
}

// patchStrategies are the values of Kubernetes' tag patchStrategy.
var patchStrategies = map[metav1.PatchStrategy]string{
	metav1.PatchStrategy_PATCH_STRATEGY_UNSPECIFIED:       "",
	metav1.PatchStrategy_PATCH_STRATEGY_MERGE:             "merge",
	metav1.PatchStrategy_PATCH_STRATEGY_RETAIN_KEYS:       "retainKeys",
	metav1.PatchStrategy_PATCH_STRATEGY_MERGE_RETAIN_KEYS: "merge,retainKeys",
	metav1.PatchStrategy_PATCH_STRATEGY_REPLACE:           "replace",
}

// field compares one field by its protobuf tag, such as "bytes,3,opt,name=replicas", and its JSON
// tag. The wire type in the tag does not count: Kubernetes' generator goes by the Go type, and a
// dozen of the tags say something else. That the wire types agree is shown by TestRoundTrip, where
// a field with another one would be unknown.
func (c *coverage) field(theirs reflect.StructField, tag string, message protoreflect.MessageDescriptor) (protoreflect.FieldNumber, error) {
	parts := strings.Split(tag, ",")
	number, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0, err
	}
	ours := message.Fields().ByNumber(protoreflect.FieldNumber(number))
	if ours == nil {
		return 0, fmt.Errorf("we have no field number %d", number)
	}
	rules, _ := proto.GetExtension(ours.Options(), metav1.E_Field).(*metav1.FieldRules)
	name, options, _ := strings.Cut(theirs.Tag.Get("json"), ",")
	if inline := name == "" && theirs.Anonymous || strings.Contains(options, "inline"); inline != rules.GetInline() {
		return 0, fmt.Errorf("inline is %v, Kubernetes has %v", rules.GetInline(), inline)
	} else if !inline && name != ours.JSONName() {
		return 0, fmt.Errorf("the JSON name is %s, Kubernetes has %s", ours.JSONName(), name)
	}
	if want, got := theirs.Tag.Get("patchStrategy"), patchStrategies[rules.GetPatchStrategy()]; got != want {
		return 0, fmt.Errorf("the patch strategy is %q, Kubernetes has %q", got, want)
	}
	if want, got := theirs.Tag.Get("patchMergeKey"), rules.GetPatchMergeKey(); got != want {
		return 0, fmt.Errorf("the patch merge key is %q, Kubernetes has %q", got, want)
	}
	if form := unsetForm(theirs); form != "" {
		c.unset[ours.FullName()] = form
	}
	typ := theirs.Type
	switch {
	case typ.Kind() == reflect.Slice && typ.Elem().Kind() != reflect.Uint8:
		if !ours.IsList() {
			return 0, fmt.Errorf("is no list")
		}
		return ours.Number(), c.value(typ.Elem(), ours)
	case typ.Kind() == reflect.Map:
		if !ours.IsMap() || ours.MapKey().Kind() != protoreflect.StringKind {
			return 0, fmt.Errorf("is no map by strings")
		}
		return ours.Number(), c.value(typ.Elem(), ours.MapValue())
	case ours.IsList() || ours.IsMap():
		return 0, fmt.Errorf("is a list or a map")
	}
	if typ.Kind() == reflect.Pointer {
		if !ours.HasPresence() {
			return 0, fmt.Errorf("does not tell unset from zero")
		}
		typ = typ.Elem()
	} else if ours.Kind() != protoreflect.MessageKind && ours.HasPresence() {
		return 0, fmt.Errorf("tells unset from zero, which Kubernetes does not")
	}
	return ours.Number(), c.value(typ, ours)
}

// value compares the type of one value, and descends into messages.
func (c *coverage) value(theirs reflect.Type, ours protoreflect.FieldDescriptor) error {
	if items := listOf(ours); items != nil && theirs.Kind() == reflect.Slice {
		return c.value(theirs.Elem(), items)
	}
	var want protoreflect.Kind
	switch theirs.Kind() {
	case reflect.String:
		want = protoreflect.StringKind
	case reflect.Bool:
		want = protoreflect.BoolKind
	case reflect.Int32:
		want = protoreflect.Int32Kind
	case reflect.Int64:
		want = protoreflect.Int64Kind
	case reflect.Slice:
		want = protoreflect.BytesKind
	case reflect.Struct:
		want = protoreflect.MessageKind
	}
	if want != ours.Kind() {
		return fmt.Errorf("is %s, Kubernetes has %s", ours.Kind(), theirs)
	}
	if want != protoreflect.MessageKind {
		return nil
	}
	rules, _ := proto.GetExtension(ours.Message().Options(), metav1.E_Message).(*metav1.MessageRules)
	var form metav1.JsonForm
	switch theirs {
	case reflect.TypeFor[k8smetav1.Time](), reflect.TypeFor[k8smetav1.MicroTime]():
		fieldRules, _ := proto.GetExtension(ours.Options(), metav1.E_Field).(*metav1.FieldRules)
		if ours.Message().FullName() != "google.protobuf.Timestamp" {
			return fmt.Errorf("is %s, Kubernetes has a time", ours.Message().FullName())
		}
		if micro := theirs == reflect.TypeFor[k8smetav1.MicroTime](); micro != fieldRules.GetMicroTime() {
			return fmt.Errorf("micro_time is %v, Kubernetes has %v", fieldRules.GetMicroTime(), micro)
		}
		return nil
	case reflect.TypeFor[resource.Quantity]():
		form = metav1.JsonForm_JSON_FORM_QUANTITY
	case reflect.TypeFor[intstr.IntOrString]():
		form = metav1.JsonForm_JSON_FORM_INT_OR_STRING
	case reflect.TypeFor[k8smetav1.FieldsV1](), reflect.TypeFor[runtime.RawExtension]():
		form = metav1.JsonForm_JSON_FORM_RAW
	default:
		c.message(theirs, ours.Message())
	}
	if rules.GetJsonForm() != form {
		return fmt.Errorf("the JSON form is %s, want %s", rules.GetJsonForm(), form)
	}
	return nil
}

// listOf returns the field of a message that stands for a list, as protobuf has no map of lists;
// nil for other values.
func listOf(value protoreflect.FieldDescriptor) protoreflect.FieldDescriptor {
	if value.Kind() != protoreflect.MessageKind {
		return nil
	}
	rules, _ := proto.GetExtension(value.Message().Options(), metav1.E_Message).(*metav1.MessageRules)
	if rules.GetJsonForm() != metav1.JsonForm_JSON_FORM_LIST {
		return nil
	}
	return value.Message().Fields().ByNumber(1)
}

// noUnknown fails when a message, or one within it, has bytes that none of its fields took.
func noUnknown(t *testing.T, m proto.Message) {
	t.Helper()
	var walk func(protoreflect.Message)
	walk = func(msg protoreflect.Message) {
		if len(msg.GetUnknown()) > 0 {
			t.Errorf("%s has bytes that none of its fields took", msg.Descriptor().FullName())
		}
		for field, value := range msg.Range {
			switch {
			case field.IsMap():
				if field.MapValue().Kind() == protoreflect.MessageKind {
					for _, v := range value.Map().Range {
						walk(v.Message())
					}
				}
			case field.Kind() != protoreflect.MessageKind:
			case field.IsList():
				for i := range value.List().Len() {
					walk(value.List().Get(i).Message())
				}
			default:
				walk(value.Message())
			}
		}
	}
	walk(m.ProtoReflect())
}
