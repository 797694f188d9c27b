package apiserver

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestStatusSubresource writes statuses in each way: metadata change with Update and Patch, and not
// with UpdateStatus.
func TestStatusSubresource(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	r := apiv1.NewResourceServiceClient(as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins})
	do[*corev1.Pod](t)(client.Create(ctx, c, pod("p")))
	p := pod("p")
	p.Metadata.Labels = map[string]string{"a": "b"}
	p.Metadata.OwnerReferences = []*metav1.OwnerReference{{ApiVersion: "v1", Kind: "Node", Name: "n", Uid: "u"}}
	p.Status = &corev1.PodStatus{Phase: "Running"}
	get := func() *corev1.Pod { return do[*corev1.Pod](t)(client.Get[*corev1.Pod](ctx, c, "default", "p")) }

	if _, err := r.UpdateStatus(ctx, &apiv1.UpdateStatusRequest{Object: packed(t, p), DryRun: true}); err != nil || get().GetStatus().GetPhase() == "Running" {
		t.Errorf("a dry run: %v, %v", get().GetStatus(), err)
	}
	if _, err := r.UpdateStatus(ctx, &apiv1.UpdateStatusRequest{Object: packed(t, p), FieldManager: "m"}); err != nil {
		t.Fatal(err)
	}
	got := get()
	if got.GetStatus().GetPhase() != "Running" || len(got.GetMetadata().GetLabels()) != 0 {
		t.Errorf("UpdateStatus left %v", got)
	}
	if m := got.GetMetadata().GetManagedFields(); len(m) != 1 || m[0].GetSubresource() != "status" || m[0].GetManager() != "m" || !strings.Contains(string(m[0].GetFieldsV1().GetRaw()), "f:phase") {
		t.Errorf("the owners are %v", m)
	}
	if _, err := r.Update(ctx, &apiv1.UpdateRequest{Object: packed(t, p), Subresource: "status"}); err != nil {
		t.Fatal(err)
	}
	if m := get().GetMetadata(); m.GetLabels()["a"] != "b" || len(m.GetOwnerReferences()) != 0 {
		t.Errorf("Update of the status left %v", m)
	}
	patch := &apiv1.PatchRequest{
		Object: &apiv1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p"}, Subresource: "status", Type: apiv1.PatchType_PATCH_TYPE_MERGE,
		Patch: []byte(`{"metadata":{"labels":{"a":"c"}},"spec":{"activeDeadlineSeconds":7},"status":{"reason":"R"}}`),
	}
	if _, err := r.Patch(ctx, patch); err != nil {
		t.Fatal(err)
	}
	if got := get(); got.GetMetadata().GetLabels()["a"] != "c" || got.GetStatus().GetReason() != "R" || got.GetSpec().ActiveDeadlineSeconds != nil {
		t.Errorf("Patch of the status left %v", got)
	}
	patch.Patch = []byte(`{"metadata":{"labels":{"bad label":"c"}}}`)
	if _, err := r.Patch(ctx, patch); !strings.Contains(err.Error(), "metadata.labels") {
		t.Errorf("a bad label: %v", err)
	}
	patch.Subresource = "scale"
	if _, err := r.Patch(ctx, patch); apierr.Reason(err) != apierr.ReasonUnsupported {
		t.Errorf("a subresource of other kinds: %v", err)
	}
	for _, name := range []string{"spec", "log"} {
		patch.Subresource = name
		_, err := r.Patch(ctx, patch)
		if apierr.Reason(err) != apierr.ReasonBadRequest || !strings.Contains(err.Error(), "want one of empty, ephemeralcontainers, resize, status") {
			t.Errorf("subresource %s: %v", name, err)
		}
	}
}

