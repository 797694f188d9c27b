package client_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/kinds"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// recorder is a connection that keeps the last request and answers nothing.
type recorder struct {
	grpc.ClientConnInterface
	request proto.Message
}

func (r *recorder) Invoke(_ context.Context, _ string, req, _ any, _ ...grpc.CallOption) error {
	r.request = req.(proto.Message)
	return nil
}

func exists(name string) *apiv1.Condition {
	return &apiv1.Condition{
		Object:      &apiv1.ObjectReference{Kind: "ConfigMap", Namespace: "default", Name: name},
		Expectation: apiv1.Expectation_EXPECTATION_EXISTS,
	}
}

// TestEveryWriteIsConditional makes each write by a client with a fence, conditions and a field
// manager: the request has them all, for a transaction the field manager in its operations.
func TestEveryWriteIsConditional(t *testing.T) {
	conn := &recorder{}
	k := kinds.Of(new(corev1.ConfigMap))
	obj := configMap("a", "1")
	obj.Metadata.ResourceVersion = "7"
	c := client.New(conn, client.WithFieldManager("me")).WithFence(&apiv1.Fence{Name: "workloads"}).
		WithConditions(exists("b")).WithConditions(client.Absent(k, "default", "c"), client.AtRevision(obj))
	ctx := t.Context()
	writes := map[string]func() error{
		"Create":           func() error { _, err := client.Create(ctx, c, obj); return err },
		"Update":           func() error { _, err := client.Update(ctx, c, obj); return err },
		"UpdateStatus":     func() error { _, err := client.UpdateStatus(ctx, c, obj); return err },
		"Apply":            func() error { _, _, err := client.Apply(ctx, c, obj); return err },
		"ApplyJSON":        func() error { _, _, err := client.ApplyJSON(ctx, c, k, "default", "a", []byte("{}")); return err },
		"Patch":            func() error { _, err := client.PatchKind(ctx, c, k, "default", "a", []byte("{}")); return err },
		"Delete":           func() error { _, err := client.DeleteKind(ctx, c, k, "default", "a"); return err },
		"DeleteCollection": func() error { _, err := client.DeleteCollectionKind(ctx, c, k, client.ListOptions{}); return err },
	}
	for name, op := range map[string]client.Operation{
		"OpCreate": client.OpCreate(obj), "OpUpdate": client.OpUpdate(obj), "OpUpdateStatus": client.OpUpdateStatus(obj),
		"OpApplyJSON": client.OpApplyJSON(k, "default", "a", []byte("{}")),
		"OpDelete":    client.OpDelete(k, "default", "a"), "OpBind": client.OpBind("default", "p", "", "node-1"),
	} {
		writes[name] = func() error { _, err := client.Transact(ctx, c, op); return err }
	}
	for name, write := range writes {
		conn.request = nil
		err := write()
		req, ok := conn.request.(interface {
			GetFence() *apiv1.Fence
			GetConditions() []*apiv1.Condition
		})
		if !ok {
			t.Errorf("%s sent %T: %v", name, conn.request, err)
			continue
		}
		if req.GetFence().GetName() != "workloads" {
			t.Errorf("%s has no fence", name)
		}
		want := []apiv1.Expectation{
			apiv1.Expectation_EXPECTATION_EXISTS, apiv1.Expectation_EXPECTATION_ABSENT, apiv1.Expectation_EXPECTATION_AT_REVISION,
		}
		for i, cond := range req.GetConditions() {
			if i < len(want) && cond.GetExpectation() != want[i] {
				t.Errorf("condition %d of %s is %v", i, name, cond)
			}
		}
		if n := len(req.GetConditions()); n != len(want) || req.GetConditions()[2].GetResourceVersion() != "7" {
			t.Errorf("%s has the conditions %v", name, req.GetConditions())
		}
		if got := managerOf(conn.request); got != "me" {
			t.Errorf("%s has the field manager %q", name, got)
		}
	}
}

// managerOf is the field manager of a request, or of the operation in a transaction.
func managerOf(req proto.Message) string {
	m := req.ProtoReflect()
	if tx, ok := req.(*apiv1.TransactRequest); ok {
		op := tx.GetOperations()[0].ProtoReflect()
		op.Range(func(_ protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			m = v.Message()
			return false
		})
	}
	return m.Get(m.Descriptor().Fields().ByName("field_manager")).String()
}

// TestConditions writes on conditions that hold and on such that do not.
func TestConditions(t *testing.T) {
	s, c := clienttest.Start(t)
	k := kinds.Of(new(corev1.ConfigMap))
	there := clienttest.Seed(s, configMap("there", "1"))[0]
	for name, tt := range map[string]struct {
		holds     bool
		condition *apiv1.Condition
	}{
		"exists":     {true, exists("there")},
		"missing":    {false, exists("none")},
		"absent":     {true, client.Absent(k, "default", "none")},
		"not-absent": {false, client.Absent(k, "default", "there")},
		"unchanged":  {true, client.AtRevision(there)},
	} {
		_, err := client.Create(t.Context(), c.WithConditions(tt.condition), configMap(name, "1"))
		if tt.holds && err != nil || !tt.holds && !apierr.IsConditionFailed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	changed := client.Clone(there)
	changed.Data["key"] = "2"
	if _, err := client.Update(t.Context(), c, changed); err != nil {
		t.Fatal(err)
	}
	_, err := client.Delete[*corev1.ConfigMap](t.Context(), c.WithConditions(client.AtRevision(there)), "default", "exists")
	if !apierr.IsConditionFailed(err) || !strings.Contains(err.Error(), "there") {
		t.Errorf("a delete on a former revision: %v", err)
	}
}
