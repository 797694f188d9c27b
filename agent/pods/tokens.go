package pods

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	// tokenSeconds is how long tokens are good whose pods do not say.
	tokenSeconds = 3600
	// tokenMaxAge is after what time a token is renewed however long it is good.
	tokenMaxAge = 24 * time.Hour
)

// TokenRequest says what token a pod needs.
type TokenRequest struct {
	// Audience is whom it is for; empty for the cluster itself.
	Audience string
	// Seconds is how long it is to be good.
	Seconds int64
}

// token is a token of the pod's service account, as it is kept for times without a control plane.
type token struct {
	Text            string
	Issued, Expires time.Time
}

// renewal is when another one is to be asked for: at four fifths of its life.
func (t token) renewal() time.Time {
	return t.Issued.Add(min(t.Expires.Sub(t.Issued)*4/5, tokenMaxAge))
}

// request is what a projection asks for.
func request(p *corev1.ServiceAccountTokenProjection) TokenRequest {
	r := TokenRequest{Audience: p.GetAudience(), Seconds: p.GetExpirationSeconds()}
	if r.Seconds == 0 {
		r.Seconds = tokenSeconds
	}
	return r
}

// token returns a token that is good, one that is at hand if it need not be renewed. Where no other can be had the one at hand is
// returned for as long as it is good.
func (w *worker) token(ctx context.Context, pod *corev1.Pod, r TokenRequest) (string, error) {
	path := w.dir.object("token", fmt.Sprintf("%x-%d", r.Audience, r.Seconds))
	t, ok := w.tokens[r]
	if !ok {
		if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &t) != nil {
			t = token{}
		}
	}
	now := time.Now()
	if t.Text == "" || !now.Before(t.renewal()) {
		asked, cancel := context.WithTimeout(ctx, 5*time.Second)
		text, expires, err := w.cfg.Cluster.Token(asked, pod, r)
		cancel()
		switch {
		case err == nil:
			t = token{text, now, expires}
			b, err := json.Marshal(t)
			if err == nil {
				err = writeFile(path, b, 0o600)
			}
			if err != nil {
				return "", fmt.Errorf("keeping a token: %w", err)
			}
		case t.Text == "" || !now.Before(t.Expires):
			return "", fmt.Errorf("asking for a token of service account %s: %w", pod.GetSpec().GetServiceAccountName(), err)
		}
	}
	if w.tokens == nil {
		w.tokens = map[TokenRequest]token{}
	}
	w.tokens[r] = t
	return t.Text, nil
}

// renewalDue returns after what time a token of the volume is to be renewed, 0 for a volume without tokens; now for one that is due.
func (w *worker) renewalDue(v *corev1.Volume) (wait time.Duration, due bool) {
	for _, s := range v.GetVolumeSource().GetProjected().GetSources() {
		p := s.GetServiceAccountToken()
		if p == nil {
			continue
		}
		t, ok := w.tokens[request(p)]
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
