// Package tokens authenticates callers by the bearer tokens of service accounts. It verifies tokens
// by the cluster's public keys, and asks the service auth whether those that are valid by
// themselves have been revoked.
package tokens

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/token"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
)

const (
	// reviewedFor is how long a review counts: a token is accepted for that long after its pod or
	// account was deleted.
	reviewedFor = 5 * time.Second
	// refusedFor is how long the refusal of a token that is invalid by itself is cached. Its key may
	// become known, or the time from which it is valid may come.
	refusedFor = 2 * time.Second
	// maxValid and maxInvalid bound the memory for tokens. They are separate: no number of invalid
	// tokens evicts a valid one, which only the service auth can sign.
	maxValid   = 16384
	maxInvalid = 1024
	// maxReviews bounds the concurrent reviews by auth; further ones wait. Only tokens with a valid
	// signature are reviewed.
	maxReviews = 64
	// reviewTimeout bounds a review, with the wait for its turn.
	reviewTimeout = 5 * time.Second
)

// sum identifies a token without keeping it.
type sum [sha256.Size]byte

// Authenticator authenticates callers by their bearer tokens. It implements
// edge.TokenAuthenticator.
type Authenticator struct {
	auth    authv1.TokenServiceClient
	keys    *keys
	reviews singleflight.Group
	turns   *semaphore.Weighted

	mu      sync.Mutex
	valid   *lru[*validToken]
	invalid *lru[invalidToken]
	held    map[sum]*validToken // those that streams are open with
}

// validToken is a token that is valid by itself.
type validToken struct {
	id     edge.Identity
	expiry time.Time
	token  string

	// mu protects what follows.
	mu       sync.Mutex
	reviewed time.Time // when auth was last asked
	revoked  error     // its answer

	streams map[*func(error)]struct{} // ends of the streams open with it; the mu of Authenticator protects it
}

// invalidToken is a token that is invalid by itself, such as by its signature.
type invalidToken struct {
	err   error
	until time.Time
}

// New returns an authenticator, which knows no keys until Run is called.
func New(auth authv1.TokenServiceClient) *Authenticator {
	return &Authenticator{
		auth: auth, keys: newKeys(auth), turns: semaphore.NewWeighted(maxReviews),
		valid: newLRU[*validToken](maxValid), invalid: newLRU[invalidToken](maxInvalid), held: make(map[sum]*validToken),
	}
}

// Verify implements edge.TokenAuthenticator.
func (a *Authenticator) Verify(bearer string, fresh bool) (edge.Identity, time.Time, error) {
	if len(bearer) > token.MaxBytes || strings.Count(bearer, ".") != 2 {
		return edge.Identity{}, time.Time{}, invalidError("it is not a token of a service account")
	}
	sum, now := sum(sha256.Sum256([]byte(bearer))), time.Now()
	a.mu.Lock()
	known, isValid := a.valid.get(sum)
	refused, isInvalid := a.invalid.get(sum)
	a.mu.Unlock()
	switch {
	case isValid:
		if !now.Before(known.expiry) {
			return edge.Identity{}, time.Time{}, expired(known.expiry)
		}
		if err := known.verdict(now); err != nil {
			return edge.Identity{}, time.Time{}, err
		}
		return known.id, known.expiry, nil
	case isInvalid && now.Before(refused.until):
		return edge.Identity{}, time.Time{}, refused.err
	case !fresh:
		return edge.Identity{}, time.Time{}, apierr.Overloaded(time.Second, "too many tokens from this address were invalid")
	}
	claims, err := a.keys.verify(bearer)
	if wrong := (*token.InvalidError)(nil); errors.As(err, &wrong) {
		reason := edge.ReasonBadToken
		if wrong.Expired {
			reason = edge.ReasonExpired
		}
		err = apierr.New(codes.Unauthenticated, reason, "invalid token: "+wrong.Reason)
		a.mu.Lock()
		a.invalid.put(sum, invalidToken{err, now.Add(refusedFor)})
		a.mu.Unlock()
	}
	if err != nil {
		return edge.Identity{}, time.Time{}, err
	}
	expiry := claims.Expiry.Time()
	if !now.Before(expiry) {
		return edge.Identity{}, time.Time{}, expired(expiry)
	}
	b := claims.Kubernetes
	known = &validToken{id: edge.Identity{User: b.User(), Groups: b.Groups()}, expiry: expiry, token: bearer}
	a.mu.Lock()
	defer a.mu.Unlock()
	if other, ok := a.valid.get(sum); ok {
		known = other
	} else {
		a.valid.put(sum, known)
	}
	return known.id, known.expiry, nil
}

