package node

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// blocked returns the evictions of a cluster of which the budget web refuses so many of pod b, and
// what they print.
func blocked(t *testing.T, refusals int) (*evictions, []*corev1.Pod, *bytes.Buffer) {
	t.Helper()
	server, c := clienttest.Start(t)
	pods := clienttest.Seed(server, pod("a"), pod("b"))
	clienttest.Seed(server, &policyv1.PodDisruptionBudget{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Status:   &policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, CurrentHealthy: 2, DesiredHealthy: 2, ExpectedPods: 3},
	})
	server.Intercept(func(_ string, req proto.Message) error {
		if evict, ok := req.(*apiv1.EvictRequest); ok && evict.GetEviction().GetMetadata().GetName() == "b" && refusals != 0 {
			refusals--
			return apierr.TooManyDisruptions("web", 0, "The disruption budget web needs 2 healthy pods and has 2 currently")
		}
		return nil
	})
	out := &bytes.Buffer{}
	return &evictions{
		session: session.New(session.Streams{Out: out, Err: out}), client: c, remove: drainOptions{grace: -1}.remover(c),
		pause: time.Millisecond, waits: map[*corev1.Pod]string{},
	}, pods, out
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:     &corev1.PodSpec{NodeName: "n", Containers: []*corev1.Container{{Name: "c", Image: "i"}}, TerminationGracePeriodSeconds: proto.Int64(30)},
	}
}

func TestEvictionsWaitForBudgets(t *testing.T) {
	e, pods, out := blocked(t, 3)
	if err := e.all(t.Context(), pods, time.Time{}); err != nil {
		t.Fatal(err)
	}
	want := "pod default/b waits for disruption budget web, which allows 0 disruptions: 2 of 3 pods are healthy, and 2 must be; trying again every 1ms\n"
	if text := out.String(); strings.Count(text, want) != 1 {
		t.Errorf("it printed\n%s\nwant once\n%s", text, want)
	}
	if len(e.gone) != 2 {
		t.Errorf("evicted %v, want both", e.gone)
	}
	if _, err := e.remove(t.Context(), pod("a")); err != nil {
		t.Errorf("a pod without a uid: %v", err)
	}
}

func TestEvictionsEndWithTheTimeLimit(t *testing.T) {
	e, pods, _ := blocked(t, -1)
	err := e.all(t.Context(), pods, time.Now().Add(20*time.Millisecond))
	timeout, ok := errors.AsType[*exit.Error](err)
	if !ok || timeout.Code != exit.Timeout || !strings.Contains(err.Error(), "eviction of 1 pods:\n  default/b waits for disruption budget web, which allows 0") {
		t.Errorf("got %v", err)
	}
}

func TestDisableEvictionDeletes(t *testing.T) {
	e, pods, _ := blocked(t, -1)
	e.remove = drainOptions{grace: 5, disableEviction: true}.remover(e.client)
	if err := e.all(t.Context(), pods, time.Time{}); err != nil {
		t.Fatal(err)
	}
	p, err := client.Get[*corev1.Pod](t.Context(), e.client, "default", "b")
	if err != nil || p.GetMetadata().GetDeletionGracePeriodSeconds() != 5 {
		t.Errorf("the pod is %v, %v", p.GetMetadata(), err)
	}
}
