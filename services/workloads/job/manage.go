package job

import (
	"time"

	"github.com/xebec-project/xebec/internal/kinds/batch"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// manage decides which pods are created or removed, and whether enough pods have succeeded.
func (p *planner) manage(now time.Time) {
	s := p.job.GetSpec()
	want := p.wanted()
	p.plan.remove = p.surplus(want)
	if len(p.plan.remove) == 0 && !s.GetSuspend() {
		p.grow(want, now)
	}
	left := len(p.active) - len(p.plan.remove) + len(p.plan.create)
	enough := s.Completions == nil && p.succeeded > 0 || s.Completions != nil && p.succeeded >= int(s.GetCompletions())
	if enough && left == 0 {
		p.succeed(reasonCompletionsReached, "Reached expected number of succeeded pods")
		return
	}
	p.suspend()
}

// wanted is how many pods should be active.
func (p *planner) wanted() int {
	s := p.job.GetSpec()
	switch {
	case s.GetSuspend():
		return 0
	case s.Completions != nil:
		return max(0, min(int(s.GetParallelism()), int(s.GetCompletions())-p.succeeded))
	case p.succeeded > 0:
		// One success is enough. Pods that run may finish.
		return len(p.active)
	}
	return int(s.GetParallelism())
}

// surplus returns the active pods to remove: those without the finalizer, whose removal was begun
// before, those whose index is not wanted or is another's too, and as many more as are beyond the
// wanted number.
func (p *planner) surplus(want int) []*corev1.Pod {
	var surplus, kept []*corev1.Pod
	holders := map[int][]*corev1.Pod{}
	for _, pod := range p.active {
		switch {
		case !isTracked(pod), isIndexed(p.job) && !hasValidIndex(p.job, pod):
			surplus = append(surplus, pod)
		case isIndexed(p.job):
			holders[indexOf(pod)] = append(holders[indexOf(pod)], pod)
		default:
			kept = append(kept, pod)
		}
	}
	for _, same := range holders {
		sorted := podcontrol.Surplus(same, len(same), nil)
		last := len(sorted) - 1
		surplus, kept = append(surplus, sorted[:last]...), append(kept, sorted[last])
	}
	if n := len(kept) - want; n > 0 {
		surplus = append(surplus, podcontrol.Surplus(kept, n, nil)...)
	}
	return surplus[:min(len(surplus), maxChanges)]
}

// grow decides which pods are created.
func (p *planner) grow(want int, now time.Time) {
	s := p.job.GetSpec()
	n := want - len(p.active)
	if replacesOnlyFailed(s) {
		for _, pod := range p.pods {
			if isTerminating(pod) {
				n--
			}
		}
	}
	n = min(n, maxChanges)
	if n <= 0 {
		return
	}
	if s.BackoffLimitPerIndex == nil {
		if d := pause(p.pods, now); d > 0 {
			p.wait(d)
			return
		}
	}
	if !isIndexed(p.job) {
		for range n {
			p.plan.create = append(p.plan.create, newPod{index: noIndex})
		}
		return
	}
	for _, i := range p.taken().Missing(n, int(s.GetCompletions())) {
		replaces := p.delayed[i]
		if replaces != nil {
			if d := pauseAfter(allFailuresBefore(replaces)+1, endOf(replaces), now); d > 0 {
				p.wait(d)
				continue
			}
		}
		p.plan.create = append(p.plan.create, newPod{i, replaces})
	}
}

// taken are the indexes for which no pod is created: they have succeeded, failed or a pod.
func (p *planner) taken() batch.Indexes {
	taken := p.completed.Union(p.failedIndexes).Union(indexesOf(p.active))
	if replacesOnlyFailed(p.job.GetSpec()) {
		var terminating []*corev1.Pod
		for _, pod := range p.pods {
			if isTerminating(pod) {
				terminating = append(terminating, pod)
			}
		}
		taken = taken.Union(indexesOf(terminating))
	}
	return taken
}
