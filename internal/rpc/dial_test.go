package rpc

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/retry"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
)

// TestRepeat counts the attempts at calls that fail.
func TestRepeat(t *testing.T) {
	const get, create = apiv1.ResourceService_Get_FullMethodName, apiv1.ResourceService_Create_FullMethodName
	unavailable := apierr.Unavailable("no instance answers")
	overloaded := apierr.Overloaded(time.Second, "too much to do")
	for name, tt := range map[string]struct {
		method   string
		err      error
		byCaller bool
		budget   float64
		attempts int
	}{
		"a read without an answer":           {get, unavailable, false, 10, 4},
		"a write without an answer":          {create, unavailable, false, 10, 1},
		"a read, with an empty budget":       {get, unavailable, false, 0, 1},
		"a read, with a small budget":        {get, unavailable, false, 2, 3},
		"a write that was refused":           {create, overloaded, false, 4, 5},
		"another's write that was refused":   {create, overloaded, true, 10, 1},
		"a forwarded read without an answer": {get, unavailable, true, 10, 1},
		"a message that is too large":        {create, status.Error(codes.ResourceExhausted, "larger than max"), false, 10, 1},
		"a full store":                       {create, apierr.StorageFull(time.Minute), false, 10, 1},
		"a missing object":                   {get, status.Error(codes.NotFound, "no"), false, 10, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			attempts := 0
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if tt.byCaller {
				ctx = retry.ByCaller(ctx)
			}
			err := repeat(retry.NewBudget(tt.budget, 0, 0))(ctx, tt.method, nil, nil, nil,
				func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
					attempts++
					return tt.err
				})
			if !errors.Is(err, tt.err) || attempts != tt.attempts {
				t.Errorf("%s: %v after %d attempts, want %d", name, err, attempts, tt.attempts)
			}
		})
	}
}

// slowPeer takes a time of its own for each handshake.
type slowPeer struct {
	credentials.TransportCredentials
	takes time.Duration
}

func (s *slowPeer) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	select {
	case <-time.After(s.takes):
		return raw, nil, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// TestHandshakeTimeoutAdapts connects to a peer that is slow, then quick, then hangs.
func TestHandshakeTimeoutAdapts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peer := &slowPeer{}
		c := AdaptiveCredentials(peer)
		for i, tt := range []struct {
			takes, wait time.Duration
			succeeds    bool
		}{
			{time.Second, time.Second, true},
			{15 * time.Second, 10 * time.Second, false},
			{15 * time.Second, 15 * time.Second, true}, // it has 20 s
			{time.Hour, 10 * time.Second, false},
			{time.Hour, 20 * time.Second, false},
			{time.Hour, 20 * time.Second, false},
		} {
			peer.takes = tt.takes
			began := time.Now()
			_, _, err := c.ClientHandshake(t.Context(), "xebec", nil)
			if took := time.Since(began); (err == nil) != tt.succeeds || took != tt.wait {
				t.Errorf("handshake %d: %v after %s, want %s", i, err, took, tt.wait)
			}
		}
	})
}
