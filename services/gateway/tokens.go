package gateway

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/rpc"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
)

const (
	// How long an answer about a token is believed: a token is refused at the latest so long after its pod is gone, and
	// who tries a bad one again and again makes one question of it.
	goodFor = 5 * time.Second
	badFor  = 2 * time.Second
	// maxAnswers bounds the memory for answers.
	maxAnswers = 4096
	// maxReviews bounds the questions under way: callers without a token that is good are not known, so that no limit of
	// theirs holds them off.
	maxReviews = 64
	// reviewTimeout bounds a question.
	reviewTimeout = 5 * time.Second
	// maxTokenBytes is more than any token has.
	maxTokenBytes = 8 << 10
)

// tokens knows callers by their bearer tokens: it asks the service auth, and remembers the answer for a moment.
type tokens struct {
	auth    authv1.TokenServiceClient
	asking  singleflight.Group
	reviews chan struct{}

	mu      sync.Mutex
	answers map[[sha256.Size]byte]answer
}

// answer is what is known of a token.
type answer struct {
	id    rpc.Identity
	bad   string // why it is not good
	until time.Time
}

func newTokens(auth authv1.TokenServiceClient) *tokens {
	return &tokens{auth: auth, reviews: make(chan struct{}, maxReviews), answers: make(map[[sha256.Size]byte]answer)}
}

// identify returns whose token it is.
func (t *tokens) identify(ctx context.Context, token string) (rpc.Identity, error) {
	// What is no JWT is not worth a question.
	if len(token) > maxTokenBytes || strings.Count(token, ".") != 2 {
		return rpc.Identity{}, badToken("it is no token of a service account")
	}
	sum := sha256.Sum256([]byte(token))
	if known, ok := t.known(sum); ok {
		return known.id, known.err()
	}
	// Calls with one token share a question, whose end must not be that of the first of them.
	result, err, _ := t.asking.Do(string(sum[:]), func() (any, error) {
		return t.review(context.WithoutCancel(ctx), token, sum)
	})
	if err != nil {
		return rpc.Identity{}, err
	}
	said := result.(answer)
	return said.id, said.err()
}

func (a answer) err() error {
	if a.bad == "" {
		return nil
	}
	return badToken(a.bad)
}

func badToken(why string) error {
	return apierr.New(codes.Unauthenticated, rpc.ReasonBadToken, fmt.Sprintf("the token is not good: %s", why))
}

func (t *tokens) known(sum [sha256.Size]byte) (answer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.answers[sum]
	return a, ok && time.Now().Before(a.until)
}

func (t *tokens) review(ctx context.Context, token string, sum [sha256.Size]byte) (answer, error) {
	select {
	case t.reviews <- struct{}{}:
		defer func() { <-t.reviews }()
	default:
		return answer{}, apierr.Overloaded(time.Second, "the gateway checks %d tokens already", maxReviews)
	}
	ctx, cancel := context.WithTimeout(ctx, reviewTimeout)
	defer cancel()
	resp, err := t.auth.ReviewToken(ctx, &authv1.ReviewTokenRequest{Token: token})
	if err != nil {
		return answer{}, apierr.Unavailable("the token could not be checked: %s", apierr.Message(err))
	}
	now := time.Now()
	said := answer{bad: resp.GetError(), until: now.Add(badFor)}
	if resp.GetAuthenticated() {
		said = answer{id: rpc.Identity{User: resp.GetUser(), Groups: resp.GetGroups()}, until: now.Add(goodFor)}
		if expiry := resp.GetExpirationTimestamp().AsTime(); expiry.Before(said.until) {
			said.until = expiry
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.answers) >= maxAnswers {
		for old, a := range t.answers {
			if now.After(a.until) {
				delete(t.answers, old)
			}
		}
		if len(t.answers) >= maxAnswers {
			clear(t.answers)
		}
	}
	t.answers[sum] = said
	return said, nil
}
