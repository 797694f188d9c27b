package describe

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestGenericDescription describes an object of a kind that the program was not compiled with, with
// a pod template and conditions.
func TestGenericDescription(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	set := &appsv1.Deployment{
		Metadata: &metav1.ObjectMeta{
			Name: "web", Namespace: "default", Labels: map[string]string{"app": "web"}, CreationTimestamp: timestamppb.New(now.Add(-time.Hour)),
		},
		Spec: &appsv1.DeploymentSpec{MinReadySeconds: 7, Template: &corev1.PodTemplateSpec{
			Metadata: &metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
			Spec:     &corev1.PodSpec{Containers: []*corev1.Container{{Name: "echo", Image: "echo:1"}}},
		}},
		Status: &appsv1.DeploymentStatus{Replicas: 3, Conditions: []*appsv1.DeploymentCondition{{
			Type: "Available", Status: "True", Reason: "Enough", Message: "there are enough", LastTransitionTime: timestamppb.New(now.Add(-time.Minute)),
		}}},
	}
	k := &scheme.Kind{Group: "example.com", Version: "v1", Name: "Set", Plural: "sets", Singular: "set", Namespaced: true, Dynamic: true}
	k.New = scheme.Constructor(k, set.ProtoReflect().Descriptor())
	obj := k.New()
	raw, err := proto.Marshal(set)
	if err == nil {
		err = proto.Unmarshal(raw, obj)
	}
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	r := newReport(&b, now)
	if err := r.object(t.Context(), nil, obj); err != nil {
		t.Fatal(err)
	}
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	const want = `Name:         web
Namespace:    default
Labels:       app=web
Annotations:  <none>
API Version:  example.com/v1
Kind:         Set
Age:          60m
Spec:
  Min Ready Seconds:  7
Status:
  Replicas:  3
Pod Template:
  Labels:       app=web
  Annotations:  <none>
  Containers:
    echo:
      Image:        echo:1
      Ports:        <none>
      Environment:  <none>
      Mounts:       <none>
  Volumes:          <none>
Conditions:
  Type       Status  Since  Reason  Message
  ----       ------  -----  ------  -------
  Available  True    60s    Enough  there are enough
`
	if b.String() != want {
		t.Errorf("the description is\n%s\nwant\n%s", b.String(), want)
	}
}
