package apiserver

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/authz"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// lateStream is a stream whose messages arrive late.
type lateStream struct{ grpc.ClientStream }

func (s lateStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	<-time.After(100 * time.Millisecond)
	return err
}

// TestNodeReadsSecretBeforeCacheHasBinding binds a pod by one apiserver, and reads its Secret as
// the node by another one whose watch cache is behind.
func TestNodeReadsSecretBeforeCacheHasBinding(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	c, ctx := admin(start(t, etcd)), t.Context()
	late, err := clientv3.New(clientv3.Config{
		Endpoints: etcd.Endpoints(), Logger: zap.NewNop(), Context: context.Background(),
		DialOptions: []grpc.DialOption{grpc.WithChainStreamInterceptor(
			func(ctx context.Context, d *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				stream, err := open(ctx, d, conn, method, opts...)
				if err != nil {
					return nil, err
				}
				return lateStream{stream}, nil
			})},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { late.Close() })
	_, conn := startServiceWith(t, DefaultConfig(), late)
	node := client.New(as{ClientConnInterface: conn, User: "system:node:node-1", Group: authz.GroupNodes})

	waitNamespace(t, c)
	for _, name := range []string{"used", "unused"} {
		do[*corev1.Secret](t)(client.Create(ctx, c, &corev1.Secret{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name}}))
	}
	p := pod("reader")
	p.Spec.ImagePullSecrets = []*corev1.LocalObjectReference{{Name: "used"}}
	do[*corev1.Pod](t)(client.Create(ctx, c, p))
	do[*client.Result](t)(client.Transact(ctx, c, client.OpBind("default", "reader", "", "node-1")))
	if _, err := client.Get[*corev1.Secret](ctx, node, "default", "used"); err != nil {
		t.Errorf("the Secret of a pod that was just bound: %v", err)
	}
	if _, err := client.Get[*corev1.Secret](ctx, node, "default", "unused"); !apierr.IsForbidden(err) {
		t.Errorf("a Secret that no pod refers to: %v", err)
	}
}
