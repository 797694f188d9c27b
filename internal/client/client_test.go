package client_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/kinds"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestWritesAndConflicts(t *testing.T) {
	_, c := clienttest.Start(t)
	ctx := t.Context()
	first, err := client.Create(ctx, c, configMap("a", "1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(ctx, c, configMap("a", "1")); !apierr.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}
	second := client.Clone(first)
	second.Data["key"] = "2"
	if second, err = client.Update(ctx, c, second); err != nil {
		t.Fatal(err)
	}
	if first.Data["key"] != "1" {
		t.Error("the clone shares data with the original")
	}
	if _, err := client.Update(ctx, c, first); !apierr.IsConflict(err) {
		t.Errorf("stale update: %v", err)
	}
	patched, err := client.Patch[*corev1.ConfigMap](ctx, c, "default", "a", []byte(`{"data":{"key":null,"other":"x"}}`))
	if err != nil || len(patched.Data) != 1 || patched.Data["other"] != "x" {
		t.Errorf("patched to %v, %v", patched, err)
	}
	if _, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", "a", client.IfUID("other")); !apierr.IsConflict(err) {
		t.Errorf("delete with another uid: %v", err)
	}
	if _, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", "a", client.IfResourceVersion(second.Metadata.ResourceVersion)); !apierr.IsConflict(err) {
		t.Errorf("delete of another version: %v", err)
	}
	if removed, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", "a", client.DryRun); err != nil || !removed {
		t.Errorf("dry delete: %v, %v", removed, err)
	}
	if removed, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", "a"); err != nil || !removed {
		t.Errorf("delete: %v, %v", removed, err)
	}
	if _, err := client.Get[*corev1.ConfigMap](ctx, c, "default", "a"); !apierr.IsNotFound(err) {
		t.Errorf("get after delete: %v", err)
	}
}

func TestListPagesOneSnapshot(t *testing.T) {
	s, c := clienttest.Start(t)
	for n := range 25 {
		clienttest.Seed(s, configMap(fmt.Sprintf("m-%02d", n), "1"))
	}
	at := s.Revision()
	// Every page comes after another write, which no page may show.
	s.Intercept(func(method string, req proto.Message) error {
		if l, ok := req.(*apiv1.ListRequest); ok && l.Continue != "" {
			clienttest.Remove(s, configMap("m-24", ""))
			clienttest.Seed(s, configMap("z", "1"))
		}
		return nil
	})
	all, revision, err := client.List[*corev1.ConfigMap](t.Context(), c, client.ListOptions{PageSize: 10})
	if err != nil || len(all) != 25 || revision != at || s.Calls("List") != 3 {
		t.Errorf("%d objects at %s in %d calls, want 25 at %s in 3: %v", len(all), revision, s.Calls("List"), at, err)
	}
	s.Intercept(nil)
	k, _ := kinds.ByName("cm")
	some, _, err := client.ListKind(t.Context(), c, k, client.ListOptions{Limit: 12, PageSize: 10, FieldSelector: "metadata.name!=m-00"})
	if err != nil || len(some) != 12 || some[0].GetMetadata().GetName() != "m-01" {
		t.Errorf("%d objects with a limit of 12: %v", len(some), err)
	}
	past, _, err := client.List[*corev1.ConfigMap](t.Context(), c, client.ListOptions{At: client.At{Revision: "5"}})
	if err != nil || len(past) != 4 {
		t.Errorf("%d objects at revision 5, want 4: %v", len(past), err)
	}
}

func TestListStartsOverWhenCompacted(t *testing.T) {
	s, c := clienttest.Start(t)
	for n := range 25 {
		clienttest.Seed(s, configMap(fmt.Sprintf("m-%02d", n), "1"))
	}
	compacted := false
	s.Intercept(func(method string, req proto.Message) error {
		if l, ok := req.(*apiv1.ListRequest); ok && l.Continue != "" && !compacted {
			compacted = true
			clienttest.Seed(s, configMap("z", "1"))
			s.Compact()
		}
		return nil
	})
	all, _, err := client.List[*corev1.ConfigMap](t.Context(), c, client.ListOptions{PageSize: 10})
	if err != nil || len(all) != 26 {
		t.Errorf("%d objects, want 26: %v", len(all), err)
	}
}

