package job

import (
	"time"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Limits of the pause before a failed pod is replaced. It doubles with each failure.
const (
	firstPause = 10 * time.Second
	lastPause  = 10 * time.Minute
)

// pauseAfter returns how long it takes until a pod may be created after some failures in a row, 0
// or less for now.
func pauseAfter(failures int, last, now time.Time) time.Duration {
	if failures == 0 {
		return 0
	}
	pause := firstPause
	for i := 1; i < failures && pause < lastPause; i++ {
		pause *= 2
	}
	return min(pause, lastPause) - now.Sub(last)
}

// pause returns how long it takes until pods may be created, 0 or less for now. It goes by the
// failures since the last success, which the pods that have ended tell: no failure is forgotten
// when another controller takes over. Pods that were deleted cause no pause.
func pause(pods []*corev1.Pod, now time.Time) time.Duration {
	var success, failure time.Time
	for _, p := range pods {
		if end := endOf(p); isSucceeded(p) && end.After(success) {
			success = end
		}
	}
	failures := 0
	for _, p := range pods {
		if p.GetStatus().GetPhase() != core.PodFailed || isDeleted(p) {
			continue
		}
		if end := endOf(p); end.After(success) {
			failures++
			if end.After(failure) {
				failure = end
			}
		}
	}
	return pauseAfter(failures, failure, now)
}
