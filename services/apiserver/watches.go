package apiserver

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
)

const (
	// minWatchAge is how long a watch lasts at least. It ends at a random age between this and twice
	// this, so that watches that began together after a restart do not end together.
	minWatchAge = 30 * time.Minute
	// recheckInterval is how often the right to a watch is checked while it lasts: a node's right to a
	// secret ends with the last pod that refers to it.
	recheckInterval = 15 * time.Second
)

// errWatchAge ends a watch that has reached its maximum age. The client resumes it.
var errWatchAge = errors.New("the watch has reached its maximum age")

// boundWatch ends a watch by calling end: with errWatchAge when it has reached its maximum age, or
// with the error of authorize when that refuses. It does nothing more once ctx has ended.
func (s *Service) boundWatch(ctx context.Context, end context.CancelCauseFunc, authorize func() error) (stop func()) {
	age := time.AfterFunc(s.watchAge+rand.N(s.watchAge), func() { end(errWatchAge) })
	var recheck func()
	recheck = func() {
		time.AfterFunc(s.recheck, func() {
			if ctx.Err() != nil {
				return
			}
			if err := authorize(); apierr.IsForbidden(err) {
				end(err)
				return
			}
			recheck()
		})
	}
	recheck()
	return func() { age.Stop() }
}