// TestResizeSubresource changes the resources of a pod in each way. Plain updates may not; what a
// resize does not change is ignored, and its managers own no more than resources.
func TestResizeSubresource(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	p := pod("p")
	name := p.Spec.Containers[0].GetName()
	p.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Requests: map[string]*metav1.Quantity{"cpu": {String_: "100m"}}}
	stored := do[*corev1.Pod](t)(client.Create(ctx, c, p))
	asking := func(cpu string) *corev1.Pod {
		p := client.Clone(stored)
		p.Metadata.ResourceVersion, p.Metadata.Labels = "", map[string]string{"a": "b"}
		p.Spec.Containers[0].Resources.Requests["cpu"].String_ = cpu
		p.Spec.Containers[0].Image = "other:1"
		return p
	}
	check := func(p *corev1.Pod, cpu string) {
		t.Helper()
		box := p.GetSpec().GetContainers()[0]
		if box.GetResources().GetRequests()["cpu"].GetString_() != cpu || box.GetImage() == "other:1" || len(p.GetMetadata().GetLabels()) != 0 {
			t.Errorf("want %s of cpu and no other change: %v", cpu, p)
		}
	}

	if _, err := client.Update(ctx, c, asking("200m")); !strings.Contains(fmt.Sprint(err), "pod updates may not change fields other than") {
		t.Errorf("a plain update: %v", err)
	}
	updated := do[*corev1.Pod](t)(client.Update(ctx, c.WithFieldManager("updater"), asking("200m"), client.Subresource("resize")))
	check(updated, "200m")
	if updated.GetMetadata().GetGeneration() != stored.GetMetadata().GetGeneration()+1 {
		t.Errorf("the generation is %d after %d", updated.GetMetadata().GetGeneration(), stored.GetMetadata().GetGeneration())
	}
	patch := `{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"` + name + `","resources":{"requests":{"cpu":"300m"}}}]}}`
	check(do[*corev1.Pod](t)(client.Patch[*corev1.Pod](ctx, c, "default", "p", []byte(patch), client.StrategicPatch, client.Subresource("resize"))), "300m")
	applied, _, err := client.Apply(ctx, c.WithFieldManager("applier"), &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Name: "p", Namespace: "default", Labels: map[string]string{"a": "b"}},
		Spec: &corev1.PodSpec{Containers: []*corev1.Container{{Name: name, Image: "other:1", Resources: &corev1.ResourceRequirements{
			Requests: map[string]*metav1.Quantity{"cpu": {String_: "400m"}},
		}}}},
	}, client.Force, client.Subresource("resize"))
	if err != nil {
		t.Fatal(err)
	}
	check(applied, "400m")
	for _, e := range applied.GetMetadata().GetManagedFields() {
		owned := string(e.GetFieldsV1().GetRaw())
		switch {
		case e.GetManager() != "applier":
		case e.GetSubresource() != "resize" || !strings.Contains(owned, "f:cpu") || strings.Contains(owned, "f:image") || strings.Contains(owned, "f:labels"):
			t.Errorf("the applier owns %s by subresource %q", owned, e.GetSubresource())
		default:
			name = ""
		}
	}
	if name != "" {
		t.Errorf("the applier owns nothing: %v", applied.GetMetadata().GetManagedFields())
	}
	r := apiv1.NewResourceServiceClient(as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins})
	read, err := r.Get(ctx, &apiv1.GetRequest{Object: &apiv1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p"}, Subresource: "resize"})
	if err != nil || read.GetObject().GetTypeUrl() != kinds.Of(applied).TypeURL() {
		t.Errorf("get: %v, %v", read, err)
	}
	ungranted := apiv1.NewResourceServiceClient(as{ClientConnInterface: conn, User: "xebec:scheduler", Group: authz.GroupServices})
	if _, err := ungranted.Update(ctx, &apiv1.UpdateRequest{Object: packed(t, asking("1")), Subresource: "resize"}); apierr.Code(err) != codes.PermissionDenied ||
		!strings.Contains(err.Error(), "pods/resize") {
		t.Errorf("without the right: %v", err)
	}
}

// TestEphemeralContainersSubresource adds an ephemeral container, which a plain update may not.
func TestEphemeralContainersSubresource(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	p := do[*corev1.Pod](t)(client.Create(ctx, c, pod("p")))
	p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, core.NewEphemeralContainer(&corev1.Container{Name: "debug", Image: "busybox:1"}, ""))
	if _, err := client.Update(ctx, c, p); !strings.Contains(fmt.Sprint(err), "pod updates may not change fields other than") {
		t.Errorf("a plain update: %v", err)
	}
	p = do[*corev1.Pod](t)(client.Update(ctx, c, p, client.Subresource("ephemeralcontainers")))
	if added := core.EphemeralContainers(p.GetSpec()); len(added) != 1 || added[0].GetImagePullPolicy() == "" {
		t.Errorf("ephemeral containers: %v", added)
	}
}

