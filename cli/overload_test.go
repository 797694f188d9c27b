package cli

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/rpc"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// TestBusyServers makes calls to a server that is busy for a while: they pass when it is not any more, unless that is after
// their deadline or the server does not say when.
func TestBusyServers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		err   error
		calls int // the last of which succeeds, unless all fails
		fails bool
	}{
		{"overloaded", apierr.Overloaded(2*time.Second, "busy"), 4, false},
		{"for too long", apierr.Overloaded(11*time.Second, "busy"), 1, true},
		{"until after the deadline", apierr.Overloaded(4*time.Second, "busy"), 3, true},
		{"full", apierr.StorageFull(time.Second), 1, true},
		{"too many connections", apierr.New(codes.ResourceExhausted, rpc.ReasonConnections, "too many"), 1, true},
		{"unavailable", apierr.Unavailable("gone"), 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				began, calls := time.Now(), 0
				err := patient(ctx, apiv1.ResourceService_Create_FullMethodName, nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
					if calls++; calls == tt.calls && !tt.fails {
						return nil
					}
					return tt.err
				})
				asked, _ := apierr.RetryAfter(tt.err)
				if (err != nil) != tt.fails || calls != tt.calls || time.Since(began) != asked*time.Duration(calls-1) {
					t.Errorf("%d calls in %s ended with %v, want %d", calls, time.Since(began), err, tt.calls)
				}
			})
		})
	}
}

// TestWatchesOfBusyServers follows objects although the server refuses the first watches.
func TestWatchesOfBusyServers(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, webPod("web-1", ""))
	began, refused := time.Now(), 0
	c.Intercept(func(_ string, req proto.Message) error {
		if _, watch := req.(*apiv1.WatchRequest); watch && refused < 2 {
			refused++
			return apierr.New(codes.ResourceExhausted, rpc.ReasonRateLimited, "too many", &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
		}
		return nil
	})
	r := c.run(t, "wait", "pod/web-1", "--for=jsonpath={.metadata.name}=web-1", "--timeout=20s")
	if took := time.Since(began); r.code != ExitOK || refused != 2 || took < 2*time.Second {
		t.Errorf("code %d after %d refusals and %s: %s", r.code, refused, took, r.err)
	}
}
