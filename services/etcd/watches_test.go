package etcd

import (
	"context"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/pki"
)

// TestRefusedWatchLeavesOthers asks for a watch of secrets on the stream of a watch that is
// allowed.
func TestRefusedWatchLeavesOthers(t *testing.T) {
	c := newCluster(t, 1, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	scheduler := c.client(c.as(pki.EtcdClientRequest("scheduler", "m")))
	allowed := scheduler.Watch(ctx, discovery.Prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if created, ok := <-allowed; !ok || created.Err() != nil {
		t.Fatalf("watch of registrations: %v", created.Err())
	}
	for range 3 {
		refused := <-scheduler.Watch(ctx, "/xebec/registry/core/Secret/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		if err := refused.Err(); err == nil || !strings.Contains(err.Error(), rpctypes.ErrPermissionDenied.Error()) {
			t.Errorf("watch of secrets: %v, want %v", err, rpctypes.ErrPermissionDenied)
		}
	}
	if _, err := scheduler.Put(ctx, discovery.Prefix+"scheduler/m", "{}"); err != nil {
		t.Fatal(err)
	}
	if got, ok := <-allowed; !ok || got.Err() != nil || got.Created || len(got.Events) != 1 {
		t.Errorf("after refused watches, the allowed watch has %+v, %v", got, got.Err())
	}
}
