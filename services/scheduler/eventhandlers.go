package scheduler

import (
	"maps"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// nodeChanged follows the nodes informer. A node with an invalid quantity is left out.
func (l *loop) nodeChanged(old, node *corev1.Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if node == nil {
		now := time.Now()
		if n := l.cache.Snapshot().Node(old.GetMetadata().GetName()); n != nil {
			l.endNominations(n, func(*framework.Pod) bool { return true }, now)
		}
		l.move(l.cache.DeleteNode(old.GetMetadata().GetName()), now)
		return
	}
	event, err := l.cache.SetNode(node)
	if err != nil {
		l.log.Error("Node ignored", zap.Error(err))
		l.cache.DeleteNode(node.GetMetadata().GetName())
		return
	}
	l.move(event, time.Now())
}

// namespaceChanged follows the namespaces informer.
func (l *loop) namespaceChanged(old, ns *corev1.Namespace) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ns == nil {
		l.move(l.cache.SetNamespace(old.GetMetadata().GetName(), nil), time.Now())
		return
	}
	l.move(l.cache.SetNamespace(ns.GetMetadata().GetName(), labelsOf(ns)), time.Now())
}

// labelsOf returns the labels of a namespace, which are not nil when it exists.
func labelsOf(ns *corev1.Namespace) map[string]string {
	if l := ns.GetMetadata().GetLabels(); l != nil {
		return l
	}
	return map[string]string{}
}

// serviceChanged follows the services informer. Services only matter to the spread by defaults, for
// which no pod waits.
func (l *loop) serviceChanged(old, service *corev1.Service) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := service.GetMetadata()
	if service == nil {
		m = old.GetMetadata()
	}
	l.cache.SetService(m.GetNamespace(), m.GetName(), service.GetSpec().GetSelector())
}

// budgetChanged notes a PodDisruptionBudget.
func (l *loop) budgetChanged(old, budget *policyv1.PodDisruptionBudget) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := budget.GetMetadata()
	if budget == nil {
		m = old.GetMetadata()
		l.cache.SetBudget(m.GetNamespace(), m.GetName(), nil)
		return
	}
	l.cache.SetBudget(m.GetNamespace(), m.GetName(), framework.NewBudget(budget))
}

// podChanged follows the pods informer.
func (l *loop) podChanged(old, pod *corev1.Pod) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if pod == nil || core.IsPodFinished(pod) {
		uid := old.GetMetadata().GetUid()
		if pod != nil {
			uid = pod.GetMetadata().GetUid()
		}
		l.forget(uid)
		l.admit(l.groups.DeletePod(uid), now)
		l.move(l.cache.DeletePod(uid), now)
		l.move(l.cache.EndNomination(uid), now)
		return
	}
	p, err := framework.NewPod(pod)
	if err != nil {
		l.log.Error("Pod ignored", zap.String(metrics.KeyObject, client.KeyOf(pod).String()), zap.Error(err))
		return
	}
	switch {
	case p.Node != "":
		l.forget(p.UID)
		l.move(l.cache.SetPod(p), now)
		l.placed(l.groups.SetPod(p), now)
	case !l.serves(pod):
		l.forget(p.UID)
		l.admit(l.groups.DeletePod(p.UID), now)
		l.move(l.cache.EndNomination(p.UID), now)
	default:
		l.noteNomination(old, p, now)
		// A change of the status alone, such as this scheduler's own condition, does not make the pod
		// fit.
		if old == nil || old.GetMetadata().GetGeneration() != pod.GetMetadata().GetGeneration() ||
			!maps.Equal(old.GetMetadata().GetLabels(), pod.GetMetadata().GetLabels()) {
			l.enqueue(p, now)
		}
	}
}

// enqueue lets a pod wait for a node, or for its group.
func (l *loop) enqueue(p *framework.Pod, now time.Time) {
	g := l.groups.SetPod(p)
	if g == nil || l.queue.Has(p.UID) {
		l.queue.Add(p, now)
		l.wake()
	}
	l.admit(g, now)
}

// serves reports whether a pod without a node is this scheduler's to place now.
func (l *loop) serves(p *corev1.Pod) bool {
	return l.profiles[p.GetSpec().GetSchedulerName()] != nil && isPlaceable(p)
}

func isPlaceable(p *corev1.Pod) bool {
	return p.GetMetadata().GetDeletionTimestamp() == nil && len(p.GetSpec().GetSchedulingGates()) == 0
}

// forget drops a pod that needs no node any more.
func (l *loop) forget(uid string) {
	l.queue.Remove(uid)
	l.reporter.forget(uid)
}

// move makes the pods ready that an event can help.
func (l *loop) move(e framework.Event, now time.Time) {
	if e.Kind != 0 {
		l.queue.Move(e, now)
		l.wake()
	}
}
