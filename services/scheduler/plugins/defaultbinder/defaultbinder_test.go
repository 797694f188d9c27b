package defaultbinder

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

func TestBind(t *testing.T) {
	s, c := clienttest.Start(t)
	assign := func(name, node string) framework.Assignment {
		stored := clienttest.Seed(s, &corev1.Pod{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: &corev1.PodSpec{}})
		return framework.Assignment{
			Pod: &framework.Pod{Namespace: "default", Name: name, UID: stored[0].GetMetadata().GetUid()}, Node: node,
		}
	}
	nodeOf := func(name string) string {
		t.Helper()
		p, err := client.Get[*corev1.Pod](t.Context(), c, "default", name)
		if err != nil {
			t.Fatal(err)
		}
		return p.GetSpec().GetNodeName()
	}
	pl := Plugin{Client: c}
	x, y := assign("x", "n1"), assign("y", "n2")
	gone := framework.Assignment{Pod: &framework.Pod{Namespace: "default", Name: "gone", UID: "gone"}, Node: "n1"}

	if err := pl.Bind(t.Context(), []framework.Assignment{x, gone}); !apierr.IsNotFound(err) || nodeOf("x") != "" {
		t.Errorf("a batch with a deleted pod: %v, x is on %q", err, nodeOf("x"))
	}
	if err := pl.Bind(t.Context(), []framework.Assignment{x, y}); err != nil || nodeOf("x") != "n1" || nodeOf("y") != "n2" {
		t.Errorf("%v, x is on %q, y on %q", err, nodeOf("x"), nodeOf("y"))
	}
	if err := pl.Bind(t.Context(), []framework.Assignment{x, y}); !apierr.IsConflict(err) {
		t.Errorf("a batch that is bound: %v", err)
	}
	if err := pl.Bind(t.Context(), []framework.Assignment{x}); err != nil {
		t.Errorf("a pod that is bound to the chosen node: %v", err)
	}
	x.Node = "n2"
	if err := pl.Bind(t.Context(), []framework.Assignment{x}); !apierr.IsConflict(err) || nodeOf("x") != "n1" {
		t.Errorf("a pod that is bound to another node: %v, it is on %q", err, nodeOf("x"))
	}
	// Whether the pod is bound cannot be looked up: the outcome is unknown.
	x.Node = "n1"
	s.Intercept(func(method string, _ proto.Message) error {
		if method == "Get" {
			return apierr.Unavailable("no server")
		}
		return nil
	})
	if err := pl.Bind(t.Context(), []framework.Assignment{x}); !apierr.IsRetryable(err) {
		t.Errorf("a failed look-up: %v", err)
	}
}
