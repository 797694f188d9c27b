package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/token"
)

// keysKey holds all keys in one value, so that a change of them is one write that etcd compares.
const keysKey = "/xebec/auth/token-keys"

const (
	// settle is how long a new key is known before it signs: every instance, and every client that
	// fetched the public keys a moment ago, can check its first token.
	settle = time.Minute
	// lookInterval is how often the keys are read again, besides changes, and found due to rotate.
	lookInterval = time.Minute
	// retryInterval is the pause after etcd failed.
	retryInterval = time.Second
	// readTimeout bounds a read or a write of the keys.
	readTimeout = 5 * time.Second
	// maxKeys bounds how many keys an impatient administrator can pile up.
	maxKeys = 16
)

// storedKey is one key as it is stored, PKCS #8.
type storedKey struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	Key     []byte    `json:"key"`
}

// key is one key in use.
type key struct {
	id      string
	created time.Time
	private *ecdsa.PrivateKey
}

// ring is all keys at one revision, newest first; immutable.
type ring struct {
	revision int64
	stored   []storedKey
	keys     []key
	public   *token.Keys // by which tokens are verified
}

// signing returns the key to sign with: the newest that everyone knows, or the oldest when none is
// that old.
func (r *ring) signing(now time.Time) *key {
	for i := range r.keys {
		if now.Sub(r.keys[i].created) >= settle {
			return &r.keys[i]
		}
	}
	return &r.keys[len(r.keys)-1]
}

// keySet returns the key set that others check tokens with.
func (r *ring) keySet() jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, k := range r.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: string(jose.ES256), Use: "sig"})
	}
	return set
}

// keyring follows the keys in etcd, and makes new ones when it is time.
type keyring struct {
	etcd    *clientv3.Client
	cfg     Config
	log     *zap.Logger
	current atomic.Pointer[ring]
}

func newKeyring(etcd *clientv3.Client, cfg Config, log *zap.Logger) *keyring {
	return &keyring{etcd: etcd, cfg: cfg, log: log}
}

// use returns the keys as they are known now.
func (k *keyring) use() (*ring, error) {
	if r := k.current.Load(); r != nil {
		return r, nil
	}
	return nil, apierr.Unavailable("this instance has not read the keys from etcd yet")
}

// run reads the keys, calls ready, and follows them until ctx ends. While etcd does not answer
// those known last stay in use.
func (k *keyring) run(ctx context.Context, ready func()) error {
	for ctx.Err() == nil {
		if err := k.look(ctx); err != nil {
			k.log.Warn("The keys for tokens could not be read", zap.Error(err))
			select {
			case <-ctx.Done():
			case <-time.After(retryInterval):
			}
			continue
		}
		if ready != nil {
			ready()
			ready = nil
		}
		k.wait(ctx)
	}
	return nil
}

// wait returns when the keys changed, or it is time to look.
func (k *keyring) wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookInterval)
	defer cancel()
	for response := range k.etcd.Watch(ctx, keysKey, clientv3.WithRev(k.current.Load().revision+1)) {
		if response.Err() != nil || len(response.Events) > 0 {
			return
		}
	}
}

// look reads the keys, and writes them where the first is missing, a new one due, or an old one of
// no more use.
func (k *keyring) look(ctx context.Context) error {
	for {
		have, err := k.read(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		want := k.pruned(have.stored, now)
		if len(want) == 0 || now.Sub(want[0].Created) >= k.cfg.RotateAfter {
			if want, err = prepended(want, now); err != nil {
				return err
			}
		}
		if len(want) == len(have.stored) && want[0].ID == have.stored[0].ID {
			k.current.Store(have)
			return nil
		}
		// The second instance reads what the first wrote.
		if _, err := k.write(ctx, have.revision, want); err != nil {
			return err
		}
	}
}

// pruned leaves out the keys that nothing can be signed with any more: a newer one has signed for
// longer than any token is good.
func (k *keyring) pruned(keys []storedKey, now time.Time) []storedKey {
	for i := 0; i+1 < len(keys); i++ {
		if now.Sub(keys[i].Created) > settle+k.cfg.MaxLifetime+time.Hour {
			return keys[:i+1]
		}
	}
	return keys
}

func prepended(keys []storedKey, now time.Time) ([]storedKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	made := storedKey{ID: base64.RawURLEncoding.EncodeToString(sum[:12]), Created: now.UTC().Truncate(time.Second), Key: der}
	return append([]storedKey{made}, keys...), nil
}

func (k *keyring) read(ctx context.Context) (*ring, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	resp, err := k.etcd.Get(ctx, keysKey)
	if err != nil {
		return nil, err
	}
	r := &ring{}
	if len(resp.Kvs) == 0 {
		return r, nil
	}
	r.revision = resp.Kvs[0].ModRevision
	if err := json.Unmarshal(resp.Kvs[0].Value, &r.stored); err != nil {
		return nil, fmt.Errorf("%s: %w", keysKey, err)
	}
	r.public = &token.Keys{Issuer: k.cfg.Issuer, ByID: make(map[string]*ecdsa.PublicKey, len(r.stored))}
	for _, stored := range r.stored {
		parsed, err := parseKey(stored)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", keysKey, err)
		}
		r.keys = append(r.keys, parsed)
		r.public.ByID[parsed.id] = &parsed.private.PublicKey
	}
	return r, nil
}

func parseKey(stored storedKey) (key, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(stored.Key)
	if err != nil {
		return key{}, fmt.Errorf("key %s: %w", stored.ID, err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return key{}, fmt.Errorf("key %s is a %T", stored.ID, parsed)
	}
	return key{stored.ID, stored.Created, private}, nil
}

// write stores keys unless another instance did since revision, and reports whether it did.
func (k *keyring) write(ctx context.Context, revision int64, keys []storedKey) (bool, error) {
	value, err := json.Marshal(keys)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	resp, err := k.etcd.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(keysKey), "=", revision)).
		Then(clientv3.OpPut(keysKey, string(value))).
		Commit()
	if err != nil {
		return false, err
	}
	if resp.Succeeded {
		k.log.Info("Wrote the keys for tokens", zap.Int(metrics.KeyKeys, len(keys)), zap.String(metrics.KeyNewest, keys[0].ID))
	}
	return resp.Succeeded, nil
}

// errManyKeys ends a rotation when earlier ones are not forgotten yet.
var errManyKeys = errors.New("there are too many keys already: the old ones are forgotten when their last tokens have expired")

// rotate makes a new key and returns its id.
func (k *keyring) rotate(ctx context.Context) (string, error) {
	for {
		have, err := k.read(ctx)
		if err != nil {
			return "", err
		}
		now := time.Now()
		kept := k.pruned(have.stored, now)
		if len(kept) >= maxKeys {
			return "", errManyKeys
		}
		want, err := prepended(kept, now)
		if err != nil {
			return "", err
		}
		switch written, err := k.write(ctx, have.revision, want); {
		case err != nil:
			return "", err
		case written:
			return want[0].ID, nil
		}
	}
}