// TestApplyJSON applies empty values, which are owned, and leaves others out, which are not.
func TestApplyJSON(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn).WithFieldManager("m"), t.Context()
	waitNamespace(t, c)
	k := kinds.Of(new(corev1.ConfigMap))
	text := []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"default","name":"a","labels":{}},"immutable":false,"data":{"k":""}}`)
	for _, want := range []apiv1.ApplyResult{apiv1.ApplyResult_APPLY_RESULT_CREATED, apiv1.ApplyResult_APPLY_RESULT_UNCHANGED} {
		if _, result, err := client.ApplyJSON(ctx, c, k, "default", "a", text); err != nil || result != want {
			t.Fatalf("%v, %v, want %v", result, err, want)
		}
	}
	got := do[*corev1.ConfigMap](t)(client.Get[*corev1.ConfigMap](ctx, c, "default", "a"))
	owned := string(got.GetMetadata().GetManagedFields()[0].GetFieldsV1().GetRaw())
	for _, f := range []string{"f:labels", "f:immutable", "f:k"} {
		if !strings.Contains(owned, f) {
			t.Errorf("%s is not owned: %s", f, owned)
		}
	}
	if _, _, err := client.ApplyJSON(ctx, c, k, "default", "b", text); apierr.Reason(err) != apierr.ReasonBadRequest {
		t.Errorf("another object than the reference: %v", err)
	}
	absent := c.WithConditions(client.Absent(k, "default", "a"))
	if _, _, err := client.ApplyJSON(ctx, absent, k, "default", "a", text); !apierr.IsConditionFailed(err) {
		t.Errorf("on a condition that does not hold: %v", err)
	}
	lost := c.WithFence(&apiv1.Fence{Namespace: "default", Name: "none", CreateRevision: "1"})
	if _, _, err := client.ApplyJSON(ctx, lost, k, "default", "a", text); !apierr.IsElectionLost(err) {
		t.Errorf("under a lost election: %v", err)
	}

	do[*corev1.Pod](t)(client.Create(ctx, c, pod("p")))
	status := []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"default","name":"p"},"status":{"message":"","reason":"Why"}}`)
	p, _, err := client.ApplyJSON(ctx, c, kinds.Of(new(corev1.Pod)), "default", "p", status, client.Subresource("status"))
	if err != nil || p.(*corev1.Pod).GetStatus().GetReason() != "Why" {
		t.Errorf("apply to the status: %v, %v", p, err)
	}
}

// TestFieldManagers writes a status and a deletion under a field manager, which owns what it wrote.
func TestFieldManagers(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	p := do[*corev1.Pod](t)(client.Create(ctx, c, pod("p")))
	p.Status.Reason = "Why"
	do[*corev1.Pod](t)(client.UpdateStatus(ctx, c.WithFieldManager("agent"), p))
	do[*client.Result](t)(client.Transact(ctx, c.WithFieldManager("binder"), client.OpBind("default", "p", "", "node-1")))
	do[bool](t)(client.Delete[*corev1.Pod](ctx, c.WithFieldManager("collector"), "default", "p", client.Foreground))
	p = do[*corev1.Pod](t)(client.Get[*corev1.Pod](ctx, c, "default", "p"))
	owned := map[string]string{}
	for _, m := range p.GetMetadata().GetManagedFields() {
		owned[m.GetManager()+" "+m.GetSubresource()] = string(m.GetFieldsV1().GetRaw())
	}
	for manager, field := range map[string]string{"agent status": "f:reason", "binder ": "f:nodeName", "collector ": "f:finalizers"} {
		if !strings.Contains(owned[manager], field) {
			t.Errorf("%q does not own %s: %v", manager, field, owned)
		}
	}
}

// TestRemainingItemCount lists in pages.
func TestRemainingItemCount(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		do[*corev1.ConfigMap](t)(client.Create(ctx, c, configMap(name)))
	}
	r := apiv1.NewResourceServiceClient(as{ClientConnInterface: conn, User: "alice", Group: authz.GroupAdmins})
	req := &apiv1.ListRequest{Kind: "ConfigMap", Namespace: "default", Limit: 2}
	for _, want := range []int64{3, 1, 0} {
		resp, err := r.List(ctx, req)
		if err != nil || resp.GetRemainingItemCount() != want || (resp.RemainingItemCount == nil) != (want == 0) {
			t.Fatalf("%v remain, %v, want %d", resp.RemainingItemCount, err, want)
		}
		req.Continue = resp.GetContinue()
	}
	if resp, err := r.List(ctx, &apiv1.ListRequest{Kind: "ConfigMap", Limit: 1, LabelSelector: "!x"}); err != nil || resp.RemainingItemCount != nil {
		t.Errorf("with a selector %v remain, %v", resp.RemainingItemCount, err)
	}
}

// opApply applies an object, as JSON, in a transaction.
func opApply(o scheme.Object) client.Operation {
	return func(c *client.Client) (*apiv1.Operation, error) {
		text, err := codec.Marshal(o)
		if err != nil {
			return nil, err
		}
		m := o.GetMetadata()
		return client.OpApplyJSON(kinds.Of(o), m.GetNamespace(), m.GetName(), text)(c)
	}
}
