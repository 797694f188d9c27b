package rpc

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/retry"
)

// Limits of the back-off between questions for a server's health.
const (
	reachBackoffMin = 100 * time.Millisecond
	reachBackoffMax = 500 * time.Millisecond
)

// Reach finds out whether the server at an address answers. It asks for the server's health over a
// connection of its own, and tries again until ctx ends, which must have a deadline. Any answer of
// the server that cfg.ServerUser names counts, also that it is not serving, and gives nil.
func Reach(ctx context.Context, address string, cfg ClientConfig) error {
	cfg.Options = append(slices.Clone(cfg.Options),
		grpc.WithDisableHealthCheck(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: reachBackoffMin, Multiplier: 1.6, Jitter: 0.3, MaxDelay: reachBackoffMax},
			MinConnectTimeout: 3 * time.Second,
		}))
	conn, err := Dial(address, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx = retry.ByCaller(ctx)
	pauses := backoff.Backoff{Min: reachBackoffMin, Max: reachBackoffMax}
	for {
		_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		switch status.Code(err) {
		case codes.Unavailable:
			if pauses.Wait(ctx, err) == nil {
				continue
			}
		case codes.DeadlineExceeded, codes.Canceled:
		default:
			return nil // an answer, be it a refusal
		}
		return err
	}
}
