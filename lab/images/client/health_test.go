package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/loopbacktest"
)

func TestHealth(t *testing.T) {
	var out bytes.Buffer
	address := loopbacktest.Address(t).String()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- run(ctx, []string{"health", address, "--after", "300ms"}, &out) }()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	checks := grpc_health_v1.NewHealthClient(conn)
	limit, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	expect := func(service, want string) {
		t.Helper()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			got, err := checks.Check(limit, &grpc_health_v1.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
			if err == nil && got.GetStatus().String() == want || err != nil && status.Code(err).String() == want {
				return
			}
			select {
			case <-limit.Done():
				t.Fatalf("health of %q is %v, %v, want %s", service, got, err, want)
			case <-tick.C:
			}
		}
	}
	expect("", "SERVING")
	expect(healthService, "SERVING")
	expect("other", codes.NotFound.String())
	cancel()
	if err := <-over; err != nil || out.String() != "health is NOT_SERVING\nhealth is SERVING\n" {
		t.Errorf("%v, said %q", err, &out)
	}
	if err := run(t.Context(), []string{"health", address, "--after", "2s", "--until", "1s"}, &out); err == nil {
		t.Error("health that ends before it begins is no error")
	}
}

// TestHealthEnds reads the reported health until the server has become unhealthy again.
func TestHealthEnds(t *testing.T) {
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() {
		over <- run(ctx, []string{"health", loopbacktest.Address(t).String(), "--after", "10ms", "--until", "20ms"}, w)
	}()
	lines := bufio.NewScanner(r)
	for _, want := range []string{"health is NOT_SERVING", "health is SERVING", "health is NOT_SERVING"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("it said %q, want %q", lines.Text(), want)
		}
	}
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
}
