package apply

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// mergedLists calls visit with every way from a message to a list that merges by keys or by value.
func mergedLists(md protoreflect.MessageDescriptor, way []protoreflect.FieldDescriptor, visit func(way []protoreflect.FieldDescriptor)) {
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		here := append(way[:len(way):len(way)], fd)
		rules := fieldRules(fd)
		if fd.IsMap() || rules.GetAtomic() {
			continue
		}
		if fd.IsList() {
			if rules.GetListType() == metav1.ListType_LIST_TYPE_UNSPECIFIED {
				continue
			}
			visit(here)
		}
		if fd.Kind() == protoreflect.MessageKind && messageRules(fd.Message()).GetJsonForm() == metav1.JsonForm_JSON_FORM_UNSPECIFIED &&
			!messageRules(fd.Message()).GetAtomic() && fd.Message().FullName() != timestampName {
			mergedLists(fd.Message(), here, visit)
		}
	}
}

// at returns the message that holds the last field of a way, with one element in each list on the
// way.
func at(m protoreflect.Message, way []protoreflect.FieldDescriptor) protoreflect.Message {
	for _, fd := range way[:len(way)-1] {
		if fd.IsList() {
			list := m.Mutable(fd).List()
			m = list.AppendMutable().Message()
			setKeys(m, fd, "key", 1)
		} else {
			m = m.Mutable(fd).Message()
		}
	}
	return m
}

// setKeys sets the fields that identify an element.
func setKeys(element protoreflect.Message, fd protoreflect.FieldDescriptor, text string, n int64) {
	for _, key := range fieldRules(fd).GetListMapKeys() {
		holder, f := memberOf(element, key)
		setScalar(holder, f, text, n)
	}
}

// memberOf finds a member of a message's JSON, which may be that of an inline message.
func memberOf(m protoreflect.Message, name string) (protoreflect.Message, protoreflect.FieldDescriptor) {
	if f := m.Descriptor().Fields().ByJSONName(name); f != nil {
		return m, f
	}
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if fieldRules(f).GetInline() && f.Message().Fields().ByJSONName(name) != nil {
			return m.Mutable(f).Message(), f.Message().Fields().ByJSONName(name)
		}
	}
	panic("no member " + name)
}

func setScalar(m protoreflect.Message, fd protoreflect.FieldDescriptor, text string, n int64) {
	m.Set(fd, scalarValue(fd, text, n))
}

func scalarValue(fd protoreflect.FieldDescriptor, text string, n int64) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(n)
	}
	panic("no key of kind " + fd.Kind().String())
}

// tell makes an element unlike others of the same keys, by the first text or number that is no key.
func tell(element protoreflect.Message, fd protoreflect.FieldDescriptor, text string, n int64) {
	keys := strings.Join(fieldRules(fd).GetListMapKeys(), " ")
	for i := range element.Descriptor().Fields().Len() {
		f := element.Descriptor().Fields().Get(i)
		if fieldRules(f).GetInline() {
			element = element.Mutable(f).Message()
			f = element.Descriptor().Fields().Get(1) // of a container after the name, of a volume one of its sources
			if f.Kind() == protoreflect.MessageKind {
				element = element.Mutable(f).Message()
				f = element.Descriptor().Fields().Get(0)
			}
		}
		scalar := f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.Int32Kind || f.Kind() == protoreflect.Int64Kind
		if scalar && !f.IsList() && !f.IsMap() && !strings.Contains(" "+keys+" ", " "+f.JSONName()+" ") {
			setScalar(element, f, text, n)
			return
		}
	}
}

// withList returns an object whose list at the end of a way has the elements described: key, and
// what tells it from others.
func withList(k *scheme.Kind, way []protoreflect.FieldDescriptor, elements ...[2]int64) scheme.Object {
	o := k.New()
	o.ProtoReflect().Mutable(o.ProtoReflect().Descriptor().Fields().ByName("metadata")).Message().Interface().(*metav1.ObjectMeta).Name = "a"
	last := way[len(way)-1]
	list := at(o.ProtoReflect(), way).Mutable(last).List()
	for _, e := range elements {
		if last.Kind() != protoreflect.MessageKind {
			list.Append(scalarValue(last, fmt.Sprint("v", e[0]), e[0]))
			continue
		}
		element := list.AppendMutable().Message()
		setKeys(element, last, fmt.Sprint("k", e[0]), e[0])
		tell(element, last, fmt.Sprint("t", e[1]), e[1])
	}
	return o
}

