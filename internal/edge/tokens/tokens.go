package gateway

import (
	"container/list"
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
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/token"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
)

const (
	// reviewedFor is how long a review is believed: so long a token lives after its pod or account.
	reviewedFor = 5 * time.Second
	// refusedFor is how long the refusal of a token that is wrong by itself is remembered. Its key may become known, or the
	// time come from which it is good.
	refusedFor = 2 * time.Second
	// maxGood and maxBad bound the memory for tokens. They are apart: no number of bad tokens makes the gateway forget a good
	// one, which only the service auth can make.
	maxGood = 16384
	maxBad  = 1024
	// maxReviews bounds the questions to auth under way; further ones wait. Only tokens with a good signature are reviewed.
	maxReviews = 64
	// reviewTimeout bounds a question, with the wait for its turn.
	reviewTimeout = 5 * time.Second
)

// sum identifies a token without keeping it.
type sum [sha256.Size]byte

// tokens knows callers by their bearer tokens. It verifies them by the public keys, and asks the service auth whether those
// that are good by themselves have been revoked. It implements rpc.TokenAuthenticator.
type tokens struct {
	auth      authv1.TokenServiceClient
	keys      *keys
	reviewing singleflight.Group
	turns     *semaphore.Weighted

	mu   sync.Mutex
	good *recent[*goodToken]
	bad  *recent[badToken]
	held map[sum]*goodToken // those that streams are open with
}

// goodToken is a token that is good by itself.
type goodToken struct {
	id     rpc.Identity
	expiry time.Time
	token  string

	// mu protects what follows.
	mu       sync.Mutex
	reviewed time.Time // when auth was last asked
	revoked  error     // what it said then

	streams map[*func(error)]struct{} // ends of the streams open with it; the mu of tokens protects it
}

// badToken is a token that is wrong by itself, such as by its signature.
type badToken struct {
	err   error
	until time.Time
}

func newTokens(auth authv1.TokenServiceClient) *tokens {
	return &tokens{
		auth: auth, keys: newKeys(auth), turns: semaphore.NewWeighted(maxReviews),
		good: newRecent[*goodToken](maxGood), bad: newRecent[badToken](maxBad), held: make(map[sum]*goodToken),
	}
}

// Verify implements rpc.TokenAuthenticator.
func (t *tokens) Verify(bearer string, fresh bool) (rpc.Identity, time.Time, error) {
	if len(bearer) > token.MaxBytes || strings.Count(bearer, ".") != 2 {
		return rpc.Identity{}, time.Time{}, invalid("it is no token of a service account")
	}
	sum, now := sum(sha256.Sum256([]byte(bearer))), time.Now()
	t.mu.Lock()
	known, isGood := t.good.get(sum)
	refused, isBad := t.bad.get(sum)
	t.mu.Unlock()
	switch {
	case isGood:
		if !now.Before(known.expiry) {
			return rpc.Identity{}, time.Time{}, expired(known.expiry)
		}
		if err := known.verdict(now); err != nil {
			return rpc.Identity{}, time.Time{}, err
		}
		return known.id, known.expiry, nil
	case isBad && now.Before(refused.until):
		return rpc.Identity{}, time.Time{}, refused.err
	case !fresh:
		return rpc.Identity{}, time.Time{}, apierr.Overloaded(time.Second, "too many tokens from this address were wrong")
	}
	claims, err := t.keys.verify(bearer)
	if wrong := (*token.InvalidError)(nil); errors.As(err, &wrong) {
		reason := rpc.ReasonBadToken
		if wrong.Expired {
			reason = rpc.ReasonExpired
		}
		err = apierr.New(codes.Unauthenticated, reason, "invalid token: "+wrong.Reason)
		t.mu.Lock()
		t.bad.put(sum, badToken{err, now.Add(refusedFor)})
		t.mu.Unlock()
	}
	if err != nil {
		return rpc.Identity{}, time.Time{}, err
	}
	expiry := claims.Expiry.Time()
	if !now.Before(expiry) {
		return rpc.Identity{}, time.Time{}, expired(expiry)
	}
	b := claims.Kubernetes
	known = &goodToken{id: rpc.Identity{User: b.User(), Groups: b.Groups()}, expiry: expiry, token: bearer}
	t.mu.Lock()
	defer t.mu.Unlock()
	if other, ok := t.good.get(sum); ok {
		known = other
	} else {
		t.good.put(sum, known)
	}
	return known.id, known.expiry, nil
}

func invalid(why string) error {
	return apierr.New(codes.Unauthenticated, rpc.ReasonBadToken, fmt.Sprintf("invalid token: %s", why))
}

func expired(at time.Time) error {
	return apierr.New(codes.Unauthenticated, rpc.ReasonExpired, fmt.Sprintf("invalid token: it expired on %s", at.UTC().Format(time.RFC3339)))
}

