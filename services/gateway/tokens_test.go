package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/token"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// issuer stands for the service auth: it signs tokens, and revokes them all when told.
type issuer struct {
	authv1.UnimplementedTokenServiceServer
	t   testing.TB
	key *ecdsa.PrivateKey

	mu       sync.Mutex
	id       string // of the key, as it is published
	revoked  bool
	reviewed int
	listed   int
	by       rpc.Identity
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{t: t, key: key, id: "one"}
}

const issuerURL = "https://kubernetes.default.svc.cluster.local"

// token signs a token of account web.
func (i *issuer) token(change func(*token.Claims)) string {
	i.t.Helper()
	bound := token.Bound{Namespace: "default", ServiceAccount: token.Reference{Name: "web", UID: "u"}}
	c := token.Claims{Kubernetes: bound, Claims: jwt.Claims{
		Issuer: issuerURL, Subject: bound.User(), Audience: []string{issuerURL}, Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)), ID: rand.Text(),
	}}
	if change != nil {
		change(&c)
	}
	i.mu.Lock()
	id := i.id
	i.mu.Unlock()
	signed, err := token.Sign(id, i.key, c)
	if err != nil {
		i.t.Fatal(err)
	}
	return signed
}

func (i *issuer) ListKeys(context.Context, *authv1.ListKeysRequest) (*authv1.ListKeysResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.listed++
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: i.id, Algorithm: "ES256", Use: "sig"}}})
	return &authv1.ListKeysResponse{Jwks: string(set), Issuer: issuerURL}, err
}

func (i *issuer) ReviewToken(ctx context.Context, req *authv1.ReviewTokenRequest) (*authv1.ReviewTokenResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.reviewed++
	i.by = rpc.IdentityFromContext(ctx)
	if i.revoked {
		return &authv1.ReviewTokenResponse{Error: "pod default/web-1 is gone"}, nil
	}
	return &authv1.ReviewTokenResponse{Authenticated: true}, nil
}

func (i *issuer) counts() (reviewed, listed int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.reviewed, i.listed
}

func (i *issuer) change(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
}

// tokenSite is a gateway with an apiserver and an issuer.
type tokenSite struct {
	*fixture
	issuer   *issuer
	trust    *pki.Source
	stopAuth func()
}

func newTokenSite(t *testing.T) *tokenSite {
	s := &tokenSite{fixture: newFixture(t, DefaultConfig()), issuer: newIssuer(t)}
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
	good := s.issuer.token(nil)
	known := s.as(s.trust, good)
	s.eventually(func() error { _, err := who(s.ctx, known); return err })
	if user, err := who(s.ctx, known); err != nil || user != "system:serviceaccount:default:web" {
		t.Errorf("the caller is %q, %v", user, err)
	}
	if s.issuer.by.User != "xebec:gateway" {
		t.Errorf("auth was asked by %v", s.issuer.by)
	}
	before, _ := s.issuer.counts()
	for range 50 {
		if _, err := who(s.ctx, known); err != nil {
			t.Fatal(err)
		}
	}
	if after, _ := s.issuer.counts(); after-before > 20 {
		t.Errorf("50 calls made %d reviews", after-before)
	}
	resp, err := apiv1.NewResourceServiceClient(known).Create(metadata.AppendToOutgoingContext(s.ctx, "x-custom", "c"), &apiv1.CreateRequest{Object: packed(t, pod("web", ""))})
	if err != nil || resp.Warnings[0] != "system:serviceaccount:default:web" || !strings.HasPrefix(resp.Warnings[1], "system:serviceaccounts,") || resp.Warnings[2] != "xebec:gateway" {
		t.Errorf("the apiserver saw %v, %v", resp, err)
	}
	_, err = nodev1.NewNodeServiceClient(known).ListServices(s.ctx, &nodev1.ListServicesRequest{Target: &nodev1.Target{Node: "node-1"}})
	s.refused("a call to a node", err, codes.PermissionDenied, apierr.ReasonForbidden)
	_, err = who(metadata.AppendToOutgoingContext(s.ctx, rpc.HeaderUser, "admin"), known)
	s.refused("a forged header", err, codes.PermissionDenied, rpc.ReasonForgedIdentity)

	_, err = who(s.ctx, s.as(s.trust, ""))
	s.refused("neither certificate nor token", err, codes.Unauthenticated, rpc.ReasonNoCertificate)
	_, err = who(metadata.AppendToOutgoingContext(s.ctx, rpc.HeaderAuthorization, "Basic YTpi"), s.as(s.trust, ""))
	s.refused("another scheme", err, codes.Unauthenticated, rpc.ReasonBadToken)
	reviewed, _ := s.issuer.counts()
	for name, bad := range map[string]string{
		"a word": "word", "no token": "...", "a long one": strings.Repeat("x", 5000) + ".y.z",
		"another audience": s.issuer.token(func(c *token.Claims) { c.Audience = []string{"vault"} }),
		"another's key":    newIssuer(t).token(nil),
		"cut":              good[:len(good)-4],
	} {
		_, err = who(s.ctx, s.as(s.trust, bad))
		s.refused(name, err, codes.Unauthenticated, rpc.ReasonBadToken)
	}
	_, err = who(s.ctx, s.as(s.trust, s.issuer.token(func(c *token.Claims) { c.Expiry = jwt.NewNumericDate(time.Now().Add(-time.Hour)) })))
	s.refused("an expired one", err, codes.Unauthenticated, rpc.ReasonExpired)
	if after, _ := s.issuer.counts(); after != reviewed {
		t.Errorf("auth was asked about tokens that are wrong by themselves")
	}
	if user, err := who(s.ctx, s.as(s.cluster.Admin(t), "a.bad.token")); err != nil || user != "admin" {
		t.Errorf("with a certificate and a token: %q, %v", user, err)
	}

	s.stopAuth()
	_, err = who(s.ctx, s.as(s.trust, s.issuer.token(nil)))
	s.refused("while auth is down", err, codes.Unavailable, apierr.ReasonUnavailable)
}

