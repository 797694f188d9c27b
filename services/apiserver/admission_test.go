package apiserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/apiserver/admission"
)

// recorder is an admission plug-in that remembers what passed it and refuses objects whose name
// begins with "refused".
type recorder struct {
	mu   sync.Mutex
	seen []string
}

func (*recorder) Name() string { return "Recorder" }

func (r *recorder) record(phase string, a *admission.Attributes) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.Kind.Name != "ConfigMap" && a.Kind.Name != "Pod" {
		return nil
	}
	r.seen = append(r.seen, fmt.Sprintf("%s %s %s/%s", phase, a.Operation, a.Name, a.Subresource))
	if (a.Object == nil) != (a.Operation == admission.Delete) || (a.Old == nil) != (a.Operation == admission.Create) {
		return apierr.Internal("%s of %s has objects %v, %v", a.Operation, a.Name, a.Object, a.Old)
	}
	if phase == "validate" && strings.HasPrefix(a.Name, "refused") {
		return apierr.Forbidden(a.Kind, a.Name, "the test refuses it")
	}
	return nil
}

// Mutate records the call.
func (r *recorder) Mutate(_ context.Context, a *admission.Attributes) error {
	return r.record("mutate", a)
}

// Validate records the call, or refuses it.
func (r *recorder) Validate(_ context.Context, a *admission.Attributes) error {
	return r.record("validate", a)
}

func (r *recorder) join(s *Service) { s.pipeline.Admission = append(s.pipeline.Admission, r) }

// passed returns what passed since the last call, each once: a plan may be made again.
func (r *recorder) passed() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := slices.Compact(slices.Sorted(slices.Values(r.seen)))
	r.seen = nil
	return seen
}

// TestAdmissionSeesEveryWrite makes each kind of write, alone and as an operation of a transaction.
func TestAdmissionSeesEveryWrite(t *testing.T) {
	seen := &recorder{}
	_, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1), seen.join)
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	for _, name := range []string{"bound", "bound-2", "status"} {
		do[*corev1.Pod](t)(client.Create(ctx, c, pod(name)))
	}
	k := kinds.Of(configMap(""))
	manager := c.WithFieldManager("test")
	transact := func(ops ...client.Operation) error {
		_, err := client.Transact(ctx, manager, ops...)
		return err
	}
	seen.passed()
	for _, tt := range []struct {
		what, want string
		write      func(name string) error
	}{
		{"create", "CREATE a/", func(name string) error { _, err := client.Create(ctx, c, configMap(name)); return err }},
		{"update", "UPDATE a/", func(name string) error {
			m := configMap(name)
			m.Data = map[string]string{"a": "b"}
			_, err := client.Update(ctx, c, m)
			return err
		}},
		{"patch", "UPDATE a/", func(name string) error {
			_, err := client.Patch[*corev1.ConfigMap](ctx, c, "default", name, []byte(`{"data":{"a":"c"}}`))
			return err
		}},
		{"JSON patch", "UPDATE a/", func(name string) error {
			_, err := client.Patch[*corev1.ConfigMap](ctx, c, "default", name, []byte(`[{"op":"add","path":"/data/b","value":"c"}]`), client.JSONPatch)
			return err
		}},
		{"apply", "UPDATE a/", func(name string) error {
			m := configMap(name)
			m.Data = map[string]string{"c": "d"}
			_, _, err := client.Apply(ctx, manager, m)
			return err
		}},
		{"delete", "DELETE a/", func(name string) error {
			_, err := client.Delete[*corev1.ConfigMap](ctx, c, "default", name)
			return err
		}},
		{"apply of a new object", "CREATE a/", func(name string) error { _, _, err := client.Apply(ctx, manager, configMap(name)); return err }},
		{"delete collection", "DELETE a/", func(name string) error {
			_, err := client.DeleteCollection[*corev1.ConfigMap](ctx, c, client.ListOptions{Namespace: "default", FieldSelector: "metadata.name=" + name})
			return err
		}},
		{"status", "UPDATE status/status", func(string) error {
			p := do[*corev1.Pod](t)(client.Get[*corev1.Pod](ctx, c, "default", "status"))
			p = client.Clone(p)
			p.Status = &corev1.PodStatus{Phase: "Running"}
			_, err := client.UpdateStatus(ctx, c, p)
			return err
		}},
		{"create in a transaction", "CREATE a/", func(name string) error { return transact(client.OpCreate(configMap(name))) }},
		{"update in a transaction", "UPDATE a/", func(name string) error { return transact(updateOperation(configMap(name))) }},
		{"apply in a transaction", "UPDATE a/", func(name string) error {
			m := configMap(name)
			m.Data = map[string]string{"x": "y"}
			return transact(opApply(m))
		}},
		{"delete in a transaction", "DELETE a/", func(name string) error { return transact(client.OpDelete(k, "default", name)) }},
		{"bind", "UPDATE bound/binding", func(string) error { return transact(client.OpBind("default", "bound", "", "node-1")) }},
		{"status in a transaction", "UPDATE bound-2/status", func(string) error {
			p := pod("bound-2")
			p.Status = &corev1.PodStatus{Phase: "Running"}
			return transact(client.OpUpdateStatus(p))
		}},
	} {
		if err := tt.write("a"); err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		if got, want := seen.passed(), []string{"mutate " + tt.want, "validate " + tt.want}; !slices.Equal(got, want) {
			t.Errorf("%s passed %q, want %q", tt.what, got, want)
		}
	}
	if _, err := client.Create(ctx, c, configMap("refused")); !apierr.IsForbidden(err) {
		t.Errorf("a refused create: %v", err)
	}
	if err := transact(client.OpCreate(configMap("x")), client.OpCreate(configMap("refused-too"))); !apierr.IsForbidden(err) {
		t.Errorf("a refused operation: %v", err)
	}
	if _, err := client.Get[*corev1.ConfigMap](ctx, c, "default", "x"); !apierr.IsNotFound(err) {
		t.Errorf("the operation beside the refused one: %v", err)
	}
}

// updateOperation replaces obj but for its status in a transaction.
func updateOperation(obj scheme.Object) client.Operation {
	return func(*client.Client) (*apiv1.Operation, error) {
		a, err := anypb.New(obj)
		return &apiv1.Operation{Operation: &apiv1.Operation_Update{Update: &apiv1.UpdateRequest{Object: a}}}, err
	}
}
