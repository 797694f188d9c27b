package apiserver

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestNodesWatchOnlySummariesOfOtherNodesPods also checks which fields a summary has.
func TestNodesWatchOnlySummariesOfOtherNodesPods(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	waitNamespace(t, admin(conn))
	made, err := client.Create(t.Context(), admin(conn), &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"a": "secret"}},
		Spec: &corev1.PodSpec{NodeName: "node-2", Containers: []*corev1.Container{{
			Name: "c", Image: "secret", Command: []string{"secret"}, Env: []*corev1.EnvVar{{Name: "PASSWORD", Value: "secret"}},
			Ports: []*corev1.ContainerPort{{Name: "http", ContainerPort: 80}, {ContainerPort: 81}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	node := apiv1.NewResourceServiceClient(as{ClientConnInterface: conn, User: "system:node:node-1", Group: "system:nodes"})
	watch := func(req *apiv1.WatchRequest) (*apiv1.WatchResponse, error) {
		stream, err := node.Watch(t.Context(), req)
		if err != nil {
			return nil, err
		}
		return stream.Recv()
	}
	if _, err := watch(&apiv1.WatchRequest{Kind: "Pod"}); !apierr.IsForbidden(err) {
		t.Errorf("a node watches all pods: %v", err)
	}
	if _, err := watch(&apiv1.WatchRequest{Kind: "Node", Outline: true}); err == nil {
		t.Error("summaries of nodes can be watched")
	}
	got, err := watch(&apiv1.WatchRequest{Kind: "Pod", Outline: true})
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := got.GetObject().UnmarshalTo(&pod); err != nil {
		t.Fatal(err)
	}
	m := made.GetMetadata()
	want := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{
			Name: "web", Namespace: "default", Uid: m.GetUid(), Labels: map[string]string{"app": "web"},
			ResourceVersion: m.GetResourceVersion(), CreationTimestamp: m.GetCreationTimestamp(),
		},
		Spec: &corev1.PodSpec{NodeName: "node-2", Containers: []*corev1.Container{{
			Name: "c", Ports: []*corev1.ContainerPort{{Name: "http", ContainerPort: 80, Protocol: "TCP"}},
		}}},
		Status: &corev1.PodStatus{Phase: "Pending"},
	}
	if !proto.Equal(&pod, want) {
		t.Errorf("the summary is\n%v\nwant\n%v", &pod, want)
	}
	if got.GetType() != apiv1.EventType_EVENT_TYPE_ADDED || got.GetResourceVersion() != m.GetResourceVersion() {
		t.Errorf("the event is %v of revision %s", got.GetType(), got.GetResourceVersion())
	}
}
