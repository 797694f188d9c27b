package nodes

import (
	"context"
	"fmt"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// eviction deletes pods from nodes with NoExecute taints, when their toleration runs out.
type eviction struct {
	client *client.Client
	nodes  *client.Informer[*corev1.Node]
	pods   *client.Informer[*corev1.Pod]
	events *events.Recorder
	after  time.Duration
}

func (e *eviction) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	node, ok := e.nodes.Get("", key.Name)
	if !ok {
		return controller.Result{}, nil
	}
	var taints []*corev1.Taint
	for _, t := range node.GetSpec().GetTaints() {
		if t.GetEffect() == noExecute {
			taints = append(taints, t)
		}
	}
	if len(taints) == 0 {
		return controller.Result{}, nil
	}
	var next time.Duration
	for _, p := range e.pods.ByIndex(byNode, key.Name) {
		if p.GetMetadata().GetDeletionTimestamp() != nil || kind.IsPodFinished(p) {
			continue
		}
		at, evicted := evictionTime(p.GetSpec().GetTolerations(), taints, e.after)
		if !evicted {
			continue
		}
		if left := time.Until(at); left > 0 {
			if next == 0 || left < next {
				next = left
			}
			continue
		}
		m := p.GetMetadata()
		_, err := client.Delete[*corev1.Pod](ctx, e.client, m.GetNamespace(), m.GetName(), client.IfUID(m.GetUid()))
		switch {
		case apierr.IsNotFound(err) || apierr.IsConflict(err):
		case err != nil:
			return controller.Result{}, fmt.Errorf("evict pod %s/%s: %w", m.GetNamespace(), m.GetName(), err)
		default:
			e.events.Event(p, events.Normal, "TaintManagerEviction", "Marking for deletion Pod %s/%s", m.GetNamespace(), m.GetName())
		}
	}
	return controller.Result{RequeueAfter: next}, nil
}

// evictionTime is when a pod must leave a node with the given NoExecute taints: the earliest over the taints; false when
// it tolerates all of them for good. A pod that names no toleration for a taint of this service stays for the default
// time, as Kubernetes' admission would have written into it; any other untolerated taint evicts at once.
func evictionTime(tolerations []*corev1.Toleration, taints []*corev1.Taint, byDefault time.Duration) (at time.Time, evicted bool) {
	for _, taint := range taints {
		leave, forGood := leaveAt(tolerations, taint, byDefault)
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
		if !kind.Tolerates(t, taint) {
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
	case taint.GetKey() == taintNotReady || taint.GetKey() == taintUnreachable:
		return taint.GetTimeAdded().AsTime().Add(byDefault), false
	}
	return time.Time{}, false
}
