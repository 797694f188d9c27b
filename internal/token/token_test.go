package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const issuer = "https://kubernetes.default.svc"

// signed returns keys and a token that one of them signed.
func signed(tb testing.TB, change func(*Claims)) (*Keys, string) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	bound := Bound{Namespace: "shop", ServiceAccount: Reference{Name: "till", UID: "1"}}
	claims := Claims{
		Claims: jwt.Claims{
			Issuer: issuer, Subject: bound.User(), Audience: jwt.Audience{issuer},
			Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
		},
		Kubernetes: bound,
	}
	if change != nil {
		change(&claims)
	}
	text, err := Sign("key-1", key, claims)
	if err != nil {
		tb.Fatal(err)
	}
	return &Keys{Issuer: issuer, ByID: map[string]*ecdsa.PublicKey{"key-1": &key.PublicKey}}, text
}

func TestVerify(t *testing.T) {
	keys, text := signed(t, nil)
	claims, audiences, err := keys.Verify(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user := claims.Kubernetes.User(); user != "system:serviceaccount:shop:till" || len(audiences) != 1 || audiences[0] != issuer {
		t.Errorf("the token is of %s for %v", user, audiences)
	}
	other, _ := signed(t, nil)
	if _, _, err := other.Verify(text, nil); err == nil {
		t.Error("a token is accepted that another key signed under the same id")
	}
	if _, _, err := keys.Verify(text, []string{"another"}); err == nil {
		t.Error("a token for another audience is accepted")
	}
	for name, change := range map[string]func(*Claims){
		"another issuer":  func(c *Claims) { c.Issuer = "https://example.com" },
		"another subject": func(c *Claims) { c.Subject = "system:serviceaccount:shop:manager" },
		"no expiry":       func(c *Claims) { c.Expiry = nil },
		"expired":         func(c *Claims) { c.Expiry = jwt.NewNumericDate(time.Now().Add(-time.Hour)) },
		"no namespace":    func(c *Claims) { c.Kubernetes.Namespace = "" },
	} {
		keys, text := signed(t, change)
		_, _, err := keys.Verify(text, nil)
		if invalid, ok := errors.AsType[*InvalidError](err); !ok || invalid.Expired != (name == "expired") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzVerify verifies changed tokens: only the one that was signed is accepted.
func FuzzVerify(f *testing.F) {
	keys, text := signed(f, nil)
	parts := strings.Split(text, ".")
	f.Add(text)
	f.Add(parts[0] + ".." + parts[2])
	f.Add("eyJhbGciOiJub25lIn0." + parts[1] + ".")
	f.Add(`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		claims, _, err := keys.Verify(text, nil)
		if err != nil {
			if _, ok := errors.AsType[*InvalidError](err); !ok {
				t.Errorf("error %v is a %T", err, err)
			}
			return
		}
		if claims.Subject != "system:serviceaccount:shop:till" {
			t.Errorf("%q is a token of %s", text, claims.Subject)
		}
	})
}

// FuzzParseKeys reads key sets: what is accepted are ECDSA keys.
func FuzzParseKeys(f *testing.F) {
	keys, _ := signed(f, nil)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: keys.ByID["key-1"], KeyID: "key-1"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(set))
	f.Add(`{"keys":[{"kty":"oct","kid":"a","k":"AAAA"}]}`)
	f.Add(`{"keys":[{}]}`)
	f.Fuzz(func(t *testing.T, jwks string) {
		parsed, err := ParseKeys(jwks, issuer)
		if err != nil {
			return
		}
		for id, key := range parsed.ByID {
			if key == nil {
				t.Errorf("key %q is nil", id)
			}
		}
	})
}
