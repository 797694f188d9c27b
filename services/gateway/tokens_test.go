package gateway

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/edge/tokens/tokenstest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/token"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// tokenSite is a gateway with an apiserver and an issuer.
type tokenSite struct {
	*fixture
	issuer   *tokenstest.Issuer
	trust    *pki.Source
	stopAuth func()
}

func newTokenSite(t *testing.T) *tokenSite {
	s := &tokenSite{fixture: newFixture(t, DefaultConfig()), issuer: tokenstest.NewIssuer(t)}
	s.serve("apiserver", "master-1", (&backend{}).register)
	s.stopAuth = s.serve("auth", "master-1", func(r grpc.ServiceRegistrar) { authv1.RegisterTokenServiceServer(r, s.issuer) })
	var err error
	if s.trust, err = pki.NewTrustSource(s.cluster.CA.CertPEM()); err != nil {
		t.Fatal(err)
	}
	return s
}

// as connects with a token, none when it is empty.
func (s *tokenSite) as(source *pki.Source, bearer string) *grpc.ClientConn {
	cfg := rpc.ClientConfig{ServerUser: "xebec:gateway", Options: []grpc.DialOption{grpc.WithDisableHealthCheck()}}
	if bearer != "" {
		cfg.Options = append(cfg.Options, grpc.WithPerRPCCredentials(rpc.Bearer(bearer)))
	}
	return s.cluster.Dial(s.t, s.address, source, cfg)
}

func who(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	resp, err := clusterv1.NewClusterServiceClient(conn).WhoAmI(ctx, &clusterv1.WhoAmIRequest{})
	return resp.GetUser(), err
}

func (s *tokenSite) refused(what string, err error, code codes.Code, reason string) {
	s.t.Helper()
	if apierr.Code(err) != code || apierr.Reason(err) != reason {
		s.t.Errorf("%s: %v (%s), want %v with %s", what, err, apierr.Reason(err), code, reason)
	}
}

func TestTokens(t *testing.T) {
	s := newTokenSite(t)
	good := s.issuer.Token(nil)
	known := s.as(s.trust, good)
	s.eventually(func() error { _, err := who(s.ctx, known); return err })
	if user, err := who(s.ctx, known); err != nil || user != "system:serviceaccount:default:web" {
		t.Errorf("the caller is %q, %v", user, err)
	}
	if s.issuer.Caller().User != "xebec:gateway" {
		t.Errorf("auth was asked by %v", s.issuer.Caller())
	}
	before, _ := s.issuer.Counts()
	for range 50 {
		if _, err := who(s.ctx, known); err != nil {
			t.Fatal(err)
		}
	}
	if after, _ := s.issuer.Counts(); after-before > 20 {
		t.Errorf("50 calls made %d reviews", after-before)
	}
	resp, err := apiv1.NewResourceServiceClient(known).Create(metadata.AppendToOutgoingContext(s.ctx, "x-custom", "c"), &apiv1.CreateRequest{Object: packed(t, pod("web", ""))})
	if err != nil || resp.Warnings[0] != "system:serviceaccount:default:web" || !strings.HasPrefix(resp.Warnings[1], "system:serviceaccounts,") || resp.Warnings[2] != "xebec:gateway" {
		t.Errorf("the apiserver saw %v, %v", resp, err)
	}
	_, err = nodev1.NewNodeServiceClient(known).ListServices(s.ctx, &nodev1.ListServicesRequest{Target: &nodev1.Target{Node: "node-1"}})
	s.refused("a call to a node", err, codes.PermissionDenied, apierr.ReasonForbidden)
	_, err = who(metadata.AppendToOutgoingContext(s.ctx, edge.HeaderUser, "admin"), known)
	s.refused("a forged header", err, codes.PermissionDenied, edge.ReasonForgedIdentity)

	_, err = who(s.ctx, s.as(s.trust, ""))
	s.refused("neither certificate nor token", err, codes.Unauthenticated, edge.ReasonNoCertificate)
	_, err = who(metadata.AppendToOutgoingContext(s.ctx, edge.HeaderAuthorization, "Basic YTpi"), s.as(s.trust, ""))
	s.refused("another scheme", err, codes.Unauthenticated, edge.ReasonBadToken)
	reviewed, _ := s.issuer.Counts()
	for name, bad := range map[string]string{
		"a word": "word", "no token": "...", "a long one": strings.Repeat("x", 5000) + ".y.z",
		"another audience": s.issuer.Token(func(c *token.Claims) { c.Audience = []string{"vault"} }),
		"another's key":    tokenstest.NewIssuer(t).Token(nil),
		"cut":              good[:len(good)-4],
	} {
		_, err = who(s.ctx, s.as(s.trust, bad))
		s.refused(name, err, codes.Unauthenticated, edge.ReasonBadToken)
	}
	_, err = who(s.ctx, s.as(s.trust, s.issuer.Token(func(c *token.Claims) { c.Expiry = jwt.NewNumericDate(time.Now().Add(-time.Hour)) })))
	s.refused("an expired one", err, codes.Unauthenticated, edge.ReasonExpired)
	if after, _ := s.issuer.Counts(); after != reviewed {
		t.Errorf("auth was asked about tokens that are wrong by themselves")
	}
	if user, err := who(s.ctx, s.as(s.cluster.Admin(t), "a.bad.token")); err != nil || user != "admin" {
		t.Errorf("with a certificate and a token: %q, %v", user, err)
	}

	s.stopAuth()
	_, err = who(s.ctx, s.as(s.trust, s.issuer.Token(nil)))
	s.refused("while auth is down", err, codes.Unavailable, apierr.ReasonUnavailable)
}