func TestFence(t *testing.T) {
	s, c := clienttest.Start(t)
	ctx := t.Context()
	lease, err := client.Create(ctx, c, &coordinationv1.Lease{
		Metadata: &metav1.ObjectMeta{Namespace: "kube-system", Name: "workloads"},
		Spec:     &coordinationv1.LeaseSpec{},
	})
	if err != nil {
		t.Fatal(err)
	}
	fenced := c.WithFence(&apiv1.Fence{
		Namespace: "kube-system", Name: "workloads", CreateRevision: lease.Metadata.ResourceVersion,
	})
	obj, err := client.Create(ctx, fenced, configMap("a", "1"))
	if err != nil {
		t.Fatal(err)
	}
	clienttest.Remove(s, lease)
	clienttest.Seed(s, lease) // Another holder's now: created again.
	for name, write := range map[string]func() error{
		"create": func() error { _, err := client.Create(ctx, fenced, configMap("b", "1")); return err },
		"update": func() error { _, err := client.Update(ctx, fenced, obj); return err },
		"patch": func() error {
			_, err := client.Patch[*corev1.ConfigMap](ctx, fenced, "default", "a", []byte(`{}`))
			return err
		},
		"delete": func() error { _, err := client.Delete[*corev1.ConfigMap](ctx, fenced, "default", "a"); return err },
		"collection": func() error {
			_, err := client.DeleteCollection[*corev1.ConfigMap](ctx, fenced, client.ListOptions{Namespace: "default"})
			return err
		},
		"transact": func() error { _, err := client.Transact(ctx, fenced, client.OpUpdateStatus(obj)); return err },
	} {
		if err := write(); !apierr.IsElectionLost(err) {
			t.Errorf("%s under a lost election: %v", name, err)
		}
	}
	if _, err := client.Update(ctx, c, obj); err != nil {
		t.Errorf("the client the fenced one was made from: %v", err)
	}
}

func TestTransactIsAllOrNothing(t *testing.T) {
	_, c := clienttest.Start(t)
	ctx := t.Context()
	k, _ := kinds.ByName("configmaps")
	if _, err := client.Transact(ctx, c,
		client.OpCreate(configMap("a", "1")), client.OpDelete(k, "default", "missing")); !apierr.IsNotFound(err) {
		t.Fatalf("got %v", err)
	}
	if _, err := client.Get[*corev1.ConfigMap](ctx, c, "default", "a"); !apierr.IsNotFound(err) {
		t.Errorf("half of a failed transaction was done: %v", err)
	}
	res, err := client.Transact(ctx, c, client.OpCreate(configMap("a", "1")), client.OpCreate(configMap("b", "1")))
	if err != nil || res.Len() != 2 {
		t.Fatalf("%v", err)
	}
	for n := range res.Len() {
		obj, err := res.Object(n)
		if err != nil || obj.GetMetadata().GetResourceVersion() != res.Revision {
			t.Errorf("object %d is at %s and not at %s: %v", n, obj.GetMetadata().GetResourceVersion(), res.Revision, err)
		}
	}
}

func TestCallsHaveDeadlines(t *testing.T) {
	s := clienttest.NewServer()
	c := client.New(clienttest.Serve(t, s), client.WithTimeout(20*time.Millisecond))
	release := make(chan struct{})
	defer close(release)
	s.Intercept(func(string, proto.Message) error { <-release; return nil })
	if _, err := client.Get[*corev1.ConfigMap](t.Context(), c, "default", "a"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v, want DEADLINE_EXCEEDED", err)
	}
}

func TestWatchYieldsStateThenChanges(t *testing.T) {
	s, c := clienttest.Start(t)
	clienttest.Seed(s, configMap("a", "1"))
	var got []string
	for ev, err := range client.Watch[*corev1.ConfigMap](t.Context(), c, client.WatchOptions{Namespace: "default"}) {
		if err != nil {
			if !apierr.IsUnavailable(err) {
				t.Error(err)
			}
			break
		}
		got = append(got, fmt.Sprint(ev.Type, " ", ev.Object.GetMetadata().GetName()))
		switch len(got) {
		case 2:
			if !ev.InitialStateEnd {
				t.Error("the second event does not end the state")
			}
			clienttest.Remove(s, configMap("a", ""))
		case 3:
			s.Disconnect()
		}
	}
	expect(t, "events", got, "EVENT_TYPE_ADDED a", "EVENT_TYPE_BOOKMARK ", "EVENT_TYPE_DELETED a")
}
