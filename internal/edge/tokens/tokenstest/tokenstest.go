// Package tokenstest is a stand-in for the service auth in tests: it signs and reviews tokens.
package tokenstest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/token"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
)

// Issuer signs tokens, and revokes all of them on request. It implements
// authv1.TokenServiceServer.
type Issuer struct {
	authv1.UnimplementedTokenServiceServer
	t   testing.TB
	key *ecdsa.PrivateKey

	mu       sync.Mutex
	id       string // of the key, as it is published
	revoked  string // why
	reviewed int
	listed   int
	caller   edge.Identity
}

// NewIssuer returns an issuer with a key of its own, named "one".
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &Issuer{t: t, key: key, id: "one"}
}

// issuerURL is the claim iss of the tokens.
const issuerURL = "https://kubernetes.default.svc.cluster.local"

// Token signs a token of service account default/web, with claims that change may alter.
func (i *Issuer) Token(change func(*token.Claims)) string {
	i.t.Helper()
	bound := token.Bound{Namespace: "default", ServiceAccount: token.Reference{Name: "web", UID: "u"}}
	c := token.Claims{Kubernetes: bound, Claims: jwt.Claims{
		Issuer: issuerURL, Subject: bound.User(), Audience: []string{issuerURL},
		Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)), ID: rand.Text(),
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

// ListKeys returns the public key.
func (i *Issuer) ListKeys(context.Context, *authv1.ListKeysRequest) (*authv1.ListKeysResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.listed++
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: i.id, Algorithm: "ES256", Use: "sig"}}})
	return &authv1.ListKeysResponse{Jwks: string(set), Issuer: issuerURL}, err
}

// ReviewToken accepts every token until Revoke is called.
func (i *Issuer) ReviewToken(ctx context.Context, _ *authv1.ReviewTokenRequest) (*authv1.ReviewTokenResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.reviewed++
	i.caller = edge.IdentityFromContext(ctx)
	if i.revoked != "" {
		return &authv1.ReviewTokenResponse{Error: i.revoked}, nil
	}
	return &authv1.ReviewTokenResponse{Authenticated: true}, nil
}

// Counts returns how often tokens were reviewed and keys were listed.
func (i *Issuer) Counts() (reviewed, listed int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.reviewed, i.listed
}

// Caller returns the caller of the last review.
func (i *Issuer) Caller() edge.Identity {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.caller
}

// Revoke revokes every token, with the error of later reviews.
func (i *Issuer) Revoke(why string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.revoked = why
}

// SetKeyID changes the id under which the key is published and tokens are signed.
func (i *Issuer) SetKeyID(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.id = id
}

// Client returns a client of the issuer without a network.
func (i *Issuer) Client() authv1.TokenServiceClient { return direct{i} }

// direct calls an issuer without a network.
type direct struct{ *Issuer }

func (c direct) ListKeys(ctx context.Context, req *authv1.ListKeysRequest, _ ...grpc.CallOption) (*authv1.ListKeysResponse, error) {
	return c.Issuer.ListKeys(ctx, req)
}

func (c direct) ReviewToken(
	ctx context.Context, req *authv1.ReviewTokenRequest, _ ...grpc.CallOption,
) (*authv1.ReviewTokenResponse, error) {
	return c.Issuer.ReviewToken(ctx, req)
}

func (direct) CreateToken(context.Context, *authv1.CreateTokenRequest, ...grpc.CallOption) (*authv1.CreateTokenResponse, error) {
	return nil, errors.ErrUnsupported
}

func (direct) RotateKey(context.Context, *authv1.RotateKeyRequest, ...grpc.CallOption) (*authv1.RotateKeyResponse, error) {
	return nil, errors.ErrUnsupported
}
