package apiserver

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestWatchesEndAtTheirAge keeps an informer over many ends of its watch: it resumes each time,
// sees every change and never reads the whole state again.
func TestWatchesEndAtTheirAge(t *testing.T) {
	_, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1), func(s *Service) { s.watchAge = 100 * time.Millisecond })
	c := admin(conn)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ready := false; !ready; {
		_, err := client.Get[*corev1.Namespace](ctx, c, "", "default")
		if ready = err == nil; !ready && !apierr.IsNotFound(err) {
			t.Fatal(err)
		}
	}
	var ends, states, adds atomic.Int32
	informer := client.NewInformer(c, client.InformerOptions[*corev1.ConfigMap]{Namespace: "default", OnError: func(err error) {
		if apierr.IsTooOld(err) || !apierr.IsUnavailable(err) {
			t.Errorf("the watch ended with %v", err)
		}
		ends.Add(1)
	}})
	informer.OnState(func() { states.Add(1) })
	informer.OnChange(func(old, _ *corev1.ConfigMap) {
		if old == nil {
			adds.Add(1)
		}
	})
	ended := make(chan struct{})
	go func() { defer close(ended); _ = informer.Run(ctx) }()
	if err := informer.WaitForSync(ctx); err != nil {
		t.Fatal(err)
	}
	before, made := adds.Load(), 0
	for ; ends.Load() < 4; made++ {
		if _, err := client.Create(ctx, c, configMap(fmt.Sprintf("c-%d", made))); err != nil {
			t.Fatal(err)
		}
	}
	for int(adds.Load()-before) < made {
		select {
		case <-ctx.Done():
			t.Fatalf("the informer saw %d of %d objects", adds.Load()-before, made)
		case <-time.After(5 * time.Millisecond):
		}
	}
	if n := states.Load(); n != 1 {
		t.Errorf("the informer read the whole state %d times over %d ends", n, ends.Load())
	}
	cancel()
	<-ended
}

// TestWatchEndsWithTheRight lets a node watch a secret until no pod of its refers to it.
func TestWatchEndsWithTheRight(t *testing.T) {
	_, conn := startService(t, DefaultConfig(), etcdtest.New(t, 1), func(s *Service) { s.recheck = 20 * time.Millisecond })
	c := admin(conn)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	waitNamespace(t, c)
	if _, err := client.Create(ctx, c, &corev1.Secret{Metadata: &metav1.ObjectMeta{Name: "key", Namespace: "default"}}); err != nil {
		t.Fatal(err)
	}
	user := pod("user")
	user.Spec.NodeName = "node-1"
	user.Spec.Volumes = []*corev1.Volume{{Name: "v", VolumeSource: &corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "key"}}}}
	if _, err := client.Create(ctx, c, user); err != nil {
		t.Fatal(err)
	}
	node := client.New(as{ClientConnInterface: conn, User: "system:node:node-1", Group: authz.GroupNodes})
	var last error
	for event, err := range client.Watch[*corev1.Secret](ctx, node, client.WatchOptions{Namespace: "default", FieldSelector: "metadata.name=key"}) {
		if last = err; err != nil {
			break
		}
		if event.InitialStateEnd {
			if _, err := client.Delete[*corev1.Pod](ctx, c, "default", "user", client.GracePeriod(0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !apierr.IsForbidden(last) {
		t.Errorf("the watch ended with %v, want a refusal", last)
	}
}
