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
	"github.com/xebec-project/xebec/internal/kinds/scheduling"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/podgroup"
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
	pending map[string]report // by uid; the latest of each pod
	groups  map[podgroup.Key]groupReport
}

// groupReport is what users will be shown of a PodGroup: its condition PodGroupScheduled and, when
// that is False, an event.
type groupReport struct {
	key                     podgroup.Key
	status, reason, message string
}

// report is what users will be shown of a pod that fits on no node.
type report struct {
	pod *framework.Pod
	// message says why. It is shown by an event and by the condition PodScheduled, or by one of them.
	message          string
	event, condition bool
	// clear says that the pod loses its nominated node, and taken that another pod has it now: the
	// informer may show the pod as it was before it was nominated.
	clear, taken bool
}

// after adds to a report what was to be shown of the pod before.
func (r report) after(was report) report {
	preempts := r.event && !r.condition // and its preemption writes a nominated node
	if r.message == "" {
		r.message, r.condition = was.message, was.condition
	}
	r.event = r.event || was.event
	if !preempts {
		r.clear, r.taken = r.clear || was.clear, r.taken || was.taken
	}
	return r
}

func newReporter(c *client.Client, pods *client.Informer[*corev1.Pod], recorder *events.Recorder, log *zap.Logger) *reporter {
	return &reporter{
		client: c, pods: pods, events: recorder, log: log, wakeup: make(chan struct{}, 1), pending: map[string]report{},
		groups: map[podgroup.Key]groupReport{},
	}
}

// report makes run report a pod. When room is made for it, the preemption writes its status.
func (r *reporter) report(p *framework.Pod, why *framework.FitError) {
	room := why.Room
	r.put(report{
		pod: p, message: why.Error(), event: true, condition: room == nil || room.Node == "",
		clear: room != nil && room.Node == "" && !room.Waits,
	})
}

// preemptionFailed makes run write the condition of a pod that its preemption did not write.
func (r *reporter) preemptionFailed(p *framework.Pod, message string) {
	r.put(report{pod: p, message: message, condition: true})
}

// gangRefused makes run report a gang that does not fit, and the pods of it that would.
func (r *reporter) gangRefused(key podgroup.Key, reason, message string, pods []*framework.Pod) {
	for _, p := range pods {
		r.put(report{pod: p, message: message, event: true, condition: true})
	}
	r.setPodGroup(groupReport{key: key, status: condition.False, reason: reason, message: message})
}

// setPodGroup makes run report a PodGroup.
func (r *reporter) setPodGroup(next groupReport) {
	r.mu.Lock()
	r.groups[next.key] = next
	r.mu.Unlock()
	r.wake()
}

// clearNomination makes run clear status.nominatedNodeName of a pod.
func (r *reporter) clearNomination(p *framework.Pod) { r.put(report{pod: p, clear: true, taken: true}) }

func (r *reporter) put(next report) {
	r.mu.Lock()
	if was, ok := r.pending[next.pod.UID]; ok {
		next = next.after(was)
	}
	r.pending[next.pod.UID] = next
	r.mu.Unlock()
	r.wake()
}

func (r *reporter) wake() {
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
		batch, groups := r.pending, r.groups
		r.pending, r.groups = map[string]report{}, map[podgroup.Key]groupReport{}
		r.mu.Unlock()
		for _, g := range groups {
			r.writePodGroup(ctx, g)
		}
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
func (r *reporter) write(ctx context.Context, u report) {
	if u.event {
		r.events.EventAt(reference(u.pod), events.Warning, "FailedScheduling", "%s", u.message)
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

// writePodGroup sets the condition of a PodGroup, and records the event.
func (r *reporter) writePodGroup(ctx context.Context, g groupReport) {
	var err error
	for range writeAttempts {
		if err = r.writeGroupStatus(ctx, g); !apierr.IsConflict(err) {
			break
		}
	}
	if err != nil && !apierr.IsNotFound(err) && ctx.Err() == nil {
		r.log.Warn("Condition PodGroupScheduled not written",
			zap.String(metrics.KeyObject, g.key.Namespace+"/"+g.key.Name), zap.Error(err))
	}
}

func (r *reporter) writeGroupStatus(ctx context.Context, g groupReport) error {
	group, err := client.Get[*schedulingv1alpha2.PodGroup](ctx, r.client, g.key.Namespace, g.key.Name)
	if err != nil {
		return err
	}
	if g.status != condition.True {
		r.events.Event(group, events.Warning, "FailedScheduling", "%s", g.message)
	}
	if scheduling.SetPodGroupScheduled(group, g.status, g.reason, g.message, time.Now()) {
		_, err = client.UpdateStatus(ctx, r.client, group)
	}
	return err
}

// isShownBy reports whether nothing has to be written to the status of a pod.
func (r report) isShownBy(p *corev1.Pod) bool {
	if r.taken || r.clear && p.GetStatus().GetNominatedNodeName() != "" {
		return false
	}
	c := core.PodCondition(p, core.PodScheduled)
	return !r.condition || c.GetStatus() == condition.False && c.GetMessage() == r.message
}

// writeStatus writes the status of the whole object: the informer's copy lacks fields.
func (r *reporter) writeStatus(ctx context.Context, u report) error {
	full, err := client.Get[*corev1.Pod](ctx, r.client, u.pod.Namespace, u.pod.Name)
	if err != nil || full.GetMetadata().GetUid() != u.pod.UID || full.GetSpec().GetNodeName() != "" {
		return err
	}
	if u.condition {
		preemption.SetUnschedulable(full, u.message, time.Now())
	}
	if u.clear && full.Status != nil {
		full.Status.NominatedNodeName = ""
	}
	_, err = client.UpdateStatus(ctx, r.client, full)
	return err
}
