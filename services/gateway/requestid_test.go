package gateway

import (
	"context"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// TestRequestIDAtEveryHop makes failing calls to the apiserver and to an agent, and finds one
// request id in the logs of all servers that a call passes and in its error, whether the caller
// chose the id or the gateway made it.
func TestRequestIDAtEveryHop(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	cluster := rpctest.NewCluster(t)
	cluster.Log = zap.New(core)
	f := newFixtureOf(t, DefaultConfig(), cluster)
	api := &backend{}
	f.serve("apiserver", "master-1", api.register)
	api.put("Node", "node-1", f.serveAgent("node-1", "agent"))
	conn := f.dial(pki.AdminRequest("admin"))
	objects, leases := apiv1.NewResourceServiceClient(conn), apiv1.NewLeaseServiceClient(conn)
	agents := nodev1.NewNodeServiceClient(conn)
	for name, call := range map[string]struct {
		do func(context.Context) error
		// hops is how many servers log the call, and others that it causes.
		hops int
	}{
		"unary": {func(ctx context.Context) error {
			_, err := objects.Get(ctx, &apiv1.GetRequest{Object: &apiv1.ObjectReference{Kind: "Pod", Name: "none"}})
			return err
		}, 2},
		"stream": {func(ctx context.Context) error {
			stream, err := leases.KeepAlive(ctx)
			if err == nil {
				err = stream.Send(&apiv1.KeepAliveRequest{LeaseId: 13})
			}
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}, 2},
		"agent": {func(ctx context.Context) error {
			_, err := agents.ListServices(ctx, &nodev1.ListServicesRequest{Target: &nodev1.Target{Node: "node-1"}})
			return err
		}, 3}, // the gateway reads the node from the apiserver
	} {
		for _, chosen := range []string{"", "ann-" + name} {
			ctx := f.ctx
			if chosen != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, edge.HeaderRequestID, chosen)
			}
			err := call.do(ctx)
			if err == nil {
				t.Fatalf("%s: the call passed", name)
			}
			id := apierr.RequestID(err)
			if chosen != "" && id != chosen || chosen == "" && len(id) != 32 {
				t.Errorf("%s: the error %v has request id %q, want %q", name, err, id, chosen)
			}
			f.eventually(func() error {
				found := logs.FilterField(zap.String(metrics.KeyRequestID, id))
				forwarded := found.FilterField(zap.String(metrics.KeyForwarder, "xebec:gateway"))
				if found.Len() != call.hops || forwarded.Len() != 1 {
					return apierr.Internal("%s: %d log entries have request id %s, %d of them of forwarded calls, want %d and 1",
						name, found.Len(), id, forwarded.Len(), call.hops)
				}
				return nil
			})
		}
	}

	_, err := objects.Get(metadata.AppendToOutgoingContext(f.ctx, edge.HeaderRequestID, "a\"b"), &apiv1.GetRequest{})
	if apierr.Code(err) != codes.InvalidArgument || apierr.Reason(err) != apierr.ReasonBadRequest {
		t.Errorf("an invalid request id: %v", err)
	}
}
