package apiserver

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestListKinds(t *testing.T) {
	kinds := kinds.NewScheme()
	service := &discoveryService{kinds: kinds}
	resp, err := service.ListKinds(t.Context(), &apiv1.ListKindsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(resp.GetKinds()), len(kinds.Served()); got != want {
		t.Errorf("%d kinds are listed, want %d", got, want)
	}
	var deployment *apiv1.KindDescription
	for _, d := range resp.GetKinds() {
		if d.GetKind() == "Deployment" {
			deployment = d
		}
	}
	want := &apiv1.KindDescription{
		Group: "apps", Version: "v1", Kind: "Deployment", Plural: "deployments", Singular: "deployment", ShortNames: []string{"deploy"},
		Namespaced: true, Stored: true, Message: "xebec.apps.v1.Deployment",
		Verbs: []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"},
		Subresources: []*apiv1.SubresourceDescription{
			{Name: "scale", Verbs: []string{"get", "patch", "update"}}, {Name: "status", Verbs: []string{"patch", "update"}},
		},
		Scale:            &apiv1.ScaleDescription{ReplicasPath: ".spec.replicas", StatusReplicasPath: ".status.replicas", SelectorPath: ".spec.selector"},
		SelectableFields: []string{"metadata.name", "metadata.namespace"},
		Categories:       []string{"all"},
		Columns:          deployment.GetColumns(),
	}
	if !proto.Equal(deployment, want) {
		t.Errorf("deployments are described as\n%v, want\n%v", deployment, want)
	}
	var columns []string
	for _, c := range deployment.GetColumns() {
		columns = append(columns, c.GetName()+c.GetJsonPath())
	}
	if got := strings.Join(columns, " "); !strings.HasPrefix(got, "READY UP-TO-DATE.status.updatedReplicas AVAILABLE.status.availableReplicas AGE") {
		t.Errorf("columns are %s", got)
	}
}

// TestListKindsFollowsTheScheme adds and removes a kind and a version that is not stored.
func TestListKindsFollowsTheScheme(t *testing.T) {
	stored := kinds.Of(new(corev1.ConfigMap))
	same := func(o scheme.Object) (scheme.Object, error) { return o, nil }
	served := &scheme.Kind{
		Group: "example.com", Version: "v1", Name: "ConfigMap", Plural: "configmaps", Singular: "configmap", Namespaced: true,
		New:        func() scheme.Object { return new(corev1.Secret) },
		Conversion: &scheme.Conversion{Stored: stored, ToStored: same, FromStored: same},
	}
	kinds, err := scheme.New(stored)
	if err != nil {
		t.Fatal(err)
	}
	service := &discoveryService{kinds: kinds}
	list := func() string {
		resp, err := service.ListKinds(t.Context(), &apiv1.ListKindsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, d := range resp.GetKinds() {
			name := d.GetGroup() + "/" + d.GetKind()
			if !d.GetStored() {
				name += " converted"
			}
			names = append(names, name)
		}
		return strings.Join(names, ", ")
	}
	if err := kinds.Register(served); err != nil {
		t.Fatal(err)
	}
	if got := list(); got != "/ConfigMap, example.com/ConfigMap converted" {
		t.Errorf("after registration: %s", got)
	}
	if err := kinds.Unregister(served); err != nil {
		t.Fatal(err)
	}
	if got := list(); got != "/ConfigMap" {
		t.Errorf("after removal: %s", got)
	}
}

// TestGetSchema reads a pod with nothing but the schema of the response.
func TestGetSchema(t *testing.T) {
	service := &discoveryService{kinds: kinds.NewScheme()}
	resp, err := service.GetSchema(t.Context(), &apiv1.GetSchemaRequest{Kind: "Pod", Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Marshal(resp.GetFiles())
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 256<<10 {
		t.Errorf("the schema has %d bytes", len(raw))
	}
	for name, want := range map[string]string{
		"xebec.core.v1.Pod": "Pod ", "xebec.core.v1.PodSpec.containers": "ontainers", "xebec.meta.v1.ObjectMeta.name": "ame",
	} {
		if !strings.Contains(resp.GetComments()[name], want) {
			t.Errorf("the comment of %s is %q", name, resp.GetComments()[name])
		}
	}
	if text, ok := resp.GetComments()["xebec.core.v1.Node"]; ok {
		t.Errorf("a message that pods do not refer to has the comment %q", text)
	}
	files, err := protodesc.NewFiles(resp.GetFiles())
	if err != nil {
		t.Fatal(err)
	}
	d, err := files.FindDescriptorByName("xebec.core.v1.Pod")
	if err != nil {
		t.Fatal(err)
	}
	raw, err = proto.Marshal(&corev1.Pod{Metadata: &metav1.ObjectMeta{Name: "web"}, Spec: &corev1.PodSpec{NodeName: "node-1"}})
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(d.(protoreflect.MessageDescriptor))
	if err := proto.Unmarshal(raw, m); err != nil {
		t.Fatal(err)
	}
	if len(m.GetUnknown()) > 0 {
		t.Errorf("fields of a pod are unknown: %x", m.GetUnknown())
	}
	for _, req := range []*apiv1.GetSchemaRequest{{Kind: "Pod", Group: "apps"}, {Kind: "Pod", Version: "v2"}, {Kind: "pods"}, {}} {
		if _, err := service.GetSchema(t.Context(), req); !apierr.IsBadRequest(err) {
			t.Errorf("%v: %v", req, err)
		}
	}
}