func invalidError(why string) error {
	return apierr.New(codes.Unauthenticated, edge.ReasonBadToken, fmt.Sprintf("invalid token: %s", why))
}

func expired(at time.Time) error {
	return apierr.New(codes.Unauthenticated, edge.ReasonExpired, fmt.Sprintf("invalid token: it expired on %s", at.UTC().Format(time.RFC3339)))
}

// verdict returns the error of the last review, if that still counts.
func (g *validToken) verdict(now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.reviewed) < reviewedFor {
		return g.revoked
	}
	return nil
}

// Review implements edge.TokenAuthenticator.
func (a *Authenticator) Review(ctx context.Context, bearer string) error {
	sum := sum(sha256.Sum256([]byte(bearer)))
	a.mu.Lock()
	known, ok := a.valid.get(sum)
	a.mu.Unlock()
	if !ok {
		// Evicted since it was verified, by more valid tokens than there is room for.
		known = &validToken{token: bearer}
	}
	return a.review(ctx, known)
}

// review returns an error when a token is revoked, from the cache or by asking. Concurrent calls
// with one token share a request, which must not end with the first of them.
func (a *Authenticator) review(ctx context.Context, g *validToken) error {
	g.mu.Lock()
	fresh, revoked := time.Since(g.reviewed) < reviewedFor, g.revoked
	g.mu.Unlock()
	if fresh {
		return revoked
	}
	asked := a.reviews.DoChan(g.token, func() (any, error) { return nil, a.ask(g) })
	select {
	case result := <-asked:
		return result.Err
	case <-ctx.Done():
		return apierr.From(ctx.Err())
	}
}

// ask asks auth about a token and caches the answer.
func (a *Authenticator) ask(g *validToken) error {
	ctx, cancel := context.WithTimeout(context.Background(), reviewTimeout)
	defer cancel()
	if err := a.turns.Acquire(ctx, 1); err != nil {
		return apierr.Overloaded(time.Second, "%d tokens are being reviewed already", maxReviews)
	}
	defer a.turns.Release(1)
	resp, err := a.auth.ReviewToken(ctx, &authv1.ReviewTokenRequest{Token: g.token})
	if err != nil {
		return apierr.Unavailable("the token could not be verified: %s", apierr.Message(err))
	}
	var revoked error
	if !resp.GetAuthenticated() {
		revoked = invalidError(resp.GetError())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reviewed, g.revoked = time.Now(), revoked
	return revoked
}

// Hold implements edge.TokenAuthenticator.
func (a *Authenticator) Hold(bearer string, end func(error)) (release func()) {
	sum := sum(sha256.Sum256([]byte(bearer)))
	a.mu.Lock()
	defer a.mu.Unlock()
	g, ok := a.held[sum]
	if !ok {
		if g, ok = a.valid.get(sum); !ok {
			g = &validToken{token: bearer}
		}
		a.held[sum] = g
	}
	if g.streams == nil {
		g.streams = make(map[*func(error)]struct{})
	}
	g.streams[&end] = struct{}{}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if delete(g.streams, &end); len(g.streams) == 0 {
			delete(a.held, sum)
		}
	}
}

// Run keeps the public keys up to date and reviews the tokens of open streams periodically, until
// ctx ends.
func (a *Authenticator) Run(ctx context.Context) {
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { a.keys.run(ctx) })
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			a.reviewHeld(ctx)
		}
	}
}

// reviewHeld reviews the tokens of open streams whose last review no longer counts, and ends the
// streams of those that were revoked. While auth does not answer, streams stay open.
func (a *Authenticator) reviewHeld(ctx context.Context) {
	var due []*validToken
	a.mu.Lock()
	for _, g := range a.held {
		g.mu.Lock()
		if time.Since(g.reviewed) >= reviewedFor {
			due = append(due, g)
		}
		g.mu.Unlock()
	}
	a.mu.Unlock()
	var reviews sync.WaitGroup
	defer reviews.Wait()
	turns := make(chan struct{}, maxReviews/4)
	for _, g := range due {
		turns <- struct{}{}
		reviews.Go(func() {
			defer func() { <-turns }()
			if err := a.review(ctx, g); err != nil && apierr.Code(err) == codes.Unauthenticated {
				a.endStreams(g, err)
			}
		})
	}
}

func (a *Authenticator) endStreams(g *validToken, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for end := range g.streams {
		(*end)(err)
	}
}
