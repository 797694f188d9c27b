package nodes

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// eviction deletes pods from nodes with NoExecute taints, when their toleration runs out. From a
// node that is unreachable it does so only when a second opinion agrees.
type eviction struct {
	client *client.Client
	nodes  *client.Informer[*corev1.Node]
	pods   *client.Informer[*corev1.Pod]
	events *events.Recorder
	after  patience
	// reach has the second opinions, which doubt asks for. Both are nil when there are none to be had.
	reach *reachability
	doubt func(controller.Key)
	// notBefore is when the first pod is evicted from a node for being lost, in this term of
	// leadership. A term begins with what the one before, or a backup that was restored, left behind:
	// nodes that are back are heard of within seconds.
	notBefore time.Time

	mu sync.Mutex
	// seen is, by node and taint, when a taint without a time was first seen, in this term of
	// leadership.
	seen map[string]map[string]time.Time
}

func (e *eviction) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	node, _ := e.nodes.Get("", key.Name)
	taints := e.timed(key.Name, noExecuteTaints(node))
	if e.reach != nil && !slices.ContainsFunc(taints, isUnreachable) {
		e.reach.forget(key.Name)
	}
	if len(taints) == 0 {
		return controller.Result{}, nil
	}
	var next time.Duration
	// The informer may be behind, and what is evicted does not come back.
	writer := e.client.WithConditions(client.AtRevision(node))
	for _, p := range e.pods.ByIndex(byNode, key.Name) {
		if p.GetMetadata().GetDeletionTimestamp() != nil || core.IsPodFinished(p) {
			continue
		}
		left, evicted := e.left(node, taints, p)
		if !evicted {
			continue
		}
		if left > 0 {
			if next == 0 || left < next {
				next = left
			}
			continue
		}
		m := p.GetMetadata()
		opts := []client.DeleteOption{client.IfUID(m.GetUid())}
		if s := p.GetSpec(); s.TerminationGracePeriodSeconds != nil && s.GetTerminationGracePeriodSeconds() == 0 {
			// Without any grace the object would be gone at once, and its name free while the pod may still
			// run.
			opts = append(opts, client.GracePeriod(1))
		}
		err := disrupt(ctx, writer, p, core.DeletionByTaintManager, "Taint manager: deleting due to NoExecute taint", false)
		if err == nil {
			_, err = client.Delete[*corev1.Pod](ctx, writer, m.GetNamespace(), m.GetName(), opts...)
		}
		switch {
		case apierr.IsConditionFailed(err):
			return controller.Result{RequeueAfter: time.Second}, nil // the informer's news come first
		case apierr.IsNotFound(err) || apierr.IsConflict(err):
		case err != nil:
			return controller.Result{}, fmt.Errorf("evict pod %s/%s: %w", m.GetNamespace(), m.GetName(), err)
		default:
			e.events.Event(p, events.Normal, "TaintManagerEviction", "Marking for deletion Pod %s/%s", m.GetNamespace(), m.GetName())
		}
	}
	return controller.Result{RequeueAfter: next}, nil
}

// left returns how long a pod stays on a node with these NoExecute taints, or until there is more
// to know; false when it tolerates them for good. It has others asked about a node whose being
// unreachable is all that there is against it.
func (e *eviction) left(node *corev1.Node, taints []*corev1.Taint, p *corev1.Pod) (left time.Duration, evicted bool) {
	tolerations := p.GetSpec().GetTolerations()
	at, evicted := evictionTime(tolerations, taints, e.after, e.notBefore)
	if !evicted || e.reach == nil || !canAsk(node) {
		return time.Until(at), evicted
	}
	name := node.GetMetadata().GetName()
	o := e.reach.of(name)
	if renewed := o.answered.Add(heartbeatTTL + e.after.unreachable); !o.answered.IsZero() && at.Before(renewed) {
		at = renewed
	}
	left = time.Until(at)
	ask := left - answerWindow
	if !o.answered.IsZero() {
		ask = min(ask, time.Until(o.ended.Add(askAgain)))
	}
	switch {
	case ask > time.Second:
		left = ask
	case o.asked.After(at.Add(-answerWindow-2*time.Second)) && time.Since(o.asked) < opinionLife:
		// It does not answer.
	default:
		e.doubt(controller.Key{Name: name})
		left = opinionLife // what is found out brings the node back here before that
	}
	others := slices.DeleteFunc(slices.Clone(taints), isUnreachable)
	if by, evicted := evictionTime(tolerations, others, e.after, e.notBefore); evicted {
		left = min(left, time.Until(by))
	}
	return left, true
}

