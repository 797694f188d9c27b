package hollow_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent"
	"github.com/xebec-project/xebec/agent/hollow"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/kind"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestSimulatedNodes(t *testing.T) {
	api := clienttest.NewServer()
	c := client.New(clienttest.Serve(t, api))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- hollow.Run(ctx, hollow.Config{
			Count: 60, NamePrefix: "hollow-", MaxPods: 20, LeaseTTL: 10 * time.Second, Heartbeat: agent.Heartbeat, Log: zaptest.NewLogger(t),
			Dial: func() (*grpc.ClientConn, error) { return clienttest.Serve(t, api), nil },
		})
	}()
	eventually := func(what string, f func() bool) {
		t.Helper()
		containerdtest.Eventually(t, 20*time.Second, what, f)
	}
	eventually("all nodes are ready and live", func() bool {
		nodes, _, err := client.List[*corev1.Node](t.Context(), c, client.ListOptions{})
		leases, _, err2 := client.List[*coordinationv1.Lease](t.Context(), c, client.ListOptions{Namespace: "kube-node-lease"})
		ready := 0
		for _, n := range nodes {
			if kind.NodeCondition(n, kind.NodeReady).GetStatus() == "True" {
				ready++
			}
		}
		return errors.Join(err, err2) == nil && ready == 60 && len(leases) == 60
	})
	for i := range 60 {
		_, err := client.Create(t.Context(), c, &corev1.Pod{
			Metadata: &metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i), Namespace: "default"},
			Spec: &corev1.PodSpec{
				NodeName: fmt.Sprintf("hollow-%d", i), TerminationGracePeriodSeconds: proto.Int64(5),
				Containers: []*corev1.Container{{Name: "main", Image: "none"}},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var pods []*corev1.Pod
	eventually("all pods are ready", func() bool {
		var err error
		if pods, _, err = client.List[*corev1.Pod](t.Context(), c, client.ListOptions{Namespace: "default"}); err != nil {
			return false
		}
		for _, p := range pods {
			if !kind.IsPodReady(p) {
				return false
			}
		}
		return len(pods) == 60
	})
	addresses := map[string]bool{}
	for _, p := range pods {
		addresses[p.Status.PodIp] = true
		if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", p.Metadata.Name); err != nil {
			t.Error(err)
		}
	}
	if len(addresses) != 60 {
		t.Errorf("60 pods share %d addresses", len(addresses))
	}
	eventually("deleted pods go", func() bool {
		left, _, err := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{Namespace: "default"})
		return err == nil && len(left) == 0
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
