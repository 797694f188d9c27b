// Package token reads, signs and verifies the tokens of service accounts: JWTs with the claims of
// Kubernetes' own, signed by ECDSA P-256. What it says of a token follows from the token and the
// public keys alone; whether the account and the pod that it is bound to still exist, the service
// auth knows.
package token

import (
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	// MaxBytes is more than any token has.
	MaxBytes = 8 << 10
	// leeway is how far the clocks of masters may differ.
	leeway = 10 * time.Second
)

// Claims are what a token says.
type Claims struct {
	jwt.Claims
	// Kubernetes names what the token is bound to.
	Kubernetes Bound `json:"kubernetes.io"`
}

// Bound names the account that a token is of, and the pod that it is bound to, if any.
type Bound struct {
	Namespace      string     `json:"namespace"`
	ServiceAccount Reference  `json:"serviceaccount"`
	Pod            *Reference `json:"pod,omitempty"`
}

// Reference names one object.
type Reference struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Service accounts as users and groups, with Kubernetes' names.
const (
	// AccountUserPrefix precedes the namespace and name of a service account in its user name.
	AccountUserPrefix = "system:serviceaccount:"
	// GroupAccounts holds all service accounts.
	GroupAccounts = "system:serviceaccounts"
)

// AccountUser returns the user of a service account.
func AccountUser(namespace, name string) string { return AccountUserPrefix + namespace + ":" + name }

// User returns the user of the account.
func (b Bound) User() string { return AccountUser(b.Namespace, b.ServiceAccount.Name) }

// Groups returns the groups that the account is in.
func (b Bound) Groups() []string {
	return []string{GroupAccounts, GroupAccounts + ":" + b.Namespace, "system:authenticated"}
}

// Keys are the public keys by which tokens are verified, by id, and who signs with them.
type Keys struct {
	// Issuer is the tokens' claim iss, and the audience of tokens for this cluster's gateways.
	Issuer string
	// ByID are the keys.
	ByID map[string]*ecdsa.PublicKey
}

// ParseKeys reads a JSON Web Key Set as TokenService.ListKeys returns it.
func ParseKeys(jwks, issuer string) (*Keys, error) {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(jwks), &set); err != nil {
		return nil, fmt.Errorf("read the key set: %w", err)
	}
	keys := &Keys{Issuer: issuer, ByID: make(map[string]*ecdsa.PublicKey, len(set.Keys))}
	for _, k := range set.Keys {
		public, ok := k.Key.(*ecdsa.PublicKey)
		if !ok {
			return nil, fmt.Errorf("read the key set: key %q is a %T, want ECDSA", k.KeyID, k.Key)
		}
		keys.ByID[k.KeyID] = public
	}
	return keys, nil
}

// InvalidError says what is wrong with a token.
type InvalidError struct {
	// Reason is a sentence without its subject, such as "its signature is wrong".
	Reason string
	// Expired is set when nothing else is wrong than that the token has expired.
	Expired bool
	// UnknownKey is set when the key is not among those known: there may be newer ones.
	UnknownKey bool
}

func (e *InvalidError) Error() string { return e.Reason }

// Invalid returns an *InvalidError.
func Invalid(format string, args ...any) error {
	return &InvalidError{Reason: fmt.Sprintf(format, args...)}
}

// Sign makes a token.
func Sign(id string, key *ecdsa.PrivateKey, c Claims) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(c).Serialize()
}

// Verify checks what a token says by itself, and returns the audiences that it shares with those
// given; none given is the issuer, for the cluster's own gateways. The error is an *InvalidError.
func (k *Keys) Verify(token string, audiences []string) (*Claims, []string, error) {
	if len(token) > MaxBytes {
		return nil, nil, Invalid("it is no token: it is too long")
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || len(parsed.Headers) != 1 {
		return nil, nil, Invalid("it is no token of a service account")
	}
	public := k.ByID[parsed.Headers[0].KeyID]
	if public == nil {
		return nil, nil, &InvalidError{Reason: "it is signed with a key that this cluster does not have, or no longer", UnknownKey: true}
	}
	c := &Claims{}
	if err := parsed.Claims(public, c); err != nil {
		return nil, nil, Invalid("its signature is wrong")
	}
	if c.Issuer != k.Issuer || c.Expiry == nil || c.Kubernetes.Namespace == "" || c.Subject != c.Kubernetes.User() {
		return nil, nil, Invalid("it does not say what a token of a service account says")
	}
	now := time.Now()
	if now.After(c.Expiry.Time().Add(leeway)) {
		return nil, nil, &InvalidError{Reason: "it expired on " + c.Expiry.Time().UTC().Format(time.RFC3339), Expired: true}
	}
	if c.NotBefore != nil && now.Add(leeway).Before(c.NotBefore.Time()) {
		return nil, nil, Invalid("it is good only from %s: check the clocks", c.NotBefore.Time().UTC().Format(time.RFC3339))
	}
	if len(audiences) == 0 {
		audiences = []string{k.Issuer}
	}
	shared := slices.DeleteFunc(slices.Clone(audiences), func(a string) bool { return !slices.Contains(c.Audience, a) })
	if len(shared) == 0 {
		return nil, nil, Invalid("it is for %s", strings.Join(c.Audience, ", "))
	}
	return c, shared, nil
}