// TestTokenRevocation deletes what a token is bound to: calls are refused, and an open watch ends,
// within seconds.
func TestTokenRevocation(t *testing.T) {
	s := newTokenSite(t)
	conn := s.as(s.trust, s.issuer.Token(nil))
	s.eventually(func() error { _, err := who(s.ctx, conn); return err })
	watch, err := apiv1.NewResourceServiceClient(conn).Watch(s.ctx, &apiv1.WatchRequest{Kind: "Pod"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	s.issuer.Revoke("pod default/web-1 is gone")
	began := time.Now()
	_, err = watch.Recv()
	s.refused("a watch", err, codes.Unauthenticated, edge.ReasonBadToken)
	t.Logf("the watch ended %s after the revocation", time.Since(began).Round(time.Millisecond))
	_, err = who(s.ctx, conn)
	s.refused("a call", err, codes.Unauthenticated, edge.ReasonBadToken)
}

// TestTokenExpiry opens a watch with a token that expires soon.
func TestTokenExpiry(t *testing.T) {
	s := newTokenSite(t)
	s.eventually(func() error { _, err := who(s.ctx, s.as(s.trust, s.issuer.Token(nil))); return err })
	conn := s.as(s.trust, s.issuer.Token(func(c *token.Claims) { c.Expiry = jwt.NewNumericDate(time.Now().Add(3 * time.Second)) }))
	watch, err := apiv1.NewResourceServiceClient(conn).Watch(s.ctx, &apiv1.WatchRequest{Kind: "Pod"})
	for err == nil {
		_, err = watch.Recv()
	}
	s.refused("a watch", err, codes.Unauthenticated, edge.ReasonExpired)
	_, err = who(s.ctx, conn)
	s.refused("a call", err, codes.Unauthenticated, edge.ReasonExpired)
}

// TestNewKey signs with a key that the gateway has not seen: it fetches the keys once, and then
// knows the token.
func TestNewKey(t *testing.T) {
	s := newTokenSite(t)
	s.eventually(func() error { _, err := who(s.ctx, s.as(s.trust, s.issuer.Token(nil))); return err })
	s.issuer.SetKeyID("two")
	conn := s.as(s.trust, s.issuer.Token(nil))
	s.eventually(func() error { _, err := who(s.ctx, conn); return err })

	// Tokens with keys that do not exist make no more than a fetch every two seconds.
	_, before := s.issuer.Counts()
	began := time.Now()
	s.issuer.SetKeyID("three")
	for range 40 {
		bad := s.issuer.Token(nil)
		s.issuer.SetKeyID("two")
		if _, err := who(s.ctx, s.as(s.trust, bad)); err == nil {
			t.Fatal("a key that does not exist is known")
		}
		s.issuer.SetKeyID("three")
	}
	s.issuer.SetKeyID("two")
	if _, after := s.issuer.Counts(); after-before > 2+int(time.Since(began)/(2*time.Second)) {
		t.Errorf("40 tokens in %s made %d fetches", time.Since(began), after-before)
	}
}
