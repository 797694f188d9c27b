package scheduler

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/preemption"
)

// reporter shows users why pods fit on no node: by an event and by the condition PodScheduled. It
// works beside the loop, so that a thousand such pods, or a slow API, delay no pod that fits.
type reporter struct {
	client *client.Client
	pods   *client.Informer[*corev1.Pod]
	events *events.Recorder
	log    *zap.Logger
	wakeup chan struct{} // holds a token when pending is not empty

	mu      sync.Mutex
	pending map[string]unschedulable // by uid; the latest of each pod
}

// unschedulable is a pod that fits on no node.
type unschedulable struct {
	pod *framework.Pod
	// why is nil when the pod only loses its nominated node.
	why *framework.FitError
	// clear says that it loses its nominated node, and taken that another pod has it now: the informer
	// may show the pod as it was before it was nominated.
	clear, taken bool
}

func newReporter(c *client.Client, pods *client.Informer[*corev1.Pod], recorder *events.Recorder, log *zap.Logger) *reporter {
	return &reporter{
		client: c, pods: pods, events: recorder, log: log, wakeup: make(chan struct{}, 1), pending: map[string]unschedulable{},
	}
}

// report makes run report a pod.
func (r *reporter) report(p *framework.Pod, why *framework.FitError) {
	room := why.Room
	r.put(unschedulable{pod: p, why: why, clear: room != nil && room.Node == "" && !room.Waits})
}

// clearNomination makes run clear status.nominatedNodeName of a pod.
func (r *reporter) clearNomination(p *framework.Pod) {
	r.put(unschedulable{pod: p, clear: true, taken: true})
}

func (r *reporter) put(u unschedulable) {
	r.mu.Lock()
	if was, ok := r.pending[u.pod.UID]; ok && u.why == nil {
		u.why = was.why
	}
	r.pending[u.pod.UID] = u
	r.mu.Unlock()
	select {
	case r.wakeup <- struct{}{}:
	default:
	}
}

// forget drops a report that was not made yet.
func (r *reporter) forget(uid string) {
	r.mu.Lock()
	delete(r.pending, uid)
	r.mu.Unlock()
}

// run reports until ctx ends.
func (r *reporter) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wakeup:
		}
		r.mu.Lock()
		batch := r.pending
		r.pending = map[string]unschedulable{}
		r.mu.Unlock()
		for _, u := range batch {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // ctx ended
			}
			r.write(ctx, u)
		}
	}
}

// writeAttempts is how often a condition is written when others change the pod meanwhile.
const writeAttempts = 3

// write records the event, and writes the status unless the pod has it.
func (r *reporter) write(ctx context.Context, u unschedulable) {
	if u.why != nil {
		r.events.EventAt(reference(u.pod), events.Warning, "FailedScheduling", "%s", u.why)
		if u.why.Room != nil && u.why.Room.Node != "" {
			return // The preemption writes the status.
		}
	}
	pod, ok := r.pods.Get(u.pod.Namespace, u.pod.Name)
	if !ok || pod.GetMetadata().GetUid() != u.pod.UID || u.isShownBy(pod) {
		return
	}
	var err error
	for range writeAttempts {
		if err = r.writeStatus(ctx, u); !apierr.IsConflict(err) {
			break
		}
	}
	if err != nil && !apierr.IsNotFound(err) && !apierr.IsConflict(err) && ctx.Err() == nil {
		r.log.Warn("Condition PodScheduled not written", zap.String(metrics.KeyObject, nameOf(u.pod)), zap.Error(err))
	}
}

// isShownBy reports whether a pod's status says that it fits on no node, and why.
func (u unschedulable) isShownBy(p *corev1.Pod) bool {
	if u.taken || u.clear && p.GetStatus().GetNominatedNodeName() != "" {
		return false
	}
	c := core.PodCondition(p, core.PodScheduled)
	return u.why == nil || c.GetStatus() == condition.False && c.GetMessage() == u.why.Error()
}

// writeStatus writes the status of the whole object: the informer's copy lacks fields.
func (r *reporter) writeStatus(ctx context.Context, u unschedulable) error {
	full, err := client.Get[*corev1.Pod](ctx, r.client, u.pod.Namespace, u.pod.Name)
	if err != nil || full.GetMetadata().GetUid() != u.pod.UID || full.GetSpec().GetNodeName() != "" {
		return err
	}
	if u.why != nil {
		preemption.SetUnschedulable(full, u.why.Error(), time.Now())
	}
	if u.clear && full.Status != nil {
		full.Status.NominatedNodeName = ""
	}
	_, err = client.UpdateStatus(ctx, r.client, full)
	return err
}
