package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/watch"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// retryEviction is how long drain waits before it tries again to evict pods whose disruption budget
// refused, as kubectl does.
const retryEviction = 5 * time.Second

// evictions are those of a drain.
type evictions struct {
	session *session.Session
	client  *client.Client
	// remove evicts a pod, or deletes it, and reports whether it is gone.
	remove func(ctx context.Context, p *corev1.Pod) (gone bool, err error)
	pause  time.Duration
	// gone are the pods that have been evicted and may still be there.
	gone []watch.Deleted
	// waits are, by pod, the sentences that say what the others wait for.
	waits map[*corev1.Pod]string
}

// all evicts pods, and tries again those whose disruption budgets refuse. The deadline ends that,
// unless it is zero.
func (e *evictions) all(ctx context.Context, pods []*corev1.Pod, deadline time.Time) error {
	for {
		refused, err := e.once(ctx, pods)
		if err != nil || len(refused) == 0 {
			return err
		}
		pods = refused
		pause := e.pause
		if !deadline.IsZero() {
			pause = min(pause, time.Until(deadline))
		}
		if pause <= 0 {
			return exit.TimedOutf("eviction of %d pods:\n  %s", len(pods), strings.Join(e.waiting(pods), "\n  "))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// try evicts pods in a dry run, in which nothing is waited for: it returns an error when budgets
// refuse.
func (e *evictions) try(ctx context.Context, pods []*corev1.Pod) error {
	refused, err := e.once(ctx, pods)
	if err == nil && len(refused) > 0 {
		err = fmt.Errorf("%d pods cannot be evicted now:\n  %s", len(refused), strings.Join(e.waiting(refused), "\n  "))
	}
	return err
}

// once tries to evict each of the pods and returns those that were refused.
func (e *evictions) once(ctx context.Context, pods []*corev1.Pod) (refused []*corev1.Pod, err error) {
	for _, p := range pods {
		gone, err := e.remove(ctx, p)
		name, cause, budget := apierr.RefusedBudget(err)
		switch {
		case apierr.IsNotFound(err):
		case budget:
			e.noteWait(ctx, p, name, cause)
			refused = append(refused, p)
		case err != nil:
			return nil, fmt.Errorf("evict pod %s: %w", client.KeyOf(p), err)
		case !gone:
			e.gone = append(e.gone, watch.Deleted{Reference: resolve.Of(p), UID: p.GetMetadata().GetUid()})
		}
	}
	return refused, nil
}

// noteWait shows what a pod waits for, unless that is what it waited for before.
func (e *evictions) noteWait(ctx context.Context, p *corev1.Pod, budget, cause string) {
	text := "waits for disruption budget " + budget + ": " + cause
	b, err := client.Get[*policyv1.PodDisruptionBudget](ctx, e.client, p.GetMetadata().GetNamespace(), budget)
	if s := b.GetStatus(); err == nil && s.GetObservedGeneration() >= b.GetMetadata().GetGeneration() {
		text = fmt.Sprintf("waits for disruption budget %s, which allows %d disruptions: %d of %d pods are healthy, and %d must be",
			budget, s.GetDisruptionsAllowed(), s.GetCurrentHealthy(), s.GetExpectedPods(), s.GetDesiredHealthy())
	}
	if e.waits[p] == text {
		return
	}
	e.waits[p] = text
	e.session.Notef("pod %s %s; trying again every %s", client.KeyOf(p), text, e.pause)
}

// waiting returns what each of the pods waits for.
func (e *evictions) waiting(pods []*corev1.Pod) []string {
	var lines []string
	for _, p := range pods {
		lines = append(lines, fmt.Sprintf("%s %s", client.KeyOf(p), e.waits[p]))
	}
	return lines
}
