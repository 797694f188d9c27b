package storage

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/wire"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const podURL = "type.googleapis.com/xebec.core.v1.Pod"

func testPod() *corev1.Pod {
	return &corev1.Pod{
		Metadata: &metav1.ObjectMeta{
			Name: "web-0", Namespace: "default", Uid: "u-1", Labels: map[string]string{"app": "web"},
			ManagedFields: []*metav1.ManagedFieldsEntry{{Manager: "cli", FieldsV1: &metav1.FieldsV1{Raw: []byte("{}")}}},
		},
		Spec:   &corev1.PodSpec{NodeName: "node-1", HostNetwork: true},
		Status: &corev1.PodStatus{Phase: "Running"},
	}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testObject(t testing.TB, pod *corev1.Pod, revision int64) *Object {
	key := Key{Kind: "Pod", Namespace: pod.GetMetadata().GetNamespace(), Name: pod.GetMetadata().GetName()}
	return newObject(podURL, key, marshal(t, pod), revision, 3, 0, apiv1.EventType_EVENT_TYPE_MODIFIED)
}

func TestFieldNumbers(t *testing.T) {
	numbers := func(m proto.Message) func(name string) protowire.Number {
		return func(name string) protowire.Number {
			for fields, i := m.ProtoReflect().Descriptor().Fields(), 0; i < fields.Len(); i++ {
				if string(fields.Get(i).Name()) == name {
					return fields.Get(i).Number()
				}
			}
			return 0
		}
	}
	meta, response := numbers(&metav1.ObjectMeta{}), numbers(&apiv1.WatchResponse{})
	for _, tc := range []struct {
		name      string
		got, want protowire.Number
	}{
		{"metadata", numbers(&corev1.Pod{})("metadata"), objectMetadata},
		{"resource_version", meta("resource_version"), metaResourceVersion},
		{"managed_fields", meta("managed_fields"), metaManagedFields},
		{"type", response("type"), responseType},
		{"object", response("object"), responseObject},
		{"resource_version", response("resource_version"), responseVersion},
		{"initial_state_end", response("initial_state_end"), responseInitialEnd},
	} {
		if tc.got != tc.want {
			t.Errorf("field %s has number %d, the code says %d", tc.name, tc.got, tc.want)
		}
	}
}

func TestObject(t *testing.T) {
	pod := testPod()
	o := testObject(t, pod, 1234567)

	want := proto.CloneOf(pod)
	want.Metadata.ResourceVersion = "1234567"
	got, err := o.Any().UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("Any differs (-want +got):\n%s", diff)
	}
	if first, second := o.Any(), o.Any(); first != second {
		t.Error("Any is made twice")
	}
	stored := new(corev1.Pod)
	if err := proto.Unmarshal(o.Bytes, stored); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(pod, stored, protocmp.Transform()); diff != "" {
		t.Errorf("Bytes differ (-want +got):\n%s", diff)
	}
	wantMeta := proto.CloneOf(want.Metadata)
	wantMeta.ManagedFields = nil
	if diff := cmp.Diff(wantMeta, o.Meta(), protocmp.Transform()); diff != "" {
		t.Errorf("Meta differs (-want +got):\n%s", diff)
	}
}

func TestObjectOfGarbage(t *testing.T) {
	o := newObject(podURL, Key{Kind: "Pod", Namespace: "ns", Name: "n"}, []byte{0x0a, 0xff, 0xff}, 7, 3, 0, apiv1.EventType_EVENT_TYPE_MODIFIED)
	if m := o.Meta(); m == nil {
		t.Error("no metadata")
	}
	if got := o.Field(podField("metadata.name")); got != "" {
		t.Errorf("field is %q", got)
	}
}

func podField(path string) wire.Field {
	pods := kinds.Of(new(corev1.Pod))
	f, _ := pods.Field(path)
	return f
}

func TestField(t *testing.T) {
	o := testObject(t, testPod(), 42)
	for path, want := range map[string]string{
		"spec.nodeName":            "node-1",
		"status.phase":             "Running",
		"spec.hostNetwork":         "true",
		"metadata.name":            "web-0", // in both occurrences of the metadata
		"status.nominatedNodeName": "",
		"not a field":              "",
	} {
		if got := o.Field(podField(path)); got != want {
			t.Errorf("Field(%s) = %q, want %q", path, got, want)
		}
	}
}

func TestFrame(t *testing.T) {
	pod := testPod()
	before := testObject(t, pod, 10)
	pod.Status.Phase = "Failed"
	after := testObject(t, pod, 99)
	running := Match(func(o *Object) bool { return o.Field(podField("status.phase")) == "Running" })

	at := func(p *corev1.Pod, version string) *corev1.Pod {
		p = proto.CloneOf(p)
		p.Metadata.ResourceVersion = version
		return p
	}
	was := testPod()
	for name, tc := range map[string]struct {
		change *change
		match  Match
		want   apiv1.EventType
		object *corev1.Pod
	}{
		"created":  {&change{revision: 99, object: after}, nil, apiv1.EventType_EVENT_TYPE_ADDED, at(pod, "99")},
		"modified": {&change{revision: 99, object: after, previous: before}, nil, apiv1.EventType_EVENT_TYPE_MODIFIED, at(pod, "99")},
		"deleted":  {&change{revision: 120, previous: after}, nil, apiv1.EventType_EVENT_TYPE_DELETED, at(pod, "120")},
		"starts to match": {
			&change{revision: 99, object: after, previous: before}, func(o *Object) bool { return !running(o) },
			apiv1.EventType_EVENT_TYPE_ADDED, at(pod, "99"),
		},
		"ceases to match": {
			&change{revision: 99, object: after, previous: before}, running, apiv1.EventType_EVENT_TYPE_DELETED, at(was, "99"),
		},
		"never matched":         {&change{revision: 99, object: after}, running, 0, nil},
		"deleted, not matching": {&change{revision: 120, previous: after}, running, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e, ok := tc.change.event(tc.match)
			if ok != (tc.object != nil) {
				t.Fatalf("seen is %t", ok)
			}
			if !ok {
				return
			}
			got := new(apiv1.WatchResponse)
			if err := proto.Unmarshal(e.Frame(), got); err != nil {
				t.Fatal(err)
			}
			if got.Type != tc.want || e.Type != tc.want {
				t.Errorf("type is %v in the frame and %v in the event, want %v", got.Type, e.Type, tc.want)
			}
			object, err := got.Object.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.object, object, protocmp.Transform()); diff != "" {
				t.Errorf("object differs (-want +got):\n%s", diff)
			}
			if got.ResourceVersion != tc.object.Metadata.ResourceVersion {
				t.Errorf("resource version is %s, want %s", got.ResourceVersion, tc.object.Metadata.ResourceVersion)
			}
			if again, _ := tc.change.event(tc.match); &again.Frame()[0] != &e.Frame()[0] {
				t.Error("the frame is made twice")
			}
		})
	}

	got := new(apiv1.WatchResponse)
	if err := proto.Unmarshal(bookmark(77, true).Frame(), got); err != nil {
		t.Fatal(err)
	}
	want := &apiv1.WatchResponse{Type: apiv1.EventType_EVENT_TYPE_BOOKMARK, ResourceVersion: "77", InitialStateEnd: true}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("bookmark differs (-want +got):\n%s", diff)
	}
}
