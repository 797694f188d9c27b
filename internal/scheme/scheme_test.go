package scheme_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/scheme"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// message makes a message type with metadata and the given string fields, numbered from 2.
func message(t *testing.T, name string, fields ...string) protoreflect.MessageDescriptor {
	t.Helper()
	metadata := (&metav1.ObjectMeta{}).ProtoReflect().Descriptor()
	single := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
	m := &descriptorpb.DescriptorProto{Name: new(name), Field: []*descriptorpb.FieldDescriptorProto{{
		Name: new("metadata"), Number: new(int32(1)), Label: single,
		Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: new("." + string(metadata.FullName())),
	}}}
	for i, f := range fields {
		m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
			Name: &f, Number: new(int32(2 + i)), Label: single, Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
		})
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("example/" + name + ".proto"), Package: new("example"), Syntax: new("proto3"),
		Dependency: []string{metadata.ParentFile().Path()}, MessageType: []*descriptorpb.DescriptorProto{m},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().Get(0)
}

// rules accept everything but objects without a size.
type rules struct{}

func (rules) PrepareCreate(scheme.Object)                       {}
func (rules) PrepareUpdate(_, _ scheme.Object)                  {}
func (rules) PrepareStatusUpdate(_, _ scheme.Object)            {}
func (rules) ValidateNew(scheme.Object) field.ErrorList         { return nil }
func (rules) ValidateUpdate(_, _ scheme.Object) field.ErrorList { return nil }
func (rules) ValidateStatusUpdate(_, _ scheme.Object) field.ErrorList {
	return nil
}
func (rules) Warnings(scheme.Object) []string { return nil }

func (rules) Default(o scheme.Object) {
	if text(o, "size") == "" {
		set(o, "size", "1")
	}
}

func (rules) Validate(_ *scheme.Kind, o scheme.Object) field.ErrorList {
	if text(o, "size") == "" {
		return field.ErrorList{field.Required(field.NewPath("size"), "")}
	}
	return nil
}

func text(o scheme.Object, name protoreflect.Name) string {
	m := o.ProtoReflect()
	return m.Get(m.Descriptor().Fields().ByName(name)).String()
}

func set(o scheme.Object, name protoreflect.Name, value string) {
	m := o.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName(name), protoreflect.ValueOfString(value))
}

// kindOf describes a kind whose objects have the given string fields.
func kindOf(t *testing.T, group, version, name string, fields ...string) *scheme.Kind {
	t.Helper()
	d := message(t, strings.NewReplacer(".", "_", "/", "_").Replace(group+"_"+version+"_"+name), fields...)
	lower := strings.ToLower(name)
	k := &scheme.Kind{
		Group: group, Version: version, Name: name, Plural: lower + "s", Singular: lower, Namespaced: true, Rules: rules{},
	}
	k.New = scheme.Constructor(k, d)
	return k
}

// widgets returns a kind in two versions: v2 is stored and calls size what v1 calls length.
func widgets(t *testing.T) (v1, v2 *scheme.Kind) {
	t.Helper()
	v1, v2 = kindOf(t, "example.com", "v1", "Widget", "length"), kindOf(t, "example.com", "v2", "Widget", "size")
	convert := func(to *scheme.Kind, from, name protoreflect.Name) func(scheme.Object) (scheme.Object, error) {
		return func(o scheme.Object) (scheme.Object, error) {
			if strings.HasPrefix(text(o, from), "-") {
				return nil, errors.New("negative")
			}
			out := to.New()
			set(out, name, text(o, from))
			return out, nil
		}
	}
	v1.Rules = nil
	v1.Conversion = &scheme.Conversion{Stored: v2, ToStored: convert(v2, "length", "size"), FromStored: convert(v1, "size", "length")}
	return v1, v2
}

