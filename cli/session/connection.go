package session

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
)

// FieldManager owns the fields that people write through this command line.
const FieldManager = "xebec"

// LoadConfig reads the configuration file.
func (s *Session) LoadConfig() (*cliconfig.Config, string, error) {
	path, err := cliconfig.Path()
	if err != nil {
		return nil, "", err
	}
	config, err := cliconfig.Load(path)
	return config, path, err
}

// target returns the context in use, with the flags' changes.
func (s *Session) target() (*cliconfig.Context, error) {
	if s.resolved != nil {
		return s.resolved, nil
	}
	config, path, err := s.LoadConfig()
	if err != nil {
		return nil, err
	}
	if len(config.Contexts) == 0 {
		return nil, fmt.Errorf(
			"no contexts in %s: 'sudo xebec lab up' creates a cluster and its context, 'xebec config set-context' adds a context",
			path,
		)
	}
	var found *cliconfig.Context
	if s.context != "" {
		found, err = config.Context(s.context)
	} else {
		found, err = config.Current()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	chosen := *found
	if len(s.Endpoints) > 0 {
		chosen.Endpoints = s.Endpoints
	}
	if s.token != "" {
		if err := checkToken(s.token); err != nil {
			return nil, exit.Usagef("--token: %w", err)
		}
		chosen.Token, chosen.TokenFile, chosen.Cert, chosen.Key = s.token, "", cliconfig.PEM{}, cliconfig.PEM{}
	}
	s.resolved = &chosen
	return s.resolved, nil
}

// DefaultNamespace is that of the flag, else of the context.
func (s *Session) DefaultNamespace() (string, error) {
	if s.Namespace != "" {
		return s.Namespace, nil
	}
	t, err := s.target()
	if err != nil {
		return "", err
	}
	if t.Namespace != "" {
		return t.Namespace, nil
	}
	return cliconfig.DefaultNamespace, nil
}

// connection returns the connection to the cluster, which is made once.
func (s *Session) connection() (*grpc.ClientConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		return s.conn, nil
	}
	t, err := s.target()
	if err != nil {
		return nil, err
	}
	var options []grpc.DialOption
	if s.verbosity > 0 {
		options = append(options, grpc.WithChainUnaryInterceptor(s.traceCall), grpc.WithChainStreamInterceptor(s.traceStream))
	}
	s.conn, err = s.Dial(t, options...)
	return s.conn, err
}

// Client returns the client of the cluster's objects.
func (s *Session) Client() *client.Client {
	return client.New(s, client.WithFieldManager(FieldManager), client.WithTimeout(s.Timeout))
}

// Invoke implements grpc.ClientConnInterface: generated clients call the cluster through the shell,
// which connects at the first call. A call whose context has no deadline ends after
// --request-timeout.
func (s *Session) Invoke(ctx context.Context, method string, req, reply any, opts ...grpc.CallOption) error {
	conn, err := s.connection()
	if err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = s.Bounded(ctx)
		defer cancel()
	}
	return conn.Invoke(ctx, method, req, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface. Streams have no deadline of their own.
func (s *Session) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	conn, err := s.connection()
	if err != nil {
		return nil, err
	}
	return conn.NewStream(ctx, desc, method, opts...)
}

// Bounded limits a context to --request-timeout.
func (s *Session) Bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, cmp.Or(max(s.Timeout, 0), client.DefaultTimeout))
}

// dial connects to the gateways of a context as the person or the service account that it names.
func dial(t *cliconfig.Context, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	source, err := credentials(t)
	if err != nil {
		return nil, fmt.Errorf("context %q: %w", t.Name, err)
	}
	if t.ByToken() || len(t.Endpoints) == 1 {
		// With an invalid token the health check fails, and the gateway would appear unreachable. With a
		// single address, such as that of a load balancer, there is no other gateway to use when one
		// reports NOT_SERVING, and it still serves its calls.
		options = append(options, grpc.WithDisableHealthCheck())
	}
	if t.ByToken() {
		options = append(options, grpc.WithPerRPCCredentials(bearer{t}))
	}
	return rpc.Dial(
		rpc.SchemeStatic+":///"+strings.Join(t.Endpoints, ","),
		rpc.ClientConfig{TLS: source, Silence: rpc.PatientSilence, Options: options},
	)
}

func credentials(t *cliconfig.Context) (*pki.Source, error) {
	if t.ByToken() {
		if _, err := tokenOf(t); err != nil {
			return nil, err
		}
		data, err := t.CA.Load()
		if err != nil {
			return nil, exit.FileError("read authority", err)
		}
		return pki.NewTrustSource(data)
	}
	return steadySource(func() ([]byte, *pki.Pair, error) { return ownPair(t) })
}

// replacedWithin is how long a certificate and a key that do not belong together may be so because
// they are being replaced.
const replacedWithin = time.Second

// steadySource returns what read finds: certificates of authorities and a pair. Of a pair that is
// being replaced one half may be the old one and the other the new; then it reads again.
func steadySource(read func() ([]byte, *pki.Pair, error)) (*pki.Source, error) {
	for end := time.Now().Add(replacedWithin); ; <-time.After(replacedWithin / 20) {
		trusted, pair, err := read()
		if err != nil {
			return nil, err
		}
		if _, unfit := tls.X509KeyPair(pair.CertPEM, pair.KeyPEM); unfit == nil || time.Now().After(end) {
			return pki.NewMemorySource(trusted, pair)
		}
	}
}

// ownPair reads the certificates of the context's authorities, and its own.
func ownPair(t *cliconfig.Context) ([]byte, *pki.Pair, error) {
	var pem [3][]byte
	for i, p := range []struct {
		what string
		pem  cliconfig.PEM
	}{{"authority", t.CA}, {"certificate", t.Cert}, {"key", t.Key}} {
		data, err := p.pem.Load()
		if err != nil {
			return nil, nil, exit.FileError("read "+p.what, err)
		}
		pem[i] = data
	}
	return pem[0], &pki.Pair{CertPEM: pem[1], KeyPEM: pem[2]}, nil
}

func (s *Session) contextName() string {
	if s.resolved == nil {
		return s.context
	}
	return s.resolved.Name
}

// destination names the cluster in messages about its connection.
func (s *Session) destination() string {
	if s.resolved == nil {
		return "the cluster"
	}
	return fmt.Sprintf("the cluster of context %q at %s", s.resolved.Name, strings.Join(s.resolved.Endpoints, ", "))
}

func (s *Session) traceCall(
	ctx context.Context,
	method string,
	req, reply any,
	conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	began, id := time.Now(), edge.NewRequestID()
	err := invoke(metadata.AppendToOutgoingContext(ctx, edge.HeaderRequestID, id), method, req, reply, conn, opts...)
	s.Notef("%s %s: %s in %s, request id %s", filepath.Base(method), rpc.Object(req), status.Code(err),
		time.Since(began).Round(100*time.Microsecond), id)
	return err
}

func (s *Session) traceStream(
	ctx context.Context,
	desc *grpc.StreamDesc,
	conn *grpc.ClientConn,
	method string,
	open grpc.Streamer,
	opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	id := edge.NewRequestID()
	s.Notef("%s: stream opened, request id %s", filepath.Base(method), id)
	return open(metadata.AppendToOutgoingContext(ctx, edge.HeaderRequestID, id), desc, conn, method, opts...)
}