func isUnreachable(t *corev1.Taint) bool { return t.GetKey() == taintUnreachable }

func noExecuteTaints(node *corev1.Node) []*corev1.Taint {
	var taints []*corev1.Taint
	for _, t := range node.GetSpec().GetTaints() {
		if t.GetEffect() == noExecute {
			taints = append(taints, t)
		}
	}
	return taints
}

// timed gives taints that came without a time, which people need not write, the time when they were
// first seen.
func (e *eviction) timed(node string, taints []*corev1.Taint) []*corev1.Taint {
	e.mu.Lock()
	defer e.mu.Unlock()
	before, now := e.seen[node], map[string]time.Time{}
	timed := slices.Clone(taints)
	for i, t := range timed {
		if t.GetTimeAdded() != nil {
			continue
		}
		id := t.GetKey() + "=" + t.GetValue()
		since, ok := before[id]
		if !ok {
			since = time.Now()
		}
		now[id] = since
		timed[i] = &corev1.Taint{Key: t.GetKey(), Value: t.GetValue(), Effect: t.GetEffect(), TimeAdded: timestamppb.New(since)}
	}
	if len(now) == 0 {
		delete(e.seen, node)
	} else {
		e.seen[node] = now
	}
	return timed
}

// patience is how long pods that name no toleration stay on a node with a taint of this service.
type patience struct{ unreachable, notReady time.Duration }

func (p patience) with(taint *corev1.Taint) time.Duration {
	if isUnreachable(taint) {
		return p.unreachable
	}
	return p.notReady
}

// evictionTime is when a pod must leave a node with the given NoExecute taints: the earliest over
// the taints; false when it tolerates all of them for good. A pod that names no toleration for a
// taint of this service stays for the default time, as Kubernetes' admission would have written
// into it; any other untolerated taint evicts at once. For a taint of this service it is never
// before notBefore.
func evictionTime(
	tolerations []*corev1.Toleration, taints []*corev1.Taint, byDefault patience, notBefore time.Time,
) (at time.Time, evicted bool) {
	for _, taint := range taints {
		leave, forGood := leaveAt(tolerations, taint, byDefault.with(taint))
		if isOwn(taint) && leave.Before(notBefore) {
			leave = notBefore
		}
		if !forGood && (!evicted || leave.Before(at)) {
			at, evicted = leave, true
		}
	}
	return at, evicted
}

func leaveAt(tolerations []*corev1.Toleration, taint *corev1.Taint, byDefault time.Duration) (at time.Time, forGood bool) {
	tolerated, limited := false, false
	var shortest time.Duration
	for _, t := range tolerations {
		if !core.Tolerates(t, taint) {
			continue
		}
		tolerated = true
		if t.TolerationSeconds == nil {
			continue
		}
		if d := time.Duration(max(t.GetTolerationSeconds(), 0)) * time.Second; !limited || d < shortest {
			shortest, limited = d, true
		}
	}
	switch {
	case limited:
		return taint.GetTimeAdded().AsTime().Add(shortest), false
	case tolerated:
		return time.Time{}, true
	case isOwn(taint):
		return taint.GetTimeAdded().AsTime().Add(byDefault), false
	}
	return time.Time{}, false
}

// isOwn says whether a taint is one that this service gives to nodes.
func isOwn(t *corev1.Taint) bool {
	return t.GetKey() == taintNotReady || t.GetKey() == taintUnreachable
}
