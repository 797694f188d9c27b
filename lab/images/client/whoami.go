package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// accountDir is where a pod has the token of its service account.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// token is sent with every call.
type token string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (t token) RequireTransportSecurity() bool { return true }

// whoami asks the cluster, with the token in a directory, whose it is, and prints the answer. The
// server's certificate must be good for the address that was called, as any program of other people
// checks it.
func whoami(ctx context.Context, out io.Writer, address, dir string, timeout time.Duration) error {
	text, err := os.ReadFile(filepath.Join(dir, "token"))
	if err != nil {
		return err
	}
	authorities, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return errors.New("ca.crt contains no certificate")
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool})),
		grpc.WithPerRPCCredentials(token(strings.TrimSpace(string(text)))))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cluster := clusterv1.NewClusterServiceClient(conn)
	for {
		who, err := cluster.WhoAmI(ctx, &clusterv1.WhoAmIRequest{}, grpc.WaitForReady(true))
		if status.Code(err) == codes.Unavailable && ctx.Err() == nil {
			// By its meaning it is asked again: the cluster is there and can't tell at the moment.
			rest(ctx, restHold)
			continue
		}
		if err == nil {
			_, err = fmt.Fprintln(out, who.GetUser())
		}
		return err
	}
}
