package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/pki"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// asked answers with the token that came, but for the first time.
type asked struct {
	clusterv1.UnimplementedClusterServiceServer
	before atomic.Bool
}

func (a *asked) WhoAmI(ctx context.Context, _ *clusterv1.WhoAmIRequest) (*clusterv1.WhoAmIResponse, error) {
	if !a.before.Swap(true) {
		return nil, status.Error(codes.Unavailable, "not now")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return &clusterv1.WhoAmIResponse{User: strings.Join(md.Get("authorization"), ",")}, nil
}

func TestWhoAmI(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.CreateCA("ca", 0)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.GatewayRequest("master-1", "cluster.local", netip.MustParseAddr("127.0.0.2")))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	clusterv1.RegisterClusterServiceServer(server, &asked{})
	t.Cleanup(server.Stop)
	serve := func(address string) string {
		l, err := net.Listen("tcp", address+":0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(l) }() // It fails only by Stop.
		return l.Addr().String()
	}
	for name, content := range map[string][]byte{"token": []byte("a.b.c\n"), "ca.crt": ca.CertPEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := whoami(t.Context(), &out, serve("127.0.0.2"), dir, time.Minute); err != nil || out.String() != "Bearer a.b.c\n" {
		t.Errorf("got %q, %v", &out, err)
	}
	// A certificate that is not for the address is refused, until the call's time is up. On a busy
	// machine that may be before the first handshake.
	other := serve("127.0.0.3")
	for limit := time.Second; ; limit *= 4 {
		err := whoami(t.Context(), &out, other, dir, limit)
		if err != nil && strings.Contains(err.Error(), "127.0.0.3") {
			break
		}
		if err == nil || limit > 20*time.Second {
			t.Fatalf("by another address, within %s: %v", limit, err)
		}
	}
}
