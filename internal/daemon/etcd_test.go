package daemon

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/retry"
)

// TestEtcdRequestsAreBounded makes many requests at once: no more are under way than the limit, and
// those whose callers give up while they wait are never made.
func TestEtcdRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit, calls = 8, 200
		requests := etcdRequests(adaptivelimiter.NewBuilder[any]().WithLimits(limit, limit, limit).Build(), retry.NewBudget(0, 0, 0))
		release := make(chan struct{})
		var made, gaveUp atomic.Int64
		invoke := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			made.Add(1)
			<-release
			return nil
		}
		ctx, giveUp := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range calls {
			all.Go(func() {
				err := requests(ctx, pb.KV_Put_FullMethodName, nil, nil, nil, invoke)
				if status.Code(err) == codes.Canceled {
					gaveUp.Add(1)
				}
			})
		}
		synctest.Wait()
		if made.Load() != limit {
			t.Errorf("%d requests are under way, want %d", made.Load(), limit)
		}
		giveUp()
		synctest.Wait()
		close(release)
		all.Wait()
		if made.Load() != limit || gaveUp.Load() != calls-limit {
			t.Errorf("%d requests were made and %d given up, want %d and %d", made.Load(), gaveUp.Load(), limit, calls-limit)
		}
	})
}

// TestEtcdRequestsAreRepeated counts the attempts at requests that no member answers.
func TestEtcdRequestsAreRepeated(t *testing.T) {
	limiter := adaptivelimiter.NewWithDefaults[any]()
	for method, want := range map[string]int{pb.KV_Range_FullMethodName: 5, pb.KV_Put_FullMethodName: 1, pb.KV_Txn_FullMethodName: 1, pb.Lease_LeaseGrant_FullMethodName: 1} {
		down := status.Error(codes.Unavailable, "no leader")
		attempts := 0
		err := etcdRequests(limiter, retry.NewBudget(100, 0, 0))(t.Context(), method, nil, nil, nil,
			func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
				attempts++
				return down
			})
		if !errors.Is(err, down) || attempts != want {
			t.Errorf("%s: %v after %d attempts, want %d", method, err, attempts, want)
		}
	}
	attempts := 0
	_ = etcdRequests(limiter, retry.NewBudget(100, 0, 0))(retry.ByCaller(t.Context()), pb.KV_Range_FullMethodName, nil, nil, nil,
		func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
			attempts++
			return status.Error(codes.Unavailable, "no leader")
		})
	if attempts != 1 {
		t.Errorf("%d attempts at a read that its caller repeats, want 1", attempts)
	}
	if n := limiter.Inflight(); n != 0 {
		t.Errorf("%d permits were not given back", n)
	}
}

// TestLearnersAreNotAsked has a member that has just joined refuse requests, writes too: another
// takes them.
func TestLearnersAreNotAsked(t *testing.T) {
	for _, method := range []string{pb.KV_Range_FullMethodName, pb.KV_Txn_FullMethodName} {
		attempts := 0
		err := etcdRequests(adaptivelimiter.NewWithDefaults[any](), retry.NewBudget(100, 0, 0))(t.Context(), method, nil, nil, nil,
			func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
				if attempts++; attempts == 1 {
					return rpctypes.ErrGRPCNotSupportedForLearner
				}
				return nil
			})
		if err != nil || attempts != 2 {
			t.Errorf("%s: %v after %d attempts, want 2", method, err, attempts)
		}
	}
}

// TestEtcdClientRepeatsNothingItself dials with the options of every service: of a request to a
// member that is not there, the client's own layer makes one attempt.
func TestEtcdClientRepeatsNothingItself(t *testing.T) {
	etcd := etcdtest.New(t, 1)
	registry := prometheus.NewRegistry()
	client, err := dialEtcd(EtcdConfig{Endpoints: etcd.Client().Endpoints()}, zaptest.NewLogger(t), registry)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Put(t.Context(), "/a", "1"); err != nil {
		t.Fatal(err)
	}
	if resp, err := client.Get(t.Context(), "/a"); err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	var attempts atomic.Int64
	down := grpc.WithChainUnaryInterceptor(func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
		attempts.Add(1)
		return status.Error(codes.Unavailable, "there is no connection available")
	})
	config, err := etcdConfig(EtcdConfig{Endpoints: etcd.Client().Endpoints()}, zaptest.NewLogger(t), adaptivelimiter.NewWithDefaults[any]())
	if err != nil {
		t.Fatal(err)
	}
	config.DialOptions = append(config.DialOptions, down)
	if client, err = clientv3.New(config); err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Put(t.Context(), "/a", "1"); err == nil || attempts.Load() != 1 {
		t.Errorf("%v after %d attempts, want 1", err, attempts.Load())
	}
}
