package scheduler

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
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
	why *framework.FitError
}

func newReporter(c *client.Client, pods *client.Informer[*corev1.Pod], recorder *events.Recorder, log *zap.Logger) *reporter {
	return &reporter{
		client: c, pods: pods, events: recorder, log: log, wakeup: make(chan struct{}, 1), pending: map[string]unschedulable{},
	}
}

// report makes run report a pod.
func (r *reporter) report(p *framework.Pod, why *framework.FitError) {
	r.mu.Lock()
	r.pending[p.UID] = unschedulable{p, why}
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

// write records the event, and writes the condition unless the pod has it.
func (r *reporter) write(ctx context.Context, u unschedulable) {
	message := u.why.Error()
	r.events.EventAt(reference(u.pod), events.Warning, "FailedScheduling", "%s", message)
	pod, ok := r.pods.Get(u.pod.Namespace, u.pod.Name)
	if !ok || pod.GetMetadata().GetUid() != u.pod.UID {
		return
	}
	if was := core.PodCondition(pod, "PodScheduled"); was.GetStatus() == condition.False && was.GetMessage() == message {
		return
	}
	var err error
	for range writeAttempts {
		if err = r.writeCondition(ctx, u.pod, message); !apierr.IsConflict(err) {
			break
		}
	}
	if err != nil && !apierr.IsNotFound(err) && !apierr.IsConflict(err) && ctx.Err() == nil {
		r.log.Warn("Condition PodScheduled not written", zap.String(metrics.KeyObject, nameOf(u.pod)), zap.Error(err))
	}
}

// writeCondition writes the condition onto the whole object: the informer's copy lacks fields.
func (r *reporter) writeCondition(ctx context.Context, pod *framework.Pod, message string) error {
	full, err := client.Get[*corev1.Pod](ctx, r.client, pod.Namespace, pod.Name)
	if err != nil || full.GetMetadata().GetUid() != pod.UID || full.GetSpec().GetNodeName() != "" {
		return err
	}
	setUnschedulable(full, message, time.Now())
	_, err = client.UpdateStatus(ctx, r.client, full)
	return err
}

func setUnschedulable(p *corev1.Pod, message string, now time.Time) {
	if p.Status == nil {
		p.Status = &corev1.PodStatus{}
	}
	c := &corev1.PodCondition{
		Type: "PodScheduled", Status: condition.False, Reason: "Unschedulable", Message: message,
		LastTransitionTime: timestamppb.New(now.Truncate(time.Second)),
	}
	if was := core.PodCondition(p, c.Type); was != nil {
		if was.GetStatus() == c.Status {
			c.LastTransitionTime = was.GetLastTransitionTime()
		}
		p.Status.Conditions = slices.DeleteFunc(p.Status.Conditions, func(o *corev1.PodCondition) bool { return o == was })
	}
	p.Status.Conditions = append(p.Status.Conditions, c)
}
