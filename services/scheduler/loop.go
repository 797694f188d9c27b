package scheduler

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/cache"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/plugins"
)

// maxBindings is how many binding transactions may be under way at once.
const maxBindings = 4

// loop places waiting pods. Informers tell it of changes under mu; one goroutine decides.
type loop struct {
	cfg    Config
	client *client.Client
	events *events.Recorder
	log    *zap.Logger
	pods   *client.Informer[*corev1.Pod]
	wakeup chan struct{} // holds a token when there may be something to do

	profile *framework.Profile

	mu    sync.Mutex
	cache *cache.Cache
	queue *queue
	// assumed are pods that were placed and whose binding the informer has not shown yet.
	assumed map[string]string
	// refused are the pods that fit nowhere and whose users have not been told yet, by uid: the latest reason of each.
	refused map[string]refusal
	telling chan struct{} // holds a token when refused is not empty
}

func newLoop(cfg Config, c *client.Client, recorder *events.Recorder, log *zap.Logger) *loop {
	return &loop{
		cfg: cfg, client: c, events: recorder, log: log, wakeup: make(chan struct{}, 1),
		profile: framework.NewProfile(plugins.Default()), cache: cache.New(), queue: newQueue(), assumed: map[string]string{},
		refused: map[string]refusal{}, telling: make(chan struct{}, 1),
	}
}

func (l *loop) kick() {
	select {
	case l.wakeup <- struct{}{}:
	default:
	}
}

// nodeChanged follows the nodes informer. What changed decides which parked pods are worth another try.
func (l *loop) nodeChanged(old, new *corev1.Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.kick()
	if new == nil {
		l.cache.DeleteNode(old.GetMetadata().GetName())
		return
	}
	if _, err := l.cache.SetNode(new); err != nil {
		l.log.Error("Node is left out", zap.Error(err))
		l.cache.DeleteNode(new.GetMetadata().GetName())
		return
	}
	now := time.Now()
	if old == nil {
		l.queue.wake(now, "NodeUnschedulable", "NodeSelector", "TaintToleration", "HostPorts", "NodeResources")
		return
	}
	var could []string
	if old.GetSpec().GetUnschedulable() && !new.GetSpec().GetUnschedulable() {
		could = append(could, "NodeUnschedulable")
	}
	if !maps.Equal(old.GetMetadata().GetLabels(), new.GetMetadata().GetLabels()) {
		could = append(could, "NodeSelector")
	}
	if !slices.EqualFunc(old.GetSpec().GetTaints(), new.GetSpec().GetTaints(), func(a, b *corev1.Taint) bool { return proto.Equal(a, b) }) {
		could = append(could, "TaintToleration")
	}
	if !equalResources(old, new) {
		could = append(could, "NodeResources")
	}
	if len(could) > 0 {
		l.queue.wake(now, could...)
	}
}

func equalResources(a, b *corev1.Node) bool {
	x, y := a.GetStatus().GetAllocatable(), b.GetStatus().GetAllocatable()
	if len(x) != len(y) {
		return false
	}
	for name := range x {
		if x[name].GetString_() != y[name].GetString_() {
			return false
		}
	}
	return true
}

// podChanged follows the pods informer.
func (l *loop) podChanged(old, new *corev1.Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.kick()
	now := time.Now()
	if new == nil || kind.IsPodFinished(new) {
		gone := new
		if gone == nil {
			gone = old
		}
		uid := gone.GetMetadata().GetUid()
		l.queue.remove(uid)
		delete(l.refused, uid)
		delete(l.assumed, uid)
		if l.cache.DeletePod(uid).Kind != 0 {
			l.queue.wake(now, "NodeResources", "HostPorts")
		}
		return
	}
	p, err := framework.NewPod(new)
	if err != nil {
		l.log.Error("Pod is left out", zap.String("pod", client.KeyOf(new).String()), zap.Error(err))
		return
	}
	switch {
	case p.Node != "":
		l.queue.remove(p.UID)
		delete(l.assumed, p.UID)
		delete(l.refused, p.UID)
		if l.cache.SetPod(p).Kind != 0 {
			l.queue.wake(now, "NodeResources", "HostPorts")
		}
	case !l.serves(new):
		l.queue.remove(p.UID)
	case l.assumed[p.UID] == "":
		// A status update of a pod that fits nowhere is this scheduler's own doing and changes nothing.
		if old == nil || old.GetMetadata().GetGeneration() != new.GetMetadata().GetGeneration() {
			l.queue.add(p, now)
		}
	}
}

