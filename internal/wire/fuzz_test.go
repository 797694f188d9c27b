package wire_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/wire"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// FuzzString reads fields of any bytes. Whatever protobuf decodes reads the same here.
func FuzzString(f *testing.F) {
	raw, err := proto.Marshal(&corev1.Pod{
		Metadata: &metav1.ObjectMeta{Name: "web", Namespace: "shop"},
		Spec:     &corev1.PodSpec{NodeName: "node-1"},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[:len(raw)-3])
	f.Add(append(raw, raw...))
	f.Fuzz(func(t *testing.T, message []byte) {
		pod := &corev1.Pod{}
		decodes := proto.Unmarshal(message, pod) == nil
		for _, field := range []struct {
			path []protowire.Number
			want string
		}{
			{[]protowire.Number{1, 1}, pod.GetMetadata().GetName()},
			{[]protowire.Number{1, 3}, pod.GetMetadata().GetNamespace()},
			{[]protowire.Number{2, 10}, pod.GetSpec().GetNodeName()},
		} {
			got, err := wire.String(message, field.path...)
			head := wire.Head(message, field.path...)
			if decodes && (err != nil || got != field.want || head != field.want) {
				t.Errorf("field %v is %q, %v, and %q as a head: want %q", field.path, got, err, head, field.want)
			}
		}
	})
}

// FuzzEach calls its function for every occurrence of a field, as protobuf decodes a repeated one.
func FuzzEach(f *testing.F) {
	raw, err := proto.Marshal(&metav1.ObjectMeta{Finalizers: []string{"a", "", "c"}, Name: "web"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add(raw[:len(raw)-1])
	f.Fuzz(func(t *testing.T, message []byte) {
		meta := &metav1.ObjectMeta{}
		decodes := proto.Unmarshal(message, meta) == nil
		var got []string
		number := meta.ProtoReflect().Descriptor().Fields().ByName("finalizers").Number()
		err := wire.Each(message, number, func(part []byte) error { got = append(got, string(part)); return nil })
		if !decodes {
			return
		}
		want := meta.GetFinalizers()
		if err != nil || len(got) != len(want) {
			t.Fatalf("got %q, %v: want %q", got, err, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("occurrence %d is %q, want %q", i, got[i], want[i])
			}
		}
	})
}
