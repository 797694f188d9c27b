// Package tokens has the service account tokens of a pod and renews them.
package tokens

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/xebec-project/xebec/agent/pods/checkpoint"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	// tokenSeconds is how long tokens are good whose pods do not say.
	tokenSeconds = 3600
	// tokenMaxAge is after what time a token is renewed however long it is good.
	tokenMaxAge = 24 * time.Hour
)

// Request says what token a pod needs.
type Request struct {
	// Audience is the audience of the token; empty for the API of the cluster.
	Audience string
	// Seconds is its requested lifetime.
	Seconds int64
}

// token is a token of the pod's service account, as it is kept for times without a control plane.
type token struct {
	Text            string
	Issued, Expires time.Time
}

// renewal is the time of its renewal: after four fifths of its lifetime.
func (t token) renewal() time.Time {
	return t.Issued.Add(min(t.Expires.Sub(t.Issued)*4/5, tokenMaxAge))
}

// RequestOf is what a projection asks for.
func RequestOf(p *corev1.ServiceAccountTokenProjection) Request {
	r := Request{Audience: p.GetAudience(), Seconds: p.GetExpirationSeconds()}
	if r.Seconds == 0 {
		r.Seconds = tokenSeconds
	}
	return r
}

// Issuer makes tokens for the service accounts of pods.
type Issuer interface {
	// Token makes a token for the service account of a pod, which is valid only as long as the pod
	// exists.
	Token(ctx context.Context, pod *corev1.Pod, r Request) (text string, expires time.Time, err error)
}

// Store are a pod's tokens, in memory and in the pod's directory. They are used by one goroutine.
type Store struct {
	issuer Issuer
	dir    checkpoint.Dir
	known  map[Request]token
}

// New returns the tokens of the pod whose directory is d, empty in memory.
func New(issuer Issuer, d checkpoint.Dir) *Store {
	return &Store{issuer: issuer, dir: d, known: map[Request]token{}}
}

// Get returns a valid token, and renews it when that is due. When a renewal fails it returns the
// token that it has, as long as that is valid.
func (s *Store) Get(ctx context.Context, pod *corev1.Pod, r Request) (string, error) {
	path := s.dir.Object("token", fmt.Sprintf("%x-%d", r.Audience, r.Seconds))
	t, ok := s.known[r]
	if !ok {
		if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &t) != nil {
			t = token{}
		}
	}
	now := time.Now()
	if t.Text == "" || !now.Before(t.renewal()) {
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		text, expires, err := s.issuer.Token(asked, pod, r)
		cancel()
		switch {
		case err == nil:
			t = token{text, now, expires}
			b, err := json.Marshal(t)
			if err == nil {
				err = checkpoint.WriteFile(path, b, 0o600)
			}
			if err != nil {
				return "", fmt.Errorf("storing a token: %w", err)
			}
		case t.Text == "" || !now.Before(t.Expires):
			return "", fmt.Errorf("requesting a token of service account %s: %w", pod.GetSpec().GetServiceAccountName(), err)
		}
	}
	s.known[r] = t
	return t.Text, nil
}

// Due returns after what time a token of the volume needs renewal, 0 for a volume without tokens,
// and whether one needs it now.
func (s *Store) Due(v *corev1.Volume) (wait time.Duration, due bool) {
	for _, source := range v.GetVolumeSource().GetProjected().GetSources() {
		p := source.GetServiceAccountToken()
		if p == nil {
			continue
		}
		t, ok := s.known[RequestOf(p)]
		left := time.Until(t.renewal())
		if !ok || left <= 0 {
			return 0, true
		}
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return wait, false
}
