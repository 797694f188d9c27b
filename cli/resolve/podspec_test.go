package resolve

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// dynamic returns a copy of an object as one of a kind that the program was not compiled with.
func dynamic(t *testing.T, obj scheme.Object) scheme.Object {
	t.Helper()
	k := &scheme.Kind{Group: "example.com", Version: "v1", Name: "Set", Plural: "sets", Singular: "set", Namespaced: true, Dynamic: true}
	k.New = scheme.Constructor(k, obj.ProtoReflect().Descriptor())
	made := k.New()
	raw, err := proto.Marshal(obj)
	if err == nil {
		err = proto.Unmarshal(raw, made)
	}
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestPodSpec(t *testing.T) {
	spec := &corev1.PodSpec{NodeName: "before"}
	deployment := &appsv1.Deployment{
		Metadata: &metav1.ObjectMeta{Name: "web"}, Spec: &appsv1.DeploymentSpec{Template: &corev1.PodTemplateSpec{Spec: spec}},
	}
	template := []string{"spec", "template"}
	for name, tt := range map[string]struct {
		obj  scheme.Object
		spec bool
		path []string
	}{
		"pod":                        {&corev1.Pod{Spec: proto.CloneOf(spec)}, true, nil},
		"pod without spec":           {&corev1.Pod{}, false, nil},
		"deployment":                 {proto.CloneOf(deployment), true, template},
		"deployment, dynamic":        {dynamic(t, deployment), true, template},
		"deployment without a spec":  {&appsv1.Deployment{}, false, nil},
		"kind that has no pods":      {&corev1.ConfigMap{}, false, nil},
		"kind with a selector alone": {&corev1.Service{Spec: &corev1.ServiceSpec{}}, false, nil},
	} {
		if path := tt.path; path != nil {
			if found, at := PodTemplate(tt.obj); found.GetSpec().GetNodeName() != "before" || !slices.Equal(at, path) {
				t.Errorf("%s: the template at %q is %v", name, at, found)
			}
		} else if found, _ := PodTemplate(tt.obj); found != nil {
			t.Errorf("%s: the template is %v", name, found)
		}
		found := PodSpec(tt.obj)
		if (found != nil) != tt.spec {
			t.Errorf("%s: the pod spec is %v", name, found)
		}
		if found == nil {
			continue
		}
		found.NodeName = "after"
		raw, err := proto.Marshal(tt.obj)
		if err != nil {
			t.Fatal(err)
		}
		again := tt.obj.ProtoReflect().New().Interface().(scheme.Object)
		if err := proto.Unmarshal(raw, again); err != nil || PodSpec(again).GetNodeName() != "after" {
			t.Errorf("%s: a change of the pod spec makes %v, %v", name, again, err)
		}
	}
}
