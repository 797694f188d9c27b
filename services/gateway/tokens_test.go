package gateway

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// tokenBook stands for the service auth: it knows one token, until it forgets it.
type tokenBook struct {
	authv1.UnimplementedTokenServiceServer
	mu    sync.Mutex
	good  string
	asked int
	by    rpc.Identity
}

func (b *tokenBook) ReviewToken(ctx context.Context, req *authv1.ReviewTokenRequest) (*authv1.ReviewTokenResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	b.by = rpc.IdentityFromContext(ctx)
	if req.GetToken() != b.good {
		return &authv1.ReviewTokenResponse{Error: "nobody knows it"}, nil
	}
	return &authv1.ReviewTokenResponse{Authenticated: true, User: "system:serviceaccount:default:web", Groups: []string{"system:serviceaccounts"},
		ExpirationTimestamp: timestamppb.New(time.Now().Add(time.Hour))}, nil
}

func (b *tokenBook) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked
}

func TestTokens(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	f.serve("apiserver", "master-1", (&backend{}).register)
	book := &tokenBook{good: "a.good.token"}
	stopAuth := f.serve("auth", "master-1", func(r grpc.ServiceRegistrar) { authv1.RegisterTokenServiceServer(r, book) })

	trust, err := pki.NewTrustSource(f.cluster.CA.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	with := func(source *pki.Source, token string) *grpc.ClientConn {
		cfg := rpc.ClientConfig{ServerUser: "xebec:gateway", Options: []grpc.DialOption{grpc.WithDisableHealthCheck()}}
		if token != "" {
			cfg.Options = append(cfg.Options, grpc.WithPerRPCCredentials(rpc.Bearer(token)))
		}
		return f.cluster.Dial(t, f.address, source, cfg)
	}
	who := func(conn *grpc.ClientConn, ctx context.Context) (string, error) {
		resp, err := clusterv1.NewClusterServiceClient(conn).WhoAmI(ctx, &clusterv1.WhoAmIRequest{})
		return resp.GetUser(), err
	}
	refused := func(what string, err error, code codes.Code, reason string) {
		t.Helper()
		if apierr.Code(err) != code || apierr.Reason(err) != reason {
			t.Errorf("%s: %v (%s), want %v with %s", what, err, apierr.Reason(err), code, reason)
		}
	}
	known := with(trust, "a.good.token")
	f.eventually(func() error { _, err := who(known, f.ctx); return err })
	if user, err := who(known, f.ctx); err != nil || user != "system:serviceaccount:default:web" {
		t.Errorf("the caller is %q, %v", user, err)
	}
	if book.by.User != "xebec:gateway" {
		t.Errorf("auth was asked by %v", book.by)
	}
	before := book.count()
	for range 50 {
		if _, err := who(known, f.ctx); err != nil {
			t.Fatal(err)
		}
	}
	if asked := book.count() - before; asked > 20 {
		t.Errorf("50 calls made %d questions", asked)
	}
	resp, err := apiv1.NewResourceServiceClient(known).Create(metadata.AppendToOutgoingContext(f.ctx, "x-custom", "c"), &apiv1.CreateRequest{Object: packed(t, pod("web", ""))})
	if err != nil || resp.Warnings[0] != "system:serviceaccount:default:web" || resp.Warnings[1] != "system:serviceaccounts" || resp.Warnings[2] != "xebec:gateway" {
		t.Errorf("the apiserver saw %v, %v", resp, err)
	}
	_, err = nodev1.NewNodeServiceClient(known).ListServices(f.ctx, &nodev1.ListServicesRequest{Target: &nodev1.Target{Node: "node-1"}})
	refused("a call to a node", err, codes.PermissionDenied, apierr.ReasonForbidden)
	_, err = who(known, metadata.AppendToOutgoingContext(f.ctx, rpc.HeaderUser, "admin"))
	refused("a forged header", err, codes.PermissionDenied, rpc.ReasonForgedIdentity)

	_, err = who(with(trust, ""), f.ctx)
	refused("neither certificate nor token", err, codes.Unauthenticated, rpc.ReasonNoCertificate)
	for _, bad := range []string{"a.bad.token", "word", "...", strings.Repeat("x", 5000) + ".y.z"} {
		_, err = who(with(trust, bad), f.ctx)
		refused("token "+bad[:3], err, codes.Unauthenticated, rpc.ReasonBadToken)
	}
	_, err = who(with(trust, ""), metadata.AppendToOutgoingContext(f.ctx, rpc.HeaderAuthorization, "Basic YTpi"))
	refused("another scheme", err, codes.Unauthenticated, rpc.ReasonBadToken)

	admin := f.cluster.Admin(t)
	if user, err := who(with(admin, "a.bad.token"), f.ctx); err != nil || user != "admin" {
		t.Errorf("with a certificate and a token: %q, %v", user, err)
	}
	book.mu.Lock()
	book.good = "another.good.token"
	book.mu.Unlock()
	for {
		if _, err = who(known, f.ctx); apierr.Code(err) == codes.Unauthenticated || f.ctx.Err() != nil {
			break
		}
	}
	refused("a token that is no longer good", err, codes.Unauthenticated, rpc.ReasonBadToken)
	stopAuth()
	_, err = who(with(trust, "never.seen.before"), f.ctx)
	refused("while auth is down", err, codes.Unavailable, apierr.ReasonUnavailable)
}
