package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// healthService is the service that the health server knows, beside the whole of it, which has no
// name.
const healthService = "client"

// serveHealth answers gRPC health checks at an address until ctx ends: that all is well once after
// has passed and, unless it is 0, before until has; that it is not at other times. Of services that
// it does not know it says so.
func serveHealth(ctx context.Context, out io.Writer, address string, after, until time.Duration) error {
	if until != 0 && until <= after {
		return fmt.Errorf("invalid --until value %v: want a time later than --after %v", until, after)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	checks := health.NewServer()
	set := func(s grpc_health_v1.HealthCheckResponse_ServingStatus) {
		for _, service := range []string{"", healthService} {
			checks.SetServingStatus(service, s)
		}
		fmt.Fprintln(out, "health is", s)
	}
	set(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, checks)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	defer server.Stop()
	next := time.NewTimer(after)
	defer next.Stop()
	good := false
	for {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		if good = !good; !good {
			set(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
			continue
		}
		set(grpc_health_v1.HealthCheckResponse_SERVING)
		if until > 0 {
			next.Reset(until - after)
		}
	}
}
