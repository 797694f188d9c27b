package apiserver

import (
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	resourcev1 "github.com/xebec-project/xebec/proto/xebec/resource/v1"
)

// write is a way to change an object: an update or one of the patches.
type write func(ctx context.Context, c *client.Client, k *scheme.Kind, o scheme.Object) (scheme.Object, error)

// lifecycle is an object that a spec creates and changes in several ways, with the same outcome.
type lifecycle struct {
	spec    string
	initial string
	// changes and statusChanges each lead to an object of which changed and statusChanged hold.
	changes       map[string]write
	changed       func(scheme.Object) bool
	statusChanges map[string]write
	statusChanged func(scheme.Object) bool
}

func updated(edit func(scheme.Object)) write {
	return func(ctx context.Context, c *client.Client, _ *scheme.Kind, o scheme.Object) (scheme.Object, error) {
		edit(o)
		return client.Update(ctx, c, o)
	}
}

func patched(text string, opts ...client.PatchOption) write {
	return func(ctx context.Context, c *client.Client, k *scheme.Kind, o scheme.Object) (scheme.Object, error) {
		m := o.GetMetadata()
		return client.PatchKind(ctx, c, k, m.GetNamespace(), m.GetName(), []byte(text), opts...)
	}
}

func applied(text string, opts ...client.ApplyOption) write {
	return func(ctx context.Context, c *client.Client, k *scheme.Kind, o scheme.Object) (scheme.Object, error) {
		m := o.GetMetadata()
		out, _, err := client.ApplyJSON(ctx, c, k, m.GetNamespace(), m.GetName(), []byte(text), append(opts, client.Force)...)
		return out, err
	}
}

const (
	aClaim = `{"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "a", "namespace": "default", "labels": {"test": "dra"}},
		"spec": {"devices": {"requests": [{"name": "req-0", "exactly": {"deviceClassName": "dra.example.com"}}]}}}`
	aTemplate = `{"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "a", "namespace": "default", "labels": {"test": "dra"}},
		"spec": {"spec": {"devices": {"requests": [{"name": "req-0", "exactly": {"deviceClassName": "dra.example.com"}}]}}}}`
	aClass = `{"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "a", "labels": {"test": "dra"}},
		"spec": {"selectors": [{"cel": {"expression": "false"}}]}}`
	aSlice = `{"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "a", "labels": {"test": "dra"}},
		"spec": {"driver": "dra.example.com", "pool": {"name": "cluster", "generation": 1, "resourceSliceCount": 1}, "nodeName": "no-such-node"}}`

	labelled   = `{"metadata": {"labels": {"test.dra.example.com": "test"}}}`
	allocated  = `{"status": {"allocation": {}}}`
	identity   = `"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "a", "namespace": "default"`
	statusPart = "status"
)

var lifecycles = []lifecycle{
	{
		spec: "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass [Conformance]", initial: aClass,
		changed: func(o scheme.Object) bool {
			return o.(*resourcev1.DeviceClass).GetSpec().GetSelectors()[0].GetCel().GetExpression() == "1 == 0" && o.GetMetadata().GetGeneration() == 2
		},
		changes: map[string]write{
			"update":    updated(func(o scheme.Object) { o.(*resourcev1.DeviceClass).Spec.Selectors[0].Cel.Expression = "1 == 0" }),
			"strategic": patched(`{"spec": {"selectors": [{"cel": {"expression": "1 == 0"}}]}}`, client.StrategicPatch),
		},
	},
	{
		spec: "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim [Conformance]", initial: aClaim,
		changed: hasTestLabel,
		changes: map[string]write{
			"update":    updated(addTestLabel),
			"apply":     applied(`{` + identity + `, "labels": {"test.dra.example.com": "test"}}}`),
			"strategic": patched(labelled, client.StrategicPatch),
			"merge":     patched(labelled),
			"json":      patched(`[{"op": "add", "path": "/metadata/labels/test.dra.example.com", "value": "test"}]`, client.JSONPatch),
		},
		statusChanged: func(o scheme.Object) bool { return o.(*resourcev1.ResourceClaim).GetStatus().GetAllocation() != nil },
		statusChanges: map[string]write{
			"update": func(ctx context.Context, c *client.Client, _ *scheme.Kind, o scheme.Object) (scheme.Object, error) {
				o.(*resourcev1.ResourceClaim).Status = &resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{}}
				return client.UpdateStatus(ctx, c, o)
			},
			"apply":     applied(`{`+identity+`}, "status": {"allocation": {}}}`, client.Subresource(statusPart)),
			"strategic": patched(allocated, client.StrategicPatch, client.Subresource(statusPart)),
			"merge":     patched(allocated, client.Subresource(statusPart)),
			// The spec adds /status/allocation: Kubernetes shows a status that is not set as {}.
			"json": patched(`[{"op": "add", "path": "/status", "value": {"allocation": {}}}]`, client.JSONPatch, client.Subresource(statusPart)),
		},
	},
	{
		spec: "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate [Conformance]", initial: aTemplate,
		changed: hasTestLabel,
		changes: map[string]write{"update": updated(addTestLabel), "strategic": patched(labelled, client.StrategicPatch)},
	},
	{
		spec: "[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice [Conformance]", initial: aSlice,
		changed: func(o scheme.Object) bool {
			return len(o.(*resourcev1.ResourceSlice).GetSpec().GetDevices()) == 1 && o.GetMetadata().GetGeneration() == 2
		},
		changes: map[string]write{
			"update": updated(func(o scheme.Object) {
				o.(*resourcev1.ResourceSlice).Spec.Devices = []*resourcev1.Device{{Name: "device-0"}}
			}),
			"strategic": patched(`{"spec": {"devices": [{"name": "device-0"}]}}`, client.StrategicPatch),
		},
	},
}

