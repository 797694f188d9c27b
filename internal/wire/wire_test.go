package wire_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/wire"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func encoded(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestText(t *testing.T) {
	pod := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Name: "web"},
		Spec:     &corev1.PodSpec{NodeName: "node-1", HostNetwork: true, Priority: proto.Int32(-3)},
	}
	for _, tt := range []struct {
		name    string
		message proto.Message
		path    []protowire.Number
		want    string
	}{
		{"string", pod, []protowire.Number{2, 10}, "node-1"},
		{"string, absent", pod, []protowire.Number{3, 1}, ""},
		{"bool", pod, []protowire.Number{2, 11}, "true"},
		{"bool, absent", &corev1.Pod{Spec: &corev1.PodSpec{}}, []protowire.Number{2, 11}, "false"},
		{"bool in an absent message", &corev1.Pod{}, []protowire.Number{2, 11}, "false"},
		{"negative integer", pod, []protowire.Number{2, 25}, "-3"},
		{"integer, absent", &corev1.Pod{}, []protowire.Number{2, 25}, "0"},
		{"optional integer, set to zero", &appsv1.Deployment{Spec: &appsv1.DeploymentSpec{Replicas: proto.Int32(0)}}, []protowire.Number{2, 1}, "0"},
		{"64 bits", &metav1.ObjectMeta{Generation: 1 << 40}, []protowire.Number{7}, "1099511627776"},
		{"enum", &apiv1.WatchResponse{Type: apiv1.EventType_EVENT_TYPE_ADDED}, []protowire.Number{1}, "EVENT_TYPE_ADDED"},
		{"enum, absent", &apiv1.WatchResponse{}, []protowire.Number{1}, "EVENT_TYPE_UNSPECIFIED"},
		{"enum, of a later version", &apiv1.WatchResponse{Type: 99}, []protowire.Number{1}, "99"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := wire.Resolve(tt.message.ProtoReflect().Descriptor(), tt.path...)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := f.Text(encoded(t, tt.message)); err != nil || got != tt.want {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	if got, err := (wire.Field{}).Text(encoded(t, pod)); err != nil || got != "" {
		t.Errorf("the zero field reads %q, %v", got, err)
	}
}

func TestOccurrencesMerge(t *testing.T) {
	raw := append(encoded(t, &corev1.Pod{Spec: &corev1.PodSpec{NodeName: "node-1", RestartPolicy: "Always"}}),
		encoded(t, &corev1.Pod{Spec: &corev1.PodSpec{NodeName: "node-2"}})...)
	for want, path := range map[string][]protowire.Number{"node-2": {2, 10}, "Always": {2, 3}} {
		if got, err := wire.String(raw, path...); err != nil || got != want {
			t.Errorf("String(%v) = %q, %v; want %q", path, got, err, want)
		}
	}
	parts := 0
	if err := wire.Each(raw, 2, func([]byte) error { parts++; return nil }); err != nil || parts != 2 {
		t.Errorf("Each saw %d occurrences, %v; want 2", parts, err)
	}
}

func TestMalformed(t *testing.T) {
	raw := encoded(t, &corev1.Pod{Spec: &corev1.PodSpec{NodeName: "node-1"}})
	raw = raw[:len(raw)-2]
	f, err := wire.Resolve((&corev1.Pod{}).ProtoReflect().Descriptor(), 2, 10)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Text(raw); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("Text: %v", err)
	}
	if err := wire.Each(raw, 2, func([]byte) error { return nil }); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("Each: %v", err)
	}
}

func TestResolveRefuses(t *testing.T) {
	d := (&corev1.Pod{}).ProtoReflect().Descriptor()
	for name, path := range map[string][]protowire.Number{
		"nothing": {}, "a message": {2}, "no such field": {2, 9999}, "a list": {2, 2}, "a map": {1, 11}, "below a string": {2, 10, 1},
	} {
		if _, err := wire.Resolve(d, path...); err == nil {
			t.Errorf("%s: %v is resolved", name, path)
		}
	}
}

func TestHead(t *testing.T) {
	message := encoded(t, &corev1.Pod{Metadata: &metav1.ObjectMeta{
		Name: "web", Namespace: "default", Annotations: map[string]string{"text": "a long text that is cut off"},
	}})
	for n := range len(message) + 1 {
		name, namespace := wire.Head(message[:n], 1, 1), wire.Head(message[:n], 1, 3)
		if n >= len("\n.\n.web\x1a.default") && (name != "web" || namespace != "default") ||
			len(name) > len("web") || len(namespace) > len("default") {
			t.Errorf("the first %d bytes have name %q and namespace %q", n, name, namespace)
		}
	}
	if got := wire.Head(append(encoded(t, &apiv1.ObjectReference{Name: "a"}), encoded(t, &apiv1.ObjectReference{Name: "b"})...), 4); got != "b" {
		t.Errorf("got %q of a field that occurs twice, want the last", got)
	}
	if got := wire.Head([]byte{0xff, 0xff}, 1); got != "" {
		t.Errorf("read %q of bytes that are no message", got)
	}
}
