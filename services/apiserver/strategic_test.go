package apiserver

import (
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestStrategicPatch changes one port of a service, alone and within a transaction.
func TestStrategicPatch(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	svc := service("a")
	svc.Spec.Ports = append(svc.GetSpec().GetPorts(), &corev1.ServicePort{Name: "second", Port: 81})
	svc.Spec.Ports[0].Name = "first"
	do[*corev1.Service](t)(client.Create(ctx, c, svc))
	text := []byte(`{"spec":{"ports":[{"port":81,"name":"renamed"}]}}`)
	got := do[*corev1.Service](t)(client.Patch[*corev1.Service](ctx, c, "default", "a", text, client.StrategicPatch))
	if ports := got.GetSpec().GetPorts(); len(ports) != 2 || ports[1].GetName() != "renamed" && ports[0].GetName() != "renamed" {
		t.Errorf("the ports are %v", ports)
	}
	if _, err := client.Patch[*corev1.Service](ctx, c, "default", "a", []byte(`{"spec":{"ports":[{"name":"x"}]}}`), client.StrategicPatch); apierr.Reason(err) != apierr.ReasonBadRequest ||
		!strings.Contains(err.Error(), "lacks port") {
		t.Errorf("an element without its key: %v", err)
	}
	r := apiv1.NewResourceServiceClient(as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins})
	resp, err := r.Transact(ctx, &apiv1.TransactRequest{Operations: []*apiv1.Operation{{Operation: &apiv1.Operation_Patch{Patch: &apiv1.PatchRequest{
		Object: &apiv1.ObjectReference{Kind: "Service", Namespace: "default", Name: "a"}, Type: apiv1.PatchType_PATCH_TYPE_STRATEGIC,
		Patch: []byte(`{"spec":{"ports":[{"port":81,"$patch":"delete"}]}}`),
	}}}}})
	if err != nil {
		t.Fatal(err)
	}
	var after corev1.Service
	if err := resp.GetObjects()[0].UnmarshalTo(&after); err != nil || len(after.GetSpec().GetPorts()) != 1 {
		t.Errorf("after the transaction the ports are %v, %v", after.GetSpec().GetPorts(), err)
	}
}