func hasTestLabel(o scheme.Object) bool {
	return o.GetMetadata().GetLabels()["test.dra.example.com"] == "test"
}

func addTestLabel(o scheme.Object) { o.GetMetadata().Labels["test.dra.example.com"] = "test" }

// TestDeviceKinds plays the steps of the specs of resource.k8s.io: each way to change an object
// begins with a new one, whose events a watch shows.
func TestDeviceKinds(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c := admin(conn).WithFieldManager("test-apply")
	waitNamespace(t, c)
	for _, l := range lifecycles {
		t.Run(l.spec, func(t *testing.T) { l.play(t, c) })
	}
}

func (l lifecycle) play(t *testing.T, c *client.Client) {
	ctx := t.Context()
	initial := decode[scheme.Object](t, l.initial)
	k, m := kinds.Of(initial), initial.GetMetadata()
	events := watchTypes(t, c, k)
	for _, name := range append([]string{"update"}, others(l.changes)...) {
		created := do[scheme.Object](t)(client.Create(ctx, c, initial))
		if got := do[scheme.Object](t)(client.GetKind(ctx, c, k, m.GetNamespace(), m.GetName())); !proto.Equal(got, created) {
			t.Errorf("%s: got %v, created %v", name, got, created)
		}
		changed := do[scheme.Object](t)(l.changes[name](ctx, c, k, proto.Clone(created).(scheme.Object)))
		if !l.changed(changed) || changed.GetMetadata().GetResourceVersion() == created.GetMetadata().GetResourceVersion() {
			t.Errorf("%s: the object is %v", name, changed)
		}
		l.removed(t, c, k, m, events, []apiv1.EventType{apiv1.EventType_EVENT_TYPE_ADDED, apiv1.EventType_EVENT_TYPE_MODIFIED})
	}
	for name, change := range l.statusChanges {
		created := do[scheme.Object](t)(client.Create(ctx, c, initial))
		changed := do[scheme.Object](t)(change(ctx, c, k, proto.Clone(created).(scheme.Object)))
		if got := do[scheme.Object](t)(client.GetKind(ctx, c, k, m.GetNamespace(), m.GetName())); !l.statusChanged(changed) || !proto.Equal(got, changed) {
			t.Errorf("%s of the status: the object is %v, stored %v", name, changed, got)
		}
		l.removed(t, c, k, m, events, []apiv1.EventType{apiv1.EventType_EVENT_TYPE_ADDED, apiv1.EventType_EVENT_TYPE_MODIFIED})
	}
}

// others returns the names of the changes besides the update.
func others(changes map[string]write) []string {
	var out []string
	for name := range changes {
		if name != "update" {
			out = append(out, name)
		}
	}
	return out
}

