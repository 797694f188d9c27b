package hollow_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/hollow"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestSimulatedNodes(t *testing.T) {
	api := clienttest.NewServer()
	c := client.New(clienttest.Serve(t, api))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var mu sync.Mutex
	dialed := map[string]bool{}
	go func() {
		done <- hollow.Run(ctx, hollow.Config{
			Count: 60, NamePrefix: "hollow-", StartsPerSecond: 200, MaxPods: 20, LeaseTTL: 10 * time.Second, Log: zaptest.NewLogger(t),
			Dial: func(node string) (*grpc.ClientConn, error) {
				mu.Lock()
				defer mu.Unlock()
				if dialed[node] {
					return nil, fmt.Errorf("node %s makes a second connection", node)
				}
				dialed[node] = true
				return clienttest.Serve(t, api), nil
			},
		})
	}()
	eventually := func(what string, f func() bool) {
		t.Helper()
		containerdtest.Eventually(t, 60*time.Second, what, f)
	}
	eventually("all nodes are ready and live", func() bool {
		nodes, _, err := client.List[*corev1.Node](t.Context(), c, client.ListOptions{})
		leases, _, err2 := client.List[*coordinationv1.Lease](t.Context(), c, client.ListOptions{Namespace: "kube-node-lease"})
		ready := 0
		for _, n := range nodes {
			if core.NodeCondition(n, core.NodeReady).GetStatus() == "True" {
				ready++
			}
		}
		return errors.Join(err, err2) == nil && ready == 60 && len(leases) == 60
	})
	if len(dialed) != 60 {
		t.Errorf("60 nodes made %d connections", len(dialed))
	}
	hosts := map[string]bool{}
	for i := range 60 {
		node, err := client.Get[*corev1.Node](t.Context(), c, "", fmt.Sprintf("hollow-%d", i))
		if err != nil {
			t.Fatal(err)
		}
		hosts[core.NodeAddress(node, core.NodeInternalIP)] = true
		_, err = client.Create(t.Context(), c, &corev1.Pod{
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
	if len(hosts) != 60 {
		t.Errorf("60 nodes have %d addresses", len(hosts))
	}
	// Without a pod range a node has no addresses for its pods.
	for i := range 60 {
		node, err := client.Get[*corev1.Node](t.Context(), c, "", fmt.Sprintf("hollow-%d", i))
		if err != nil {
			t.Fatal(err)
		}
		node.Spec.PodCidr = fmt.Sprintf("10.0.%d.0/24", i)
		node.Spec.PodCidrs = []string{node.Spec.PodCidr, fmt.Sprintf("fd00:0:0:%x::/64", i)}
		clienttest.Seed(api, node)
	}
	var pods []*corev1.Pod
	eventually("all pods are ready", func() bool {
		var err error
		if pods, _, err = client.List[*corev1.Pod](t.Context(), c, client.ListOptions{Namespace: "default"}); err != nil {
			return false
		}
		for _, p := range pods {
			if !core.IsPodReady(p) {
				return false
			}
		}
		return len(pods) == 60
	})
	addresses := map[string]bool{}
	for _, p := range pods {
		number := strings.TrimPrefix(p.Spec.NodeName, "hollow-")
		hex, _ := strconv.Atoi(number)
		for i, r := range []string{"10.0." + number + ".0/24", fmt.Sprintf("fd00:0:0:%x::/64", hex)} {
			if addr, err := netip.ParseAddr(p.Status.PodIps[i].Ip); err != nil || !netip.MustParsePrefix(r).Contains(addr) {
				t.Errorf("a pod of %s has the address %s, want one of %s", p.Spec.NodeName, p.Status.PodIps[i].Ip, r)
			}
		}
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
	// Pods that are to end do, and leave their addresses to others: all fit into a range of 253.
	for i := range 300 {
		_, err := client.Create(t.Context(), c, &corev1.Pod{
			Metadata: &metav1.ObjectMeta{Name: fmt.Sprintf("once%d", i), Namespace: "default"},
			Spec: &corev1.PodSpec{
				NodeName: "hollow-1", RestartPolicy: core.RestartNever, Containers: []*corev1.Container{{Name: "main", Image: "none"}},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually("all have succeeded", func() bool {
		pods, _, err := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{Namespace: "default"})
		return err == nil && len(pods) == 300 && !slices.ContainsFunc(pods, func(p *corev1.Pod) bool {
			return p.GetStatus().GetPhase() != core.PodSucceeded || core.IsPodReady(p) ||
				p.GetStatus().GetContainerStatuses()[0].GetState().GetTerminated().GetReason() != "Completed"
		})
	})
	// Others take a node for silent, and delete another: both say that they are there.
	silent, err := client.Get[*corev1.Node](t.Context(), c, "", "hollow-3")
	if err != nil {
		t.Fatal(err)
	}
	core.NodeCondition(silent, core.NodeReady).Status = "Unknown"
	clienttest.Seed(api, silent)
	clienttest.Remove(api, &corev1.Node{Metadata: &metav1.ObjectMeta{Name: "hollow-4"}})
	eventually("both are ready again", func() bool {
		for _, name := range []string{"hollow-3", "hollow-4"} {
			n, err := client.Get[*corev1.Node](t.Context(), c, "", name)
			if err != nil || core.NodeCondition(n, core.NodeReady).GetStatus() != "True" {
				return false
			}
		}
		return true
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