// serves reports whether a pod without a node is this scheduler's to place now.
func (l *loop) serves(p *corev1.Pod) bool {
	return p.GetSpec().GetSchedulerName() == l.cfg.SchedulerName && p.GetMetadata().GetDeletionTimestamp() == nil && len(p.GetSpec().GetSchedulingGates()) == 0
}

// run places pods until ctx ends.
func (l *loop) run(ctx context.Context) error {
	var bindings sync.WaitGroup
	defer bindings.Wait()
	bindings.Go(func() { l.tell(ctx) })
	slots := make(chan struct{}, maxBindings)
	for {
		placed := l.decide()
		if len(placed) > 0 {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			bindings.Go(func() {
				defer func() { <-slots }()
				l.bind(ctx, placed)
			})
			continue
		}
		if !l.idle(ctx) {
			return nil
		}
	}
}

// idle waits for something to do; false when ctx ended.
func (l *loop) idle(ctx context.Context) bool {
	l.mu.Lock()
	at, ok := l.queue.next()
	l.mu.Unlock()
	var clock <-chan time.Time
	if ok {
		timer := time.NewTimer(max(time.Until(at), time.Millisecond))
		defer timer.Stop()
		clock = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-l.wakeup:
	case <-clock:
	}
	return true
}

// assignment is a pod with the node chosen for it.
type assignment struct {
	*waiting
	node string
}

// refusal is a pod that fits nowhere.
type refusal struct {
	pod *framework.Pod
	why *framework.FitError
}

// decide takes a batch of waiting pods and chooses their nodes, counting each before the next is looked at. Those that
// fit nowhere are parked, and told of by tell.
func (l *loop) decide() (placed []assignment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, w := range l.queue.take(l.cfg.BatchSize, now) {
		node, err := l.profile.Schedule(l.cache.Snapshot(), w.pod)
		if why := (*framework.FitError)(nil); errors.As(err, &why) {
			l.queue.park(w, why.Plugins, now)
			l.refused[w.pod.UID] = refusal{w.pod, why}
			select {
			case l.telling <- struct{}{}:
			default:
			}
			continue
		}
		if err := l.cache.Reserve(framework.Assignment{Pod: w.pod, Node: node}); err != nil {
			l.log.Error("Node not reserved", zap.Error(err))
			l.queue.retry(w, now)
			continue
		}
		l.assumed[w.pod.UID] = node
		placed = append(placed, assignment{w, node})
	}
	return placed
}

// tell reports pods that fit nowhere until ctx ends. It is apart from deciding, so that a thousand such pods, or an API
// that is slow to answer, hold up no pod that fits.
func (l *loop) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.telling:
		}
		l.mu.Lock()
		batch := l.refused
		l.refused = map[string]refusal{}
		l.mu.Unlock()
		for _, r := range batch {
			if ctx.Err() != nil {
				return
			}
			l.report(ctx, r)
		}
	}
}

// Pause between two attempts at a binding that nobody answered.
const (
	unansweredMin = 50 * time.Millisecond
	unansweredMax = 2 * time.Second
)

// bind writes a batch in one transaction. When it is refused, because a pod of it is gone for example, its halves are
// tried, down to the pods that cannot be bound. When nobody says whether it happened it is sent again: binding a pod to
// the node that it is on already is an answer as well, and until there is one the room on the node stays taken.
func (l *loop) bind(ctx context.Context, batch []assignment) {
	ops := make([]client.Operation, len(batch))
	for i, a := range batch {
		ops[i] = client.OpBind(a.pod.Namespace, a.pod.Name, a.pod.UID, a.node)
	}
	pauses := backoff.Backoff{Min: unansweredMin, Max: unansweredMax}
	_, err := client.Transact(ctx, l.client, ops...)
	for apierr.IsRetryable(err) {
		l.log.Warn("Binding not answered, trying again", zap.Int("pods", len(batch)), zap.Error(err))
		if pauses.Wait(ctx, err) != nil {
			return
		}
		_, err = client.Transact(ctx, l.client, ops...)
	}
	switch {
	case err == nil:
		for _, a := range batch {
			l.recordScheduled(a)
		}
	case ctx.Err() != nil || apierr.IsElectionLost(err):
	case len(batch) > 1:
		l.bind(ctx, batch[:len(batch)/2])
		l.bind(ctx, batch[len(batch)/2:])
	case apierr.IsConflict(err) && l.isBound(ctx, batch[0]):
		l.recordScheduled(batch[0])
	default:
		l.unbind(batch[0], err)
	}
}

