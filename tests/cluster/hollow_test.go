package cluster_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

// TestHollowNodes runs pods on simulated nodes, which have no more rights than real ones: an
// apiserver that checks what nodes write takes their pods' addresses only from their own ranges.
func TestHollowNodes(t *testing.T) {
	binaries, remove, err := cluster.Build(t.Context(), "xebecd", "xebec-agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Config{Binaries: binaries})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	const nodes, pods = 20, 60
	if _, err := c.StartHollow(nodes, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := c.Dial("gateway")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	api := client.New(conn)
	labels := map[string]string{"app": "hollow"}
	if _, err := client.Create(ctx, api, &appsv1.ReplicaSet{
		Metadata: &metav1.ObjectMeta{Name: "hollow", Namespace: "default"},
		Spec: &appsv1.ReplicaSetSpec{
			Replicas: proto.Int32(pods), Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: &corev1.PodTemplateSpec{
				Metadata: &metav1.ObjectMeta{Labels: labels},
				Spec:     &corev1.PodSpec{Containers: []*corev1.Container{{Name: "main", Image: "none:1"}}},
			},
		},
	}); err != nil {
		t.Fatal(err)
	}
	ready, addresses := map[string]*corev1.Pod{}, map[string]bool{}
	for event, err := range client.Watch[*corev1.Pod](ctx, api, client.WatchOptions{Namespace: "default"}) {
		if err != nil {
			t.Fatalf("%d of %d pods were ready: %v", len(ready), pods, err)
		}
		if p := event.Object; p != nil && core.IsPodReady(p) {
			ready[p.GetMetadata().GetName()] = p
		}
		if len(ready) == pods {
			break
		}
	}
	for name, p := range ready {
		node, err := client.Get[*corev1.Node](ctx, api, "", p.GetSpec().GetNodeName())
		if err != nil {
			t.Fatal(err)
		}
		addr, err := netip.ParseAddr(p.GetStatus().GetPodIp())
		if err != nil || !netip.MustParsePrefix(node.GetSpec().GetPodCidr()).Contains(addr) || addresses[addr.String()] {
			t.Errorf("pod %s has the address %q, want one of its own in %s", name, p.GetStatus().GetPodIp(), node.GetSpec().GetPodCidr())
		}
		addresses[addr.String()] = true
	}
	// Each node registered as itself, and has a heartbeat.
	for i := range nodes {
		if _, err := client.Get[*corev1.Node](ctx, api, "", fmt.Sprintf("hollow-%d", i)); err != nil {
			t.Error(err)
		}
	}
}
