package apiserver

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/networking"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
	"github.com/xebec-project/xebec/services/apiserver/admission"
	"github.com/xebec-project/xebec/services/apiserver/registry"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// TestCreateWhileNamespaceGoes lets its namespace change between the plan of a create and its
// commit.
func TestCreateWhileNamespaceGoes(t *testing.T) {
	between := &interleaver{}
	_, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1), between.join)
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
			// A list waits until the cache that plans read has the namespace.
			if _, _, err := client.List[*corev1.Namespace](ctx, c, client.ListOptions{}); err != nil {
				t.Fatal(err)
			}
			between.do = func(a *admission.Attributes) {
				if between.plans == 1 && a.Namespace == namespace {
					tt.between(t, namespace)
				}
			}
			between.plans = 0
			m := configMap("a")
			m.Metadata.Namespace = namespace
			_, err := client.Create(ctx, c, m)
			plans := between.plans
			between.do = nil
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

// interleaver is an admission plug-in that acts between the plan of a write and its commit. Writes
// that the server makes on its own pass.
type interleaver struct {
	plans int                           // since it was set to 0
	do    func(a *admission.Attributes) // nil while nothing is to happen
}

func (*interleaver) Name() string { return "Interleaver" }

// Validate runs do, whose own writes pass.
func (i *interleaver) Validate(_ context.Context, a *admission.Attributes) error {
	if slices.Contains([]string{"Namespace", "ServiceAccount", "EndpointSlice", "Endpoints", "PriorityClass", "FlowSchema", "PriorityLevelConfiguration"}, a.Kind.Name) {
		return nil
	}
	do := i.do
	if do == nil {
		return nil
	}
	i.plans++
	i.do = nil
	do(a)
	i.do = do
	return nil
}

func (i *interleaver) join(s *Service) { s.pipeline.Admission = append(s.pipeline.Admission, i) }

// TestAllocationClash gives the port that an update has picked to another service before the
// commit. That is no conflict for the caller, though it named the version: the object has not
// changed.
func TestAllocationClash(t *testing.T) {
	between := &interleaver{}
	svc, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1), between.join)
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	made := do[*corev1.Service](t)(client.Create(ctx, c, service("a")))
	updated := client.Clone(made)
	updated.Spec.Type = "NodePort"
	portOf := func(o scheme.Object) string {
		return networking.NodePortName("TCP", o.(*corev1.Service).GetSpec().GetPorts()[0].GetNodePort())
	}
	ports := kinds.Of(new(networkingv1.NodePort))
	var taken []string
	between.do = func(a *admission.Attributes) {
		if between.plans > 3 {
			return
		}
		name := portOf(a.Object)
		key := storage.Key{Group: ports.Group, Kind: ports.Name, Name: name}
		b, err := registry.Encode(ports, &networkingv1.NodePort{Metadata: &metav1.ObjectMeta{Name: name}})
		if err != nil {
			t.Error(err)
		}
		if _, err := svc.store.Commit(ctx, storage.Txn{Writes: []storage.Write{{Key: key, Bytes: b}}}); err != nil {
			t.Error(err)
		}
		taken = append(taken, name)
	}
	got, err := client.Update(ctx, c, updated)
	if err != nil {
		t.Fatalf("the port was another's: %v", err)
	}
	if port := portOf(got); between.plans != 4 || port == taken[2] {
		t.Errorf("after %d plans the port is %s; %v were taken", between.plans, port, taken)
	}

	// A change of the object itself is a conflict for the caller.
	again := client.Clone(got)
	again.Metadata.Labels = map[string]string{"a": "b"}
	between.plans = 0
	between.do = func(*admission.Attributes) {
		do[*corev1.Service](t)(client.Patch[*corev1.Service](ctx, c, "default", "a", []byte(`{"metadata":{"annotations":{"n":"`+strings.Repeat("x", between.plans)+`"}}}`)))
	}
	if _, err := client.Update(ctx, c, again); !apierr.IsConflict(err) {
		t.Errorf("the object changed: %v, want a conflict", err)
	}
}