// TestTokenRevocation deletes what a token is bound to: calls are refused, and an open watch ends, within seconds.
func TestTokenRevocation(t *testing.T) {
	s := newTokenSite(t)
	conn := s.as(s.trust, s.issuer.token(nil))
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
	s.issuer.change(func() { s.issuer.revoked = true })
	began := time.Now()
	_, err = watch.Recv()
	s.refused("a watch", err, codes.Unauthenticated, rpc.ReasonBadToken)
	t.Logf("the watch ended %s after the revocation", time.Since(began).Round(time.Millisecond))
	_, err = who(s.ctx, conn)
	s.refused("a call", err, codes.Unauthenticated, rpc.ReasonBadToken)
}

// TestTokenExpiry opens a watch with a token that expires soon.
func TestTokenExpiry(t *testing.T) {
	s := newTokenSite(t)
	s.eventually(func() error { _, err := who(s.ctx, s.as(s.trust, s.issuer.token(nil))); return err })
	conn := s.as(s.trust, s.issuer.token(func(c *token.Claims) { c.Expiry = jwt.NewNumericDate(time.Now().Add(3 * time.Second)) }))
	watch, err := apiv1.NewResourceServiceClient(conn).Watch(s.ctx, &apiv1.WatchRequest{Kind: "Pod"})
	for err == nil {
		_, err = watch.Recv()
	}
	s.refused("a watch", err, codes.Unauthenticated, rpc.ReasonExpired)
	_, err = who(s.ctx, conn)
	s.refused("a call", err, codes.Unauthenticated, rpc.ReasonExpired)
}

// TestNewKey signs with a key that the gateway has not seen: it fetches the keys once, and then knows the token.
func TestNewKey(t *testing.T) {
	s := newTokenSite(t)
	s.eventually(func() error { _, err := who(s.ctx, s.as(s.trust, s.issuer.token(nil))); return err })
	s.issuer.change(func() { s.issuer.id = "two" })
	conn := s.as(s.trust, s.issuer.token(nil))
	s.eventually(func() error { _, err := who(s.ctx, conn); return err })

	// Tokens with keys that do not exist make no more than a fetch every two seconds.
	_, before := s.issuer.counts()
	began := time.Now()
	s.issuer.change(func() { s.issuer.id = "three" })
	for range 40 {
		bad := s.issuer.token(nil)
		s.issuer.change(func() { s.issuer.id = "two" })
		if _, err := who(s.ctx, s.as(s.trust, bad)); err == nil {
			t.Fatal("a key that does not exist is known")
		}
		s.issuer.change(func() { s.issuer.id = "three" })
	}
	s.issuer.change(func() { s.issuer.id = "two" })
	if _, after := s.issuer.counts(); after-before > 2+int(time.Since(began)/keysPause) {
		t.Errorf("40 tokens in %s made %d fetches", time.Since(began), after-before)
	}
}

// TestInvalidTokensDoNotEvictValid floods a gateway's caches with tokens that are wrong, by themselves and while their source
// may not try more, and sees that a good one is known all the while.
func TestInvalidTokensDoNotEvictValid(t *testing.T) {
	issuer := newIssuer(t)
	tokens := newTokens(direct{issuer})
	if err := tokens.keys.fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	good := issuer.token(nil)
	check := func(fresh bool) {
		t.Helper()
		id, _, err := tokens.Verify(good, fresh)
		if err == nil {
			err = tokens.Review(t.Context(), good)
		}
		if err != nil || id.User != "system:serviceaccount:default:web" {
			t.Fatalf("the good token: %v, %v", id, err)
		}
	}
	check(true)
	for i := range 3 * maxBad {
		_, _, err := tokens.Verify(fmt.Sprintf("%s%d", good[:len(good)-6], 100000+i), true)
		if apierr.Reason(err) != rpc.ReasonBadToken {
			t.Fatal(err)
		}
	}
	check(false) // known, so that it needs no try
	if _, _, err := tokens.Verify(issuer.token(nil), false); apierr.Code(err) != codes.ResourceExhausted {
		t.Errorf("a token that is not known, of a source that may not try: %v", err)
	}
	if reviewed, _ := issuer.counts(); reviewed != 1 {
		t.Errorf("%d reviews, want that of the good token", reviewed)
	}
	if n := len(tokens.bad.elements); n > maxBad {
		t.Errorf("%d bad tokens are remembered, more than %d", n, maxBad)
	}
}

// direct calls an issuer without a network.
type direct struct{ *issuer }

func (c direct) ListKeys(ctx context.Context, req *authv1.ListKeysRequest, _ ...grpc.CallOption) (*authv1.ListKeysResponse, error) {
	return c.issuer.ListKeys(ctx, req)
}

func (c direct) ReviewToken(ctx context.Context, req *authv1.ReviewTokenRequest, _ ...grpc.CallOption) (*authv1.ReviewTokenResponse, error) {
	return c.issuer.ReviewToken(ctx, req)
}

func (direct) CreateToken(context.Context, *authv1.CreateTokenRequest, ...grpc.CallOption) (*authv1.CreateTokenResponse, error) {
	return nil, errors.ErrUnsupported
}

func (direct) RotateKey(context.Context, *authv1.RotateKeyRequest, ...grpc.CallOption) (*authv1.RotateKeyResponse, error) {
	return nil, errors.ErrUnsupported
}
