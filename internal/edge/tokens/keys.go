package tokens

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/token"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
)

const (
	// keysInterval is how often the public keys are fetched. A new key signs a minute after its
	// creation, when every entry has it.
	keysInterval = 20 * time.Second
	// keysPause is the least time between two fetches: a token with an unknown key causes a fetch when
	// the last one is older.
	keysPause = 2 * time.Second
	// firstPause and firstPauseMax bound the pauses until the first fetch has succeeded.
	firstPause    = 250 * time.Millisecond
	firstPauseMax = 2 * time.Second
	// keysTimeout bounds a fetch.
	keysTimeout = 5 * time.Second
)

// keys are the public keys of tokens, kept up to date. While auth does not answer, the last ones
// stay in use.
type keys struct {
	auth   authv1.TokenServiceClient
	wanted chan struct{} // requests a fetch before it is due

	current atomic.Pointer[token.Keys]
	fetched atomic.Int64 // when, in Unix nanoseconds
}

func newKeys(auth authv1.TokenServiceClient) *keys {
	return &keys{auth: auth, wanted: make(chan struct{}, 1)}
}

// verify verifies a token by the current keys. The error is a *token.InvalidError for an invalid
// token. With another error the token could not be verified, and the call may be tried again.
func (k *keys) verify(bearer string) (*token.Claims, error) {
	current := k.current.Load()
	if current == nil {
		k.want()
		return nil, apierr.Unavailable("the token could not be verified: the public keys have not been fetched from auth yet")
	}
	claims, _, err := current.Verify(bearer, nil)
	wrong := (*token.InvalidError)(nil)
	if errors.As(err, &wrong) && wrong.UnknownKey && time.Since(time.Unix(0, k.fetched.Load())) > keysPause {
		k.want()
		return nil, apierr.Unavailable("the token could not be verified: its key is not known yet, and the keys are being fetched again")
	}
	return claims, err
}

func (k *keys) want() {
	select {
	case k.wanted <- struct{}{}:
	default:
	}
}

// run fetches the keys until ctx ends.
func (k *keys) run(ctx context.Context) {
	pauses := backoff.Backoff{Min: firstPause, Max: firstPauseMax}
	for ctx.Err() == nil {
		if err := k.fetch(ctx); err != nil && k.current.Load() == nil {
			wait(ctx, pauses.Next(err), nil)
			continue
		}
		wait(ctx, keysPause, nil)
		wait(ctx, keysInterval+rand.N(keysInterval/4), k.wanted)
	}
}

func wait(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-wake:
	}
}

func (k *keys) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	resp, err := k.auth.ListKeys(ctx, &authv1.ListKeysRequest{})
	if err != nil {
		return err
	}
	fetched, err := token.ParseKeys(resp.GetJwks(), resp.GetIssuer())
	if err != nil {
		return err
	}
	k.current.Store(fetched)
	k.fetched.Store(time.Now().UnixNano())
	return nil
}
