package scheduler

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/binding"
	"github.com/xebec-project/xebec/services/scheduler/cache"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/plugins/defaultbinder"
	"github.com/xebec-project/xebec/services/scheduler/podgroup"
	"github.com/xebec-project/xebec/services/scheduler/preemption"
	"github.com/xebec-project/xebec/services/scheduler/queue"
)

// loop schedules waiting pods for one term of leadership. Informers report changes under mu; one
// goroutine chooses nodes.
type loop struct {
	cfg      Config
	log      *zap.Logger
	events   *events.Recorder
	profiles map[string]*framework.Profile // by spec.schedulerName
	binder   *binding.Binder
	executor *preemption.Executor
	reporter *reporter
	wakeup   chan struct{} // holds a token when the queue may have changed

	mu    sync.Mutex
	cache *cache.Cache
	queue *queue.Queue
	// preemptions are those that were decided and have not begun.
	preemptions []preemption.Task
	// groups are the PodGroups with their pods, and gangs those that have nodes and are not being
	// bound yet.
	groups *podgroup.Groups
	gangs  []gang
}

func newLoop(cfg Config, c *client.Client, pods *client.Informer[*corev1.Pod], recorder *events.Recorder, log *zap.Logger) *loop {
	l := &loop{
		cfg: cfg, log: log, events: recorder, wakeup: make(chan struct{}, 1), cache: cache.New(), groups: podgroup.New(),
		binder:   binding.New(defaultbinder.Plugin{Client: c}, log),
		executor: preemption.New(c, recorder, log),
		reporter: newReporter(c, pods, recorder, log),
	}
	l.profiles = cfg.newProfiles(l.cache)
	l.queue = queue.New(func(p *framework.Pod, refusedBy []string, e framework.Event) bool {
		return l.profiles[p.SchedulerName].Helps(l.cache.Snapshot(), p, refusedBy, e)
	})
	return l
}

// wake makes run look at the queue.
func (l *loop) wake() {
	select {
	case l.wakeup <- struct{}{}:
	default:
	}
}

// run schedules pods until ctx ends.
func (l *loop) run(ctx context.Context) error {
	defer l.binder.Wait()
	defer l.executor.Wait()
	for ctx.Err() == nil {
		assignments, pods := l.schedule()
		preemptions := l.takePreemptions()
		for _, t := range preemptions {
			l.executor.Start(ctx, t, l.preempted)
		}
		gangs := l.takeGangs()
		for _, g := range gangs {
			l.binder.BindWhole(ctx, g.assignments, func(err error) { l.gangBound(g, err) })
		}
		if len(assignments) == 0 {
			if len(preemptions)+len(gangs) == 0 {
				l.idle(ctx)
			}
			continue
		}
		l.binder.Bind(ctx, assignments, func(a framework.Assignment, err error) { l.bound(pods[a.Pod.UID], a, err) })
	}
	return nil
}

// idle waits until the queue may have changed or a pod in it becomes ready, or ctx ends.
func (l *loop) idle(ctx context.Context) {
	l.mu.Lock()
	at, ok := l.queue.Next()
	l.mu.Unlock()
	var ready <-chan time.Time
	if ok {
		timer := time.NewTimer(max(time.Until(at), time.Millisecond))
		defer timer.Stop()
		ready = timer.C
	}
	select {
	case <-ctx.Done():
	case <-l.wakeup:
	case <-ready:
	}
}

// maxPreemptions is how many preemptions one batch decides at most. Each looks at many nodes, and
// informers and the pods of the batch wait meanwhile.
const maxPreemptions = 16

// schedule takes a batch of ready pods out of the queue and chooses their nodes, reserving each
// before the next pod is looked at. It returns the assignments, and the pods of the batch by uid.
// After maxPreemptions, the other pods stay in the queue for the next batch.
func (l *loop) schedule() ([]framework.Assignment, map[string]*queue.Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var assignments []framework.Assignment
	pods := map[string]*queue.Pod{}
	for range l.cfg.BatchSize {
		next := l.queue.Pop(1, now)
		if len(next) == 0 {
			break
		}
		w := next[0]
		if g := l.groups.Of(w.Pod); g != nil && g.Need() > 0 {
			l.scheduleGang(g, w, now)
			continue
		}
		node, err := l.profiles[w.SchedulerName].Schedule(l.cache.Snapshot(), w.Pod)
		if unfit := (*framework.FitError)(nil); errors.As(err, &unfit) {
			l.queue.MarkUnschedulable(w, unfit.Plugins, now)
			if unfit.Room != nil {
				l.makeRoom(w.Pod, unfit, now)
			}
			l.reporter.report(w.Pod, unfit)
			if len(l.preemptions) == maxPreemptions {
				break
			}
			continue
		}
		a := framework.Assignment{Pod: w.Pod, Node: node}
		if l.cache.Snapshot().NominatedNode(w.UID) != nil {
			l.move(l.cache.Nominate(w.Pod, node), now)
		}
		if err := l.profiles[w.SchedulerName].Reserve(a); err != nil {
			l.log.Warn("Reservation failed", zap.Error(err))
			l.queue.Retry(w, now)
			continue
		}
		assignments = append(assignments, a)
		pods[w.UID] = w
	}
	return assignments, pods
}

// bound is called with the outcome of each binding.
func (l *loop) bound(w *queue.Pod, a framework.Assignment, err error) {
	if err == nil {
		l.events.EventAt(reference(a.Pod), events.Normal, "Scheduled", "Successfully assigned %s to %s", nameOf(a.Pod), a.Node)
		return
	}
	// The informer reports what became of a pod that was deleted or bound by another scheduler.
	if !apierr.IsNotFound(err) && !apierr.IsConflict(err) {
		l.log.Warn("Binding failed", zap.String(metrics.KeyObject, nameOf(a.Pod)), zap.String(metrics.KeyNode, a.Node), zap.Error(err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	reserved := l.cache.Reserved(a)
	l.profiles[a.Pod.SchedulerName].Unreserve(a)
	if !reserved {
		return // The informer has shown the pod bound or deleted.
	}
	now := time.Now()
	l.queue.Retry(w, now)
	if shown, ok := l.reporter.pods.Get(a.Pod.Namespace, a.Pod.Name); ok && shown.GetStatus().GetNominatedNodeName() != "" {
		l.cache.Nominate(w.Pod, shown.GetStatus().GetNominatedNodeName())
	}
	l.move(l.cache.Removed(a), now)
}

func reference(p *framework.Pod) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Pod", ApiVersion: "v1", Namespace: p.Namespace, Name: p.Name, Uid: p.UID}
}

// nameOf is the pod in logs and events.
func nameOf(p *framework.Pod) string { return p.Namespace + "/" + p.Name }
