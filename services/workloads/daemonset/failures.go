package daemonset

import (
	"sync"
	"time"

	"github.com/xebec-project/xebec/internal/controller"
)

// A failed pod is deleted at once the first time. Then the pause doubles from firstPause to
// longestPause, until a node had no failed pod for twice the longest pause. These are Kubernetes'
// limits.
const (
	firstPause   = time.Second
	longestPause = 15 * time.Minute
)

// failures remember the deletions of failed pods, so that a node that refuses pods, or a broken
// template, does not cause them without a pause.
type failures struct {
	mu   sync.Mutex
	sets map[controller.Key]map[string]failure // by node
}

type failure struct {
	last  time.Time
	pause time.Duration
}

func newFailures() *failures { return &failures{sets: map[controller.Key]map[string]failure{}} }

// left is how long failed pods of a set have to stay on a node, 0 or less for no longer.
func (f *failures) left(set controller.Key, node string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	last, ok := f.sets[set][node]
	if !ok {
		return 0
	}
	return last.last.Add(last.pause).Sub(now)
}

// note notes that a failed pod of a set is deleted on a node.
func (f *failures) note(set controller.Key, node string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sets[set] == nil {
		f.sets[set] = map[string]failure{}
	}
	last, ok := f.sets[set][node]
	pause := min(2*last.pause, longestPause)
	if !ok || now.Sub(last.last) > 2*longestPause {
		pause = firstPause
	}
	f.sets[set][node] = failure{now, pause}
}

// forget drops what is remembered of a set that does not exist any more.
func (f *failures) forget(set controller.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sets, set)
}