// TestDuplicatesAreKept applies duplicate elements in every list of every kind that is merged.
func TestDuplicatesAreKept(t *testing.T) {
	m := merger(t)
	lists := 0
	for _, k := range kinds.All() {
		mergedLists(k.New().ProtoReflect().Descriptor(), nil, func(way []protoreflect.FieldDescriptor) {
			name := k.Name
			for _, fd := range way {
				name += "." + fd.JSONName()
			}
			last := way[len(way)-1]
			if strings.HasPrefix(name, k.Name+".metadata.managedFields") {
				return
			}
			lists++
			t.Run(name, func(t *testing.T) {
				set := fieldRules(last).GetListType() == metav1.ListType_LIST_TYPE_SET
				without := withList(k, way, [2]int64{1, 1}, [2]int64{2, 2})
				with := withList(k, way, [2]int64{1, 1}, [2]int64{2, 2}, [2]int64{1, 3})
				wanted := with
				if set {
					wanted = without // a value that is there is there
				}
				apply := func(live, config scheme.Object) scheme.Object {
					t.Helper()
					got, err := m.Apply(live, config, "alice", false, noon)
					if err != nil {
						t.Fatal(err)
					}
					return got
				}
				check := func(when string, got, want scheme.Object) {
					t.Helper()
					if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&metav1.ObjectMeta{}, "managed_fields")); diff != "" {
						t.Errorf("%s (-want +got):\n%s", when, diff)
					}
				}
				live := apply(nil, with)
				check("created", live, wanted)
				again := apply(live, with)
				if !Same(live, again) {
					t.Errorf("a second apply changed the object:\n%v\n%v", live, again)
				}
				live = apply(apply(nil, without), with)
				check("added", live, wanted)
				if strings.HasPrefix(name, k.Name+".status") {
					return // a status has no owners
				}
				check("removed", apply(live, without), without)
				// Another's element stays, and so does the owner's duplicate.
				other, err := m.Apply(live, withList(k, way, [2]int64{5, 5}), "bob", false, noon)
				if err != nil {
					t.Fatal(err)
				}
				if got := listOf(other, way).Len(); got != listOf(wanted, way).Len()+1 {
					t.Errorf("after another's apply the list has %d elements", got)
				}
			})
		})
	}
	if lists < 50 {
		t.Errorf("only %d lists were found", lists)
	}
}

// listOf is the list at the end of a way that is there.
func listOf(o scheme.Object, way []protoreflect.FieldDescriptor) protoreflect.List {
	m := o.ProtoReflect()
	for _, fd := range way[:len(way)-1] {
		if fd.IsList() {
			m = m.Get(fd).List().Get(0).Message()
		} else {
			m = m.Get(fd).Message()
		}
	}
	return m.Get(way[len(way)-1]).List()
}

// TestDuplicatesOfOthers changes one of two elements of equal keys that another client wrote.
func TestDuplicatesOfOthers(t *testing.T) {
	m := merger(t)
	pod := func(env string) scheme.Object {
		return object(t, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"default"},"spec":{"containers":[{"name":"m","image":"i","env":[`+env+`]}]}}`)
	}
	const twice = `{"name":"A","value":"1"},{"name":"A","value":"2"}`
	live := pod(twice)
	if err := m.Update(nil, live, "kubectl", noon); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Apply(live, pod(twice), "alice", false, noon); err != nil {
		t.Errorf("applying what is there: %v", err)
	}
	_, err := m.Apply(live, pod(`{"name":"A","value":"3"}`), "alice", false, noon)
	if err == nil || !strings.Contains(err.Error(), "kubectl") {
		t.Errorf("got %v, want a conflict with kubectl", err)
	}
	got, err := m.Apply(live, pod(`{"name":"B","value":"3"}`), "alice", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	if env := got.(*corev1.Pod).GetSpec().GetContainers()[0].GetEnv(); len(env) != 3 {
		t.Errorf("env = %v, want all three", env)
	}
	if text, _ := codec.Marshal(&corev1.Pod{Spec: got.(*corev1.Pod).GetSpec()}); strings.Contains(string(text), occurrence) {
		t.Errorf("the object holds the number of its elements: %s", text)
	}
}

func TestStringData(t *testing.T) {
	m := merger(t)
	secret := func(rest string) scheme.Object {
		return object(t, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","namespace":"default"},`+rest+`}`)
	}
	var live scheme.Object
	for _, step := range []struct {
		config string
		want   map[string]string
	}{
		{`"stringData":{"a":"one","b":"two"}`, map[string]string{"a": "one", "b": "two"}},
		{`"stringData":{"a":"changed"}`, map[string]string{"a": "changed"}},
		{`"data":{"a":"b25l","c":"dGhyZWU="},"stringData":{"a":"wins"}`, map[string]string{"a": "wins", "c": "three"}},
		{`"data":{"a":"b25l","c":"dGhyZWU="}`, map[string]string{"a": "one", "c": "three"}},
		{`"type":"Opaque"`, nil},
	} {
		config := secret(step.config)
		before := proto.Clone(config)
		got, err := m.Apply(live, config, "alice", false, noon)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(before, config) {
			t.Errorf("%s: the applied object was changed", step.config)
		}
		check(t, step.config, got, step.want)
		live = got
	}
	// Version 0.1.0 recorded the owner of stringData, and stored data.
	live = secret(`"data":{"a":"b25l","b":"dHdv"}`)
	live.GetMetadata().ManagedFields = []*metav1.ManagedFieldsEntry{{Manager: "alice", Operation: operationApply, ApiVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:stringData":{"f:a":{},"f:b":{}}}`)}}}
	got, err := m.Apply(live, secret(`"stringData":{"a":"one"}`), "alice", false, noon)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "after an upgrade", got, map[string]string{"a": "one"})
}

func check(t *testing.T, when string, o scheme.Object, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for key, value := range o.(*corev1.Secret).GetData() {
		got[key] = string(value)
	}
	if want == nil {
		want = map[string]string{}
	}
	if diff := cmp.Diff(want, got); diff != "" || len(o.(*corev1.Secret).GetStringData()) > 0 {
		t.Errorf("%s: data differs, or stringData is stored: %v (-want +got):\n%s", when, o, diff)
	}
}
