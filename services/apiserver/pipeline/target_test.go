package pipeline

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/kinds"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/registry"
)

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestDecodedTarget compares what rights are checked for, read from the encoded form, with what is
// decoded and written.
func TestDecodedTarget(t *testing.T) {
	first := packed(t, &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "a"}})
	second := packed(t, &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Name: "b"}})
	both := &anypb.Any{TypeUrl: first.GetTypeUrl(), Value: append(first.GetValue(), second.GetValue()...)}
	p := &Pipeline{Scheme: kinds.NewScheme()}
	target, err := p.targetOf(authz.Update, both)
	if err != nil {
		t.Fatal(err)
	}
	o, err := decodeAny(target, both)
	if err != nil || target.key != registry.KeyOfObject(target.kind, o) || target.key.Name != "b" || target.key.Namespace != "default" {
		t.Errorf("the target is %v, %v; decoded it is %v", target.key, err, registry.KeyOfObject(target.kind, o))
	}
	bound := &corev1.Pod{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: &corev1.PodSpec{NodeName: "node-1"}}
	if target, err := p.targetOf(authz.Create, packed(t, bound)); err != nil || target.node != "node-1" {
		t.Errorf("the pod's node is %q, %v", target.node, err)
	}
}
