package nodes

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds/core"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestPodsSayWhyTheyAreDeleted has pods of a tainted node and of a node that does not exist: each
// gets the condition before it is deleted.
func TestPodsSayWhyTheyAreDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, c := clienttest.Start(t)
		var mu sync.Mutex
		statuses, deleted := map[string]string{}, map[string]string{}
		server.Intercept(func(_ string, req proto.Message) error {
			mu.Lock()
			defer mu.Unlock()
			switch req := req.(type) {
			case *apiv1.UpdateStatusRequest:
				p := &corev1.Pod{}
				if req.GetObject().UnmarshalTo(p) == nil {
					c := core.PodCondition(p, core.PodDisruptionTarget)
					statuses[p.GetMetadata().GetName()] = fmt.Sprint(p.GetStatus().GetPhase(), " ", c.GetStatus(), " ", c.GetReason(), ": ", c.GetMessage())
				}
			case *apiv1.DeleteRequest:
				name := req.GetObject().GetName()
				deleted[name] = statuses[name]
			}
			return nil
		})
		clienttest.Seed(server, &corev1.Node{
			Metadata: &metav1.ObjectMeta{Name: "tainted"},
			Spec:     &corev1.NodeSpec{PodCidr: "10.244.0.0/24", Taints: []*corev1.Taint{{Key: "example.com/maintenance", Effect: "NoExecute"}}},
		})
		for _, name := range []string{"tainted", "none"} {
			clienttest.Seed(server, &corev1.Pod{
				Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "on-" + name}, Spec: &corev1.PodSpec{NodeName: name},
				Status: &corev1.PodStatus{Phase: "Running"},
			})
		}
		svc, err := New(DefaultConfig(), Deps{Deps: elected.Deps{Host: "master-1", Client: c}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() { _ = svc.Run(ctx) })
		<-time.After(2 * time.Minute)
		cancel()
		work.Wait()
		mu.Lock()
		defer mu.Unlock()
		for name, want := range map[string]string{
			"on-tainted": "Running True DeletionByTaintManager: Taint manager: deleting due to NoExecute taint",
			"on-none":    "Failed True DeletionByPodGC: PodGC: node no longer exists",
		} {
			if deleted[name] != want {
				t.Errorf("%s was deleted as %q, want %q; deleted are %s", name, deleted[name], want, strings.Join(slices.Sorted(maps.Keys(deleted)), " "))
			}
		}
	})
}
