package storage

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/etcdtest"
)

// TestFull fills etcd from several writers and expects that exactly the acknowledged objects are
// there: etcd stores the very write that takes it over its quota and answers as if it had refused
// it. On a slow machine the outcome of a write may remain unknown.
func TestFull(t *testing.T) {
	const quota, each, writers = 24 << 20, 256 << 10, 4
	etcd := etcdtest.New(t, 1, etcdtest.Quota(quota))
	s, _ := openStore(t, etcd.Client(), Config{})
	ctx := deadline(t, time.Minute)

	var mu sync.Mutex
	acknowledged, unknown := map[Key]bool{}, map[Key]bool{}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range 4 * quota / each {
				key := podKey("default", fmt.Sprintf("p-%d-%d", w, n))
				b := podBytes(t, key, "", map[string]string{"filler": string(make([]byte, each))})
				_, err := s.Commit(ctx, Txn{Writes: []Write{{Key: key, Bytes: b, Expect: ExpectAbsent}}})
				if errors.Is(err, ErrUnknownOutcome) {
					mu.Lock()
					defer mu.Unlock()
					unknown[key] = true
					return
				}
				if errors.Is(err, ErrNoSpace) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acknowledged[key] = true
				mu.Unlock()
			}
			t.Error("etcd never became full")
		})
	}
	wg.Wait()
	list, err := s.List(ctx, ListOptions{Kind: "Pod"})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list.Objects {
		if !acknowledged[o.Key] && !unknown[o.Key] {
			t.Errorf("%s is stored and was not acknowledged", o.Key)
		}
		delete(acknowledged, o.Key)
	}
	for key := range acknowledged {
		t.Errorf("%s was acknowledged and is not stored", key)
	}
}

// TestUnknownOutcomeWhileFull tells the client of a write that may have happened, though etcd has
// no space for what would tell.
func TestUnknownOutcomeWhileFull(t *testing.T) {
	err := APIError(fmt.Errorf("%w: %w", fmt.Errorf("%w: no answer", ErrUnknownOutcome), ErrNoSpace))
	if apierr.Code(err) != codes.Unavailable || apierr.Reason(err) == apierr.Reason(APIError(ErrNoSpace)) {
		t.Errorf("got %v", err)
	}
}