// verdict returns what the last review said, if that still counts and was a refusal.
func (g *goodToken) verdict(now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.reviewed) < reviewedFor {
		return g.revoked
	}
	return nil
}

// Review implements rpc.TokenAuthenticator.
func (t *tokens) Review(ctx context.Context, bearer string) error {
	sum := sum(sha256.Sum256([]byte(bearer)))
	t.mu.Lock()
	known, ok := t.good.get(sum)
	t.mu.Unlock()
	if !ok {
		// Forgotten since it was verified, among more good tokens than there is room for.
		known = &goodToken{token: bearer}
	}
	return t.review(ctx, known)
}

// review returns whether a token is revoked, from what is known or by asking. Calls with one token share a question, whose end
// must not be that of the first of them.
func (t *tokens) review(ctx context.Context, g *goodToken) error {
	g.mu.Lock()
	fresh, revoked := time.Since(g.reviewed) < reviewedFor, g.revoked
	g.mu.Unlock()
	if fresh {
		return revoked
	}
	asked := t.reviewing.DoChan(g.token, func() (any, error) { return nil, t.ask(g) })
	select {
	case result := <-asked:
		return result.Err
	case <-ctx.Done():
		return apierr.From(ctx.Err())
	}
}

// ask asks auth about a token and remembers the answer.
func (t *tokens) ask(g *goodToken) error {
	ctx, cancel := context.WithTimeout(context.Background(), reviewTimeout)
	defer cancel()
	if err := t.turns.Acquire(ctx, 1); err != nil {
		return apierr.Overloaded(time.Second, "the gateway reviews %d tokens already", maxReviews)
	}
	defer t.turns.Release(1)
	resp, err := t.auth.ReviewToken(ctx, &authv1.ReviewTokenRequest{Token: g.token})
	if err != nil {
		return apierr.Unavailable("the token could not be checked: %s", apierr.Message(err))
	}
	var revoked error
	if !resp.GetAuthenticated() {
		revoked = invalid(resp.GetError())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reviewed, g.revoked = time.Now(), revoked
	return revoked
}

// Hold implements rpc.TokenAuthenticator.
func (t *tokens) Hold(bearer string, end func(error)) (release func()) {
	sum := sum(sha256.Sum256([]byte(bearer)))
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok := t.held[sum]
	if !ok {
		if g, ok = t.good.get(sum); !ok {
			g = &goodToken{token: bearer}
		}
		t.held[sum] = g
	}
	if g.streams == nil {
		g.streams = make(map[*func(error)]struct{})
	}
	g.streams[&end] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if delete(g.streams, &end); len(g.streams) == 0 {
			delete(t.held, sum)
		}
	}
}

// run follows the keys, and reviews the tokens of open streams again and again, until ctx ends.
func (t *tokens) run(ctx context.Context) {
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { t.keys.run(ctx) })
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			t.reviewHeld(ctx)
		}
	}
}

// reviewHeld reviews the tokens that streams are open with whose last review no longer counts, and ends the streams of those
// that were revoked. While auth does not answer streams stay.
func (t *tokens) reviewHeld(ctx context.Context) {
	var due []*goodToken
	t.mu.Lock()
	for _, g := range t.held {
		g.mu.Lock()
		if time.Since(g.reviewed) >= reviewedFor {
			due = append(due, g)
		}
		g.mu.Unlock()
	}
	t.mu.Unlock()
	var reviews sync.WaitGroup
	defer reviews.Wait()
	turns := make(chan struct{}, maxReviews/4)
	for _, g := range due {
		turns <- struct{}{}
		reviews.Go(func() {
			defer func() { <-turns }()
			if err := t.review(ctx, g); err != nil && apierr.Code(err) == codes.Unauthenticated {
				t.endStreams(g, err)
			}
		})
	}
}

func (t *tokens) endStreams(g *goodToken, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for end := range g.streams {
		(*end)(err)
	}
}

// recent is a map that forgets what was used least recently when it is full. It is not safe for concurrent use.
type recent[T any] struct {
	size     int
	elements map[sum]*list.Element
	order    list.List // of entry[T], most recently used first
}

type entry[T any] struct {
	sum   sum
	value T
}

func newRecent[T any](size int) *recent[T] {
	return &recent[T]{size: size, elements: make(map[sum]*list.Element)}
}

func (r *recent[T]) get(s sum) (T, bool) {
	element, ok := r.elements[s]
	if !ok {
		var zero T
		return zero, false
	}
	r.order.MoveToFront(element)
	return element.Value.(entry[T]).value, true
}

func (r *recent[T]) put(s sum, value T) {
	if element, ok := r.elements[s]; ok {
		element.Value = entry[T]{s, value}
		r.order.MoveToFront(element)
		return
	}
	r.elements[s] = r.order.PushFront(entry[T]{s, value})
	if r.order.Len() > r.size {
		delete(r.elements, r.order.Remove(r.order.Back()).(entry[T]).sum)
	}
}
