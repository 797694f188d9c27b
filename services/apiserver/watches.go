package apiserver

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
)

const (
	// minWatchAge is how long a watch lasts at least. It ends at an age between that and twice that,
	// at random, so that the watches that a restart began at once do not end at once.
	minWatchAge = 30 * time.Minute
	// recheckInterval is how often the right to a watch is checked while it lasts: a node's right to a
	// secret ends with the last pod that refers to it.
	recheckInterval = 15 * time.Second
)

// errWatchAge ends a watch that has lasted long enough: the client resumes it where it was.
var errWatchAge = errors.New("the watch has reached its age")

// boundWatch ends a watch by end when it is old, with errWatchAge, or when authorize refuses, with
// what it says. It does nothing more once ctx has ended.
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