// removed finds the object by its label, in its namespace and in all, deletes the collection, and
// expects these events before that of the deletion.
func (l lifecycle) removed(t *testing.T, c *client.Client, k *scheme.Kind, m *metav1.ObjectMeta, events <-chan apiv1.EventType, want []apiv1.EventType) {
	t.Helper()
	ctx := t.Context()
	for _, namespace := range slices.Compact([]string{"", m.GetNamespace()}) {
		found, _, err := client.ListKind(ctx, c, k, client.ListOptions{Namespace: namespace, LabelSelector: "test=dra"})
		if err != nil || len(found) != 1 {
			t.Fatalf("found %v, %v", found, err)
		}
	}
	if gone, err := client.DeleteCollectionKind(ctx, c, k, client.ListOptions{Namespace: m.GetNamespace(), LabelSelector: "test=dra"}); err != nil || len(gone) != 1 {
		t.Fatalf("deleted %v, %v", gone, err)
	}
	if _, err := client.GetKind(ctx, c, k, m.GetNamespace(), m.GetName()); !apierr.IsNotFound(err) {
		t.Errorf("after the deletion: %v", err)
	}
	for _, w := range append(want, apiv1.EventType_EVENT_TYPE_DELETED) {
		select {
		case got := <-events:
			if got != w {
				t.Errorf("event %v, want %v", got, w)
			}
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
}

// watchTypes returns the types of the events of a kind's objects from now on, bookmarks excluded.
func watchTypes(t *testing.T, c *client.Client, k *scheme.Kind) <-chan apiv1.EventType {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	types, ready, done := make(chan apiv1.EventType, 100), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for event, err := range client.WatchKind(ctx, c, k, client.WatchOptions{}) {
			switch {
			case err != nil:
				return
			case event.InitialStateEnd:
				close(ready)
			case event.Type != apiv1.EventType_EVENT_TYPE_BOOKMARK:
				types <- event.Type
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-ready
	return types
}

// TestResourceSlicesAreSelectedByFields selects slices as drivers and schedulers do.
func TestResourceSlicesAreSelectedByFields(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	do[scheme.Object](t)(client.Create(ctx, c, decode[scheme.Object](t, aSlice)))
	for selector, want := range map[string]int{
		"spec.nodeName=no-such-node": 1, "spec.nodeName=other": 0, "spec.driver=dra.example.com": 1, "spec.driver!=dra.example.com": 0,
	} {
		found, _, err := client.List[*resourcev1.ResourceSlice](ctx, c, client.ListOptions{FieldSelector: selector})
		if err != nil || len(found) != want {
			t.Errorf("%s: %d slices, %v; want %d", selector, len(found), err, want)
		}
	}
}

// TestAdminAccessToDevices refuses claims for the administration of devices in namespaces without
// the label that allows them.
func TestAdminAccessToDevices(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	forAdmin := func(text string) scheme.Object {
		return decode[scheme.Object](t, strings.Replace(text, `"exactly": {`, `"exactly": {"adminAccess": true, `, 1))
	}
	refused := func(err error, at string) {
		t.Helper()
		if !apierr.IsInvalid(err) || !strings.Contains(err.Error(), at+": Forbidden: admin access to devices requires the `"+
			"resource.kubernetes.io/admin-access: true` label on the containing namespace") {
			t.Errorf("error %v, want a refusal of %s", err, at)
		}
	}
	_, err := client.Create(ctx, c, forAdmin(aClaim))
	refused(err, "spec.devices.requests[0].exactly.adminAccess")
	_, err = client.Create(ctx, c, forAdmin(aTemplate))
	refused(err, "spec.spec.devices.requests[0].exactly.adminAccess")

	claim := do[*resourcev1.ResourceClaim](t)(client.Create(ctx, c, decode[*resourcev1.ResourceClaim](t, aClaim)))
	claim.Status = &resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{Devices: &resourcev1.DeviceAllocationResult{
		Results: []*resourcev1.DeviceRequestAllocationResult{{
			Request: "req-0", Driver: "dra.example.com", Pool: "cluster", Device: "device-0", AdminAccess: proto.Bool(true),
		}},
	}}}
	_, err = client.UpdateStatus(ctx, c, claim)
	refused(err, "status.allocation.devices.results[0].adminAccess")

	do[*corev1.Namespace](t)(client.Patch[*corev1.Namespace](ctx, c, "", "default", []byte(`{"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}`)))
	claim = do[*resourcev1.ResourceClaim](t)(client.UpdateStatus(ctx, c, claim))
	do[*corev1.Namespace](t)(client.Patch[*corev1.Namespace](ctx, c, "", "default", []byte(`{"metadata": {"labels": {"resource.kubernetes.io/admin-access": null}}}`)))
	claim.Status.ReservedFor = []*resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "a", Uid: "u"}}
	do[*resourcev1.ResourceClaim](t)(client.UpdateStatus(ctx, c, claim)) // It had access before.
}