// isBound reports whether a pod is bound as it was assigned.
func (l *loop) isBound(ctx context.Context, a assignment) bool {
	p, err := client.Get[*corev1.Pod](ctx, l.client, a.pod.Namespace, a.pod.Name)
	return err == nil && p.GetMetadata().GetUid() == a.pod.UID && p.GetSpec().GetNodeName() == a.node
}

func (l *loop) recordScheduled(a assignment) {
	l.events.EventAt(reference(a.pod), events.Normal, "Scheduled", "Successfully assigned %s/%s to %s", a.pod.Namespace, a.pod.Name, a.node)
}

// unbind takes a failed assignment back. A pod that is gone is forgotten by the informer's word, not here.
func (l *loop) unbind(a assignment, err error) {
	if !apierr.IsNotFound(err) && !apierr.IsConflict(err) {
		l.log.Warn("Binding failed", zap.String("pod", a.pod.Namespace+"/"+a.pod.Name), zap.String("node", a.node), zap.Error(err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.kick()
	// The informer may have shown it bound meanwhile.
	if l.assumed[a.pod.UID] != a.node {
		return
	}
	now := time.Now()
	delete(l.assumed, a.pod.UID)
	l.cache.Unreserve(framework.Assignment{Pod: a.pod, Node: a.node})
	// Changes of the pod were not looked at while its binding was under way.
	if seen, ok := l.pods.Get(a.pod.Namespace, a.pod.Name); ok && seen.GetMetadata().GetUid() == a.pod.UID {
		if p, err := framework.NewPod(seen); err == nil {
			a.waiting.pod = p
		}
	}
	l.queue.retry(a.waiting, now)
	l.queue.wake(now, "NodeResources", "HostPorts")
}

func reference(p *framework.Pod) *corev1.ObjectReference {
	return &corev1.ObjectReference{Kind: "Pod", ApiVersion: "v1", Namespace: p.Namespace, Name: p.Name, Uid: p.UID}
}

// report tells people why a pod waits: by an event and by its PodScheduled condition.
func (l *loop) report(ctx context.Context, r refusal) {
	message := r.why.Error()
	l.events.EventAt(reference(r.pod), events.Warning, "FailedScheduling", "%s", message)
	pod, ok := l.pods.Get(r.pod.Namespace, r.pod.Name)
	if !ok || pod.GetMetadata().GetUid() != r.pod.UID {
		return
	}
	was := kind.PodCondition(pod, "PodScheduled")
	if was.GetStatus() == "False" && was.GetMessage() == message {
		return
	}
	var err error
	for range reportAttempts {
		if err = l.writeUnschedulable(ctx, r.pod, message); !apierr.IsConflict(err) {
			break
		}
	}
	if err != nil && !apierr.IsNotFound(err) && !apierr.IsConflict(err) && ctx.Err() == nil {
		l.log.Warn("Condition of a pod that fits nowhere not written", zap.String("pod", r.pod.Namespace+"/"+r.pod.Name), zap.Error(err))
	}
}

// reportAttempts is how often a condition is written when others change the pod meanwhile.
const reportAttempts = 3

// writeUnschedulable writes the condition onto the whole object: the informer's copy is slim.
func (l *loop) writeUnschedulable(ctx context.Context, pod *framework.Pod, message string) error {
	full, err := client.Get[*corev1.Pod](ctx, l.client, pod.Namespace, pod.Name)
	if err != nil || full.GetMetadata().GetUid() != pod.UID || full.GetSpec().GetNodeName() != "" {
		return err
	}
	setUnschedulable(full, message, time.Now())
	_, err = client.UpdateStatus(ctx, l.client, full)
	return err
}

func setUnschedulable(p *corev1.Pod, message string, now time.Time) {
	if p.Status == nil {
		p.Status = &corev1.PodStatus{}
	}
	c := &corev1.PodCondition{Type: "PodScheduled", Status: "False", Reason: "Unschedulable", Message: message, LastTransitionTime: timestamppb.New(now.Truncate(time.Second))}
	if was := kind.PodCondition(p, c.Type); was != nil {
		if was.GetStatus() == c.Status {
			c.LastTransitionTime = was.GetLastTransitionTime()
		}
		p.Status.Conditions = slices.DeleteFunc(p.Status.Conditions, func(o *corev1.PodCondition) bool { return o == was })
	}
	p.Status.Conditions = append(p.Status.Conditions, c)
}
