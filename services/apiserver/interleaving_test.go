package apiserver

import (
	"context"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// TestCreateWhileNamespaceGoes lets its namespace change between the plan of a create and its commit.
func TestCreateWhileNamespaceGoes(t *testing.T) {
	svc, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	mark := func(t *testing.T, name string) {
		t.Helper()
		do[bool](t)(client.Delete[*corev1.Namespace](ctx, c, "", name))
	}
	remove := func(t *testing.T, name string) {
		t.Helper()
		mark(t, name)
		ns := client.Clone(do[*corev1.Namespace](t)(client.Get[*corev1.Namespace](ctx, c, "", name)))
		ns.Metadata.Finalizers = nil
		do[*corev1.Namespace](t)(client.Update(ctx, c, ns))
	}
	create := func(t *testing.T, name string) {
		t.Helper()
		do[*corev1.Namespace](t)(client.Create(ctx, c, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: name}}))
	}
	for name, tt := range map[string]struct {
		between func(t *testing.T, namespace string)
		reason  string // of the error, empty when the object is made
	}{
		"it is gone":          {remove, apierr.ReasonNotFound},
		"it is being deleted": {mark, apierr.ReasonNamespaceTerminating},
		"it is labeled": {func(t *testing.T, ns string) {
			do[*corev1.Namespace](t)(client.Patch[*corev1.Namespace](ctx, c, "", ns, []byte(`{"metadata":{"labels":{"a":"b"}}}`)))
		}, ""},
		"it is gone and back":      {func(t *testing.T, ns string) { remove(t, ns); create(t, ns) }, ""},
		"nothing happens in it":    {func(*testing.T, string) {}, ""},
		"another namespace's goes": {func(t *testing.T, ns string) { create(t, ns+"-b"); remove(t, ns+"-b") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			namespace := strings.Map(func(r rune) rune {
				if r < 'a' || r > 'z' {
					return -1
				}
				return r
			}, name)
			create(t, namespace)
			plans := 0
			_, err := svc.writeOne(ctx, nil, false, func(ctx context.Context, get reader) (*change, error) {
				m := configMap("a")
				m.Metadata.Namespace = namespace
				planned, err := svc.createChange(ctx, get, kind.Of(m), m, "", 0)
				if err != nil {
					return nil, err // the cache may not have the namespace yet
				}
				if plans++; plans == 1 {
					tt.between(t, namespace)
				}
				return planned, err
			})
			if tt.reason == "" && err != nil || tt.reason != "" && apierr.Reason(err) != tt.reason {
				t.Errorf("got %v, want %q", err, tt.reason)
			}
			_, gone := client.Get[*corev1.ConfigMap](ctx, c, namespace, "a")
			if apierr.IsNotFound(gone) != (tt.reason != "") {
				t.Errorf("the object: %v", gone)
			}
			if strings.HasPrefix(name, "nothing") && plans != 1 {
				t.Errorf("%d plans of a create that nothing disturbs", plans)
			}
		})
	}
}

// TestAllocationClash gives the address that an update has picked to another service before the commit. That is no conflict
// of the caller's, though it named the version: the object has not changed.
func TestAllocationClash(t *testing.T) {
	svc, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	made := do[*corev1.Service](t)(client.Create(ctx, c, service("a")))
	updated := client.Clone(made)
	updated.Spec.Type = "NodePort"
	k := kind.Of(made)
	plans := 0
	update := func(between func(*change)) (*change, error) {
		plans = 0
		return svc.writeOne(ctx, nil, false, func(ctx context.Context, get reader) (*change, error) {
			stored, err := get(ctx, keyOfObject(k, updated))
			if err != nil {
				return nil, err
			}
			old, err := decodeWanted(k, stored, updated.GetMetadata())
			if err != nil {
				return nil, err
			}
			planned, err := svc.updateChange(ctx, get, k, stored, old, client.Clone(updated), "")
			if plans++; err == nil && plans <= 3 {
				between(planned)
			}
			return planned, err
		})
	}
	var taken []string
	got, err := update(func(planned *change) {
		if len(planned.writes) != 2 || planned.writes[1].Key.Kind != "NodePort" {
			t.Fatalf("the plan writes %v", planned.writes)
		}
		w := planned.writes[1]
		if _, err := svc.store.Commit(ctx, storage.Txn{Writes: []storage.Write{{Key: w.Key, Bytes: w.Bytes}}}); err != nil {
			t.Fatal(err)
		}
		taken = append(taken, w.Key.Name)
	})
	if err != nil {
		t.Fatalf("the port was another's: %v", err)
	}
	if port := kind.NodePortName("TCP", got.object.(*corev1.Service).GetSpec().GetPorts()[0].GetNodePort()); plans != 4 || port == taken[2] {
		t.Errorf("after %d plans the port is %s; %v were taken", plans, port, taken)
	}

	// The object itself is the caller's to look at again.
	updated.Metadata.ResourceVersion = got.object.GetMetadata().GetResourceVersion()
	updated.Metadata.Labels = map[string]string{"a": "b"}
	_, err = update(func(*change) {
		do[*corev1.Service](t)(client.Patch[*corev1.Service](ctx, c, "default", "a", []byte(`{"metadata":{"annotations":{"n":"`+strings.Repeat("x", plans)+`"}}}`)))
	})
	if !apierr.IsConflict(err) {
		t.Errorf("the object changed: %v, want a conflict", err)
	}
}
