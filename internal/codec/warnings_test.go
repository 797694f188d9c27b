package codec_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/xebec-project/xebec/internal/codec"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// plan describes messages with fields that have no effect wherever a field can stand, whatever the
// real messages lack at present.
func plan(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	file := new(descriptorpb.FileDescriptorProto)
	text := `{"name": "plan.proto", "package": "plan", "syntax": "proto3", "messageType": [
		{"name": "Hull", "field": [
			{"name": "sail", "number": 1, "type": "TYPE_STRING", "label": "LABEL_OPTIONAL"},
			{"name": "keel", "number": 2, "type": "TYPE_BOOL", "label": "LABEL_OPTIONAL"}]},
		{"name": "Ship", "field": [
			{"name": "inline_hull", "number": 1, "type": "TYPE_MESSAGE", "typeName": ".plan.Hull", "label": "LABEL_OPTIONAL"},
			{"name": "main_hull", "number": 2, "type": "TYPE_MESSAGE", "typeName": ".plan.Hull", "label": "LABEL_OPTIONAL"},
			{"name": "hulls", "number": 3, "type": "TYPE_MESSAGE", "typeName": ".plan.Hull", "label": "LABEL_REPEATED"},
			{"name": "by_name", "number": 4, "type": "TYPE_MESSAGE", "typeName": ".plan.Ship.ByNameEntry", "label": "LABEL_REPEATED"},
			{"name": "cargo", "number": 5, "type": "TYPE_STRING", "label": "LABEL_REPEATED"}],
		 "nestedType": [{"name": "ByNameEntry", "options": {"mapEntry": true}, "field": [
			{"name": "key", "number": 1, "type": "TYPE_STRING", "label": "LABEL_OPTIONAL"},
			{"name": "value", "number": 2, "type": "TYPE_MESSAGE", "typeName": ".plan.Hull", "label": "LABEL_OPTIONAL"}]}]}]}`
	if err := protojson.Unmarshal([]byte(text), file); err != nil {
		t.Fatal(err)
	}
	rule := func(message, field int, rules *metav1.FieldRules) {
		options := new(descriptorpb.FieldOptions)
		proto.SetExtension(options, metav1.E_Field, rules)
		file.MessageType[message].Field[field].Options = options
	}
	rule(0, 0, &metav1.FieldRules{NoEffect: "there is no wind"})
	rule(1, 0, &metav1.FieldRules{Inline: true})
	rule(1, 4, &metav1.FieldRules{NoEffect: "cargo is left ashore"})
	desc, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return desc.Messages().ByName("Ship")
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		json string
		want []string
	}{
		{`{}`, nil},
		{`{"keel":true,"mainHull":{"keel":true,"sail":""},"hulls":[{}],"cargo":[]}`, nil},
		{`{"sail":"x","mainHull":{"sail":"x"},"hulls":[{},{"sail":"x"}],"byName":{"b":{"sail":"x"},"a":{"sail":"x"}},"cargo":["x"]}`, []string{
			"byName[a].sail: there is no wind",
			"byName[b].sail: there is no wind",
			"cargo: cargo is left ashore",
			"hulls[1].sail: there is no wind",
			"mainHull.sail: there is no wind",
			"sail: there is no wind",
		}},
	}
	desc := plan(t)
	for _, tt := range tests {
		m := dynamicpb.NewMessage(desc)
		if err := codec.UnmarshalInto([]byte(tt.json), m); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, codec.Warnings(m)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.json, diff)
		}
	}
}

func TestWarningsOfLaterFields(t *testing.T) {
	pod := new(corev1.Pod)
	text := `{"spec":{"containers":[{"name":"m","readinessProbe":{"grpc":{"port":1,"mode":"TLS"}}}],"evictionResponders":[{"name":"a.io/b"}]}}`
	if err := codec.UnmarshalInto([]byte(text), pod); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"spec.containers[0].readinessProbe.grpc.mode: the field is of Kubernetes 1.37, which is later than the API served here: other clusters of that API refuse it",
		"spec.evictionResponders: evictions do not ask responders yet",
	}
	if diff := cmp.Diff(want, codec.Warnings(pod)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWarningsOfDuplicates(t *testing.T) {
	pod := new(corev1.Pod)
	text := `{"metadata":{"finalizers":["a/b","a/b"]},"spec":{"containers":[{"name":"m",
		"env":[{"name":"A","value":"1"},{"name":"B"},{"name":"A","value":"2"}],
		"ports":[{"name":"web","containerPort":80},{"name":"admin","containerPort":80,"protocol":"TCP"},{"containerPort":80,"protocol":"UDP"}]}],
		"tolerations":[{"key":"a"},{"key":"a"}]}}`
	if err := codec.UnmarshalInto([]byte(text), pod); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`metadata.finalizers[1]: the same value as metadata.finalizers[0]`,
		`spec.containers[0].env[2]: the same name "A" as spec.containers[0].env[0]: both are kept, and where only one can have effect it is the last`,
		`spec.containers[0].ports[1]: the same containerPort 80 and protocol "TCP" as spec.containers[0].ports[0]: both are kept, and where only one can have effect it is the last`,
	}
	if diff := cmp.Diff(want, codec.Warnings(pod)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