func newScheme(t *testing.T, kinds ...*scheme.Kind) *scheme.Scheme {
	t.Helper()
	s, err := scheme.New(kinds...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func names(kinds []*scheme.Kind) string {
	var out []string
	for _, k := range kinds {
		out = append(out, k.GVK().String())
	}
	return strings.Join(out, ", ")
}

func TestLookups(t *testing.T) {
	pod, widget := kindOf(t, "", "v1", "Pod"), kindOf(t, "example.com", "v1", "Widget")
	widget.ShortNames = []string{"wd"}
	s := newScheme(t, widget, pod)
	if got := names(s.Kinds()); got != "Pod of v1, Widget of example.com/v1" {
		t.Errorf("kinds are %s", got)
	}
	for _, typed := range []string{
		"widgets", "Widget", "WD", "widgets.example.com", "wd.example.com", "widget.v1.example.com", "Widget.v1.example.com",
	} {
		if k, ok := s.ByName(typed); !ok || k != widget {
			t.Errorf("ByName(%q) = %v, %v", typed, k, ok)
		}
	}
	for _, typed := range []string{"", ".", "wdg", "pods.", "pods.v1", "widgets.v2.example.com", "widgets.example"} {
		if k, ok := s.ByName(typed); ok {
			t.Errorf("ByName(%q) = %v, want none", typed, k)
		}
	}
	for name, find := range map[string]func() (*scheme.Kind, bool){
		"ByGVK":            func() (*scheme.Kind, bool) { return s.ByGVK(scheme.GVK{"example.com", "v1", "Widget"}) },
		"ByGVR":            func() (*scheme.Kind, bool) { return s.ByGVR(scheme.GVR{"example.com", "v1", "widgets"}) },
		"ByAPIVersionKind": func() (*scheme.Kind, bool) { return s.ByAPIVersionKind("example.com/v1", "Widget") },
		"ByGroupKind":      func() (*scheme.Kind, bool) { return s.ByGroupKind("example.com", "Widget") },
		"ByResource":       func() (*scheme.Kind, bool) { return s.ByResource("example.com", "widgets") },
		"ByMessage":        func() (*scheme.Kind, bool) { return s.ByMessage("example.example_com_v1_Widget") },
		"ByTypeURL":        func() (*scheme.Kind, bool) { return s.ByTypeURL(widget.TypeURL()) },
	} {
		if k, ok := find(); !ok || k != widget {
			t.Errorf("%s = %v, %v", name, k, ok)
		}
	}
	if k, err := s.Of(widget.New()); err != nil || k != widget {
		t.Errorf("Of = %v, %v", k, err)
	}
	for name, find := range map[string]func() (*scheme.Kind, bool){
		"other version":         func() (*scheme.Kind, bool) { return s.ByAPIVersionKind("example.com/v2", "Widget") },
		"core with a slash":     func() (*scheme.Kind, bool) { return s.ByAPIVersionKind("/v1", "Pod") },
		"other case":            func() (*scheme.Kind, bool) { return s.ByAPIVersionKind("v1", "pod") },
		"plural for a kind":     func() (*scheme.Kind, bool) { return s.ByGroupKind("", "pods") },
		"message of no kind":    func() (*scheme.Kind, bool) { return s.ByTypeURL("type.googleapis.com/xebec.meta.v1.ObjectMeta") },
		"type URL without name": func() (*scheme.Kind, bool) { return s.ByTypeURL("") },
	} {
		if k, ok := find(); ok {
			t.Errorf("%s finds %v", name, k)
		}
	}
}

func TestVersionsOfAKind(t *testing.T) {
	v1, v2 := widgets(t)
	s := newScheme(t, v1, v2)
	if got := names(s.Served()); got != "Widget of example.com/v2, Widget of example.com/v1" {
		t.Errorf("served are %s", got)
	}
	if got := names(s.Kinds()); got != "Widget of example.com/v2" {
		t.Errorf("stored are %s", got)
	}
	for typed, want := range map[string]*scheme.Kind{
		"widgets": v2, "widgets.example.com": v2, "widgets.v1.example.com": v1, "widgets.v2.example.com": v2,
	} {
		if k, _ := s.ByName(typed); k != want {
			t.Errorf("%s is %v", typed, k.GVK())
		}
	}
	if k, _ := s.ByGroupKind("example.com", "Widget"); k != v2 {
		t.Errorf("the kind without a version is %v", k.GVK())
	}

	o := v1.New()
	set(o, "length", "7")
	k, err := s.Of(o)
	if err != nil || k != v1 || k.Stored() != v2 || v2.Stored() != v2 {
		t.Fatalf("the kind is %v (%v), stored as %v", k, err, k.Stored())
	}
	stored, err := k.Conversion.ToStored(o)
	if err != nil || text(stored, "size") != "7" {
		t.Fatalf("stored is %v, %v", stored, err)
	}
	if errs := k.Stored().Validate(stored); len(errs) > 0 {
		t.Errorf("stored is invalid: %v", errs)
	}
	back, err := k.Conversion.FromStored(stored)
	if err != nil || text(back, "length") != "7" {
		t.Errorf("served is %v, %v", back, err)
	}
}

// TestVersionInAnotherGroup has a kind that another group serves too, as Kubernetes' events.
func TestVersionInAnotherGroup(t *testing.T) {
	stored, other := kindOf(t, "", "v1", "Event"), kindOf(t, "events.example.com", "v1", "Event")
	same := func(o scheme.Object) (scheme.Object, error) { return o, nil }
	other.Conversion = &scheme.Conversion{Stored: stored, ToStored: same, FromStored: same}
	s := newScheme(t, other, stored)
	for typed, want := range map[string]*scheme.Kind{"events": stored, "events.events.example.com": other} {
		if k, _ := s.ByName(typed); k != want {
			t.Errorf("%s is %v", typed, k)
		}
	}
	if k, ok := s.ByGroupKind("events.example.com", "Event"); !ok || k != other {
		t.Errorf("the kind of the other group is %v", k)
	}
}

func TestCompiledInKindsKeepTheirNames(t *testing.T) {
	builtin, dynamic := kindOf(t, "workloads", "v1", "Job"), kindOf(t, "acme.example", "v1", "Job")
	dynamic.Dynamic = true
	s := newScheme(t, dynamic, builtin)
	for typed, want := range map[string]*scheme.Kind{"jobs": builtin, "jobs.acme.example": dynamic, "jobs.workloads": builtin} {
		if k, _ := s.ByName(typed); k != want {
			t.Errorf("%s is %v", typed, k)
		}
	}
	if err := s.Unregister(builtin); err != nil {
		t.Fatal(err)
	}
	if k, _ := s.ByName("jobs"); k != dynamic {
		t.Errorf("after removal of the other, jobs is %v", k)
	}
}

func TestRefusedKinds(t *testing.T) {
	base, second := kindOf(t, "example.com", "v1", "Base"), kindOf(t, "example.com", "v1", "Second")
	second.ShortNames = []string{"s"}
	v1, v2 := widgets(t)
	edited := func(edit func(*scheme.Kind)) []*scheme.Kind {
		k := kindOf(t, "example.com", "v1", "Widget", "size")
		k.Dynamic = true // the messages of other kinds are not checked
		edit(k)
		return []*scheme.Kind{k}
	}
	for want, kinds := range map[string][]*scheme.Kind{
		"Version is required":                         edited(func(k *scheme.Kind) { k.Version = "" }),
		"Plural is required":                          edited(func(k *scheme.Kind) { k.Plural = "" }),
		"New is required":                             edited(func(k *scheme.Kind) { k.New = nil }),
		"Rules is required":                           edited(func(k *scheme.Kind) { k.Rules = nil }),
		"is registered already":                       {base},
		`Base of example.com/v1 has the plural "bas`:  edited(func(k *scheme.Kind) { k.Plural = base.Plural }),
		`Second of example.com/v1 has the name "s" `:  edited(func(k *scheme.Kind) { k.ShortNames = []string{"s"} }),
		"has the message example.":                    edited(func(k *scheme.Kind) { k.New = base.New }),
		"selectable field size: [2 1] leads to no":    edited(func(k *scheme.Kind) { k.Fields = map[string][]protowire.Number{"size": {2, 1}} }),
		"Widget of example.com/v2, which is not regi": {v1},
		"requires the stored kind and both functions": edited(func(k *scheme.Kind) { k.Conversion = &scheme.Conversion{Stored: v2} }),
		"its scope must be that of Widget of example": edited(func(k *scheme.Kind) {
			c := *v1.Conversion
			k.Conversion, k.Namespaced = &c, false
		}),
		"to which it converts, is not stored itself": edited(func(k *scheme.Kind) {
			c := *v1.Conversion
			c.Stored = v1
			k.Conversion = &c
		}),
		"field 1 of the message must be metadata": edited(func(k *scheme.Kind) {
			k.New = scheme.Constructor(k, (&metav1.ObjectMeta{}).ProtoReflect().Descriptor())
		}),
	} {
		s := newScheme(t, base, second)
		extra := kindOf(t, "example.com", "v1", "Extra")
		if err := s.Register(append([]*scheme.Kind{extra}, kinds...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q", err, want)
		}
		if got := names(s.Kinds()); got != "Base of example.com/v1, Second of example.com/v1" {
			t.Errorf("%s: kinds are %s afterwards", want, got)
		}
	}
	s := newScheme(t, v1, v2)
	if err := s.Unregister(v2); err == nil || !strings.Contains(err.Error(), "Widget of example.com/v1 converts to Widget of example.com/v2") {
		t.Errorf("removal of the stored version: %v", err)
	}
	if err := s.Unregister(base); err == nil || !strings.Contains(err.Error(), "is not registered") {
		t.Errorf("removal of an unknown kind: %v", err)
	}
	if err := s.Unregister(v2, v1); err != nil || len(s.Served()) != 0 {
		t.Errorf("removal of all versions: %v, %s left", err, names(s.Served()))
	}
	if _, err := s.Of(v2.New()); err == nil || !strings.Contains(err.Error(), "example.example_com_v2_Widget") {
		t.Errorf("the kind of an object that is no longer registered: %v", err)
	}
}

func TestWatch(t *testing.T) {
	base := kindOf(t, "example.com", "v1", "Base")
	s := newScheme(t, base)
	synctest.Test(t, func(t *testing.T) {
		changing := newScheme(t)
		seen := make(chan string)
		go func() {
			defer close(seen)
			for {
				kinds, changed := changing.Watch()
				seen <- names(kinds)
				if len(kinds) == 2 {
					return
				}
				<-changed
			}
		}()
		other := kindOf(t, "example.com", "v1", "Other")
		for i, want := range []string{"", "Base of example.com/v1", "Base of example.com/v1, Other of example.com/v1"} {
			if got := <-seen; got != want {
				t.Errorf("after %d changes the kinds are %q, want %q", i, got, want)
			}
			synctest.Wait()
			switch i {
			case 0:
				if err := changing.Register(base); err != nil {
					t.Error(err)
				}
			case 1:
				if err := changing.Register(other); err != nil {
					t.Error(err)
				}
			}
		}
	})
	before := s.Generation()
	_, changed := s.Watch()
	if err := s.Register(base); err == nil {
		t.Error("a kind is registered twice")
	}
	select {
	case <-changed:
		t.Error("a refused change is announced")
	default:
	}
	if s.Generation() != before {
		t.Error("a refused change makes a generation")
	}
	changedBase := kindOf(t, "example.com", "v1", "Base", "size")
	if err := s.Replace([]*scheme.Kind{base}, []*scheme.Kind{changedBase}); err != nil {
		t.Fatal(err)
	}
	<-changed
	if k, _ := s.ByName("bases"); k != changedBase || s.Generation() != before+1 {
		t.Errorf("after the replacement bases is %p, want %p; generation %d", k, changedBase, s.Generation())
	}
}

func TestConcurrentRegistration(t *testing.T) {
	const writers, rounds = 8, 50
	base := kindOf(t, "example.com", "v1", "Base")
	s := newScheme(t, base)
	kinds := make([]*scheme.Kind, writers)
	for i := range kinds {
		kinds[i] = kindOf(t, "example.com", "v1", fmt.Sprintf("Kind%d", i))
	}
	var writing, reading sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		reading.Go(func() {
			for last := uint64(0); ; {
				if k, ok := s.ByName("bases"); !ok || k != base {
					t.Error("a kind that was not removed is missing")
					return
				}
				now := s.Generation()
				if now < last {
					t.Errorf("generation %d follows %d", now, last)
					return
				}
				last = now
				for _, k := range s.Kinds() {
					_ = k.MessageName()
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for _, k := range kinds {
		writing.Go(func() {
			for range rounds {
				if err := s.Register(k); err != nil {
					t.Error(err)
				}
				if got, ok := s.ByGVK(k.GVK()); !ok || got != k {
					t.Errorf("%s is not there right after its registration", k)
				}
				if err := s.Unregister(k); err != nil {
					t.Error(err)
				}
			}
			if err := s.Register(k); err != nil {
				t.Error(err)
			}
		})
	}
	writing.Wait()
	close(done)
	reading.Wait()
	if got, want := len(s.Kinds()), writers+1; got != want {
		t.Errorf("%d kinds are registered, want %d", got, want)
	}
	if got, want := s.Generation(), uint64(1+writers*(2*rounds+1)); got != want {
		t.Errorf("generation is %d, want %d", got, want)
	}
}

// TestDynamicObject decodes, changes, copies and encodes an object whose message type was made at
// run time.
func TestDynamicObject(t *testing.T) {
	k := kindOf(t, "example.com", "v1", "Widget", "size")
	made := k.New()
	if made.GetMetadata() != nil {
		t.Errorf("a new object has metadata %v", made.GetMetadata())
	}
	set(made, "size", "7")
	raw, err := proto.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	// Metadata of another writer.
	meta, err := proto.Marshal(&metav1.ObjectMeta{Name: "web", Labels: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	raw = protowire.AppendBytes(protowire.AppendTag(raw, 1, protowire.BytesType), meta)

	decoded := k.New()
	if err := proto.Unmarshal(raw, decoded); err != nil {
		t.Fatal(err)
	}
	if m := decoded.GetMetadata(); m.GetName() != "web" || m.GetLabels()["a"] != "b" || text(decoded, "size") != "7" {
		t.Errorf("decoded is %v", decoded)
	}
	clone, ok := proto.Clone(decoded).(*scheme.Dynamic)
	if !ok || clone.Kind() != k || !proto.Equal(clone, decoded) {
		t.Fatalf("the copy is %T %v", clone, clone)
	}
	clone.GetMetadata().Name = "db"
	if decoded.GetMetadata().GetName() != "web" {
		t.Error("a change of the copy changes the original")
	}
	again := k.New()
	if raw, err = proto.Marshal(clone); err == nil {
		err = proto.Unmarshal(raw, again)
	}
	if err != nil || again.GetMetadata().GetName() != "db" || again.GetMetadata().GetLabels()["a"] != "b" || text(again, "size") != "7" {
		t.Errorf("a change of the metadata is encoded as %v, %v", again, err)
	}
}
