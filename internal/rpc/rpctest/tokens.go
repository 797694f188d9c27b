package rpctest

import (
	"context"
	"sync"
	"time"

	"github.com/xebec-project/xebec/internal/edge"
)

// Tokens knows callers by tokens that a test makes up. It implements edge.TokenAuthenticator.
type Tokens struct {
	// Known says whose a token is and until when it is good.
	Known func(token string) (edge.Identity, time.Time, error)

	mu      sync.Mutex
	revoked error
	held    map[*func(error)]struct{}
}

// Verify implements edge.TokenAuthenticator.
func (k *Tokens) Verify(token string, _ bool) (edge.Identity, time.Time, error) {
	return k.Known(token)
}

// Review implements edge.TokenAuthenticator.
func (k *Tokens) Review(context.Context, string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.revoked
}

// Hold implements edge.TokenAuthenticator.
func (k *Tokens) Hold(_ string, end func(error)) (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held == nil {
		k.held = make(map[*func(error)]struct{})
	}
	k.held[&end] = struct{}{}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.held, &end)
	}
}

// Revoke refuses every token from now on, and ends the streams that are open with one.
func (k *Tokens) Revoke(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revoked = err
	for end := range k.held {
		(*end)(err)
	}
}
