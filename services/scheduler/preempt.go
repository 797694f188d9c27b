package scheduler

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/preemption"
)

// makeRoom does what preemption decided for a pod that fits on no node. The decision counts at once
// for the pods after it: the pod is nominated for the node, and the victims are known to leave it.
func (l *loop) makeRoom(p *framework.Pod, unfit *framework.FitError, now time.Time) {
	room := unfit.Room
	if room.Waits {
		return
	}
	if room.Node == "" {
		l.move(l.cache.EndNomination(p.UID), now)
		return
	}
	l.move(l.cache.Nominate(p, room.Node), now)
	s := l.cache.Snapshot()
	l.endNominations(s.NominatedNode(p.UID), func(o *framework.Pod) bool { return o.Priority < p.Priority }, now)
	t := preemption.Task{Pod: p, Message: unfit.Error(), Node: room.Node}
	for _, v := range room.Victims {
		if !v.Deleting && !s.IsPreempted(v) {
			t.Victims = append(t.Victims, v)
			l.cache.SetPreempted(v.UID, true)
		}
	}
	l.preemptions = append(l.preemptions, t)
}

// endNominations ends nominations for a node, and lets the pods find another one.
func (l *loop) endNominations(n *framework.Node, which func(*framework.Pod) bool, now time.Time) {
	for _, p := range slices.Clone(n.Nominated) {
		if !which(p) {
			continue
		}
		l.cache.EndNomination(p.UID)
		l.reporter.clearNomination(p)
		l.queue.Activate(p.UID, now)
		l.wake()
	}
}

// noteNomination follows status.nominatedNodeName of a waiting pod. What the scheduler has decided
// since it was written counts until it changes.
func (l *loop) noteNomination(old *corev1.Pod, p *framework.Pod, now time.Time) {
	node := p.NominatedNode
	if old.GetStatus().GetNominatedNodeName() == node {
		n := l.cache.Snapshot().NominatedNode(p.UID)
		if n == nil {
			return
		}
		node = n.Name
	}
	if node == "" {
		l.move(l.cache.EndNomination(p.UID), now)
		return
	}
	l.move(l.cache.Nominate(p, node), now)
}

// takePreemptions returns the preemptions that have not begun.
func (l *loop) takePreemptions() []preemption.Task {
	l.mu.Lock()
	defer l.mu.Unlock()
	tasks := l.preemptions
	l.preemptions = nil
	return tasks
}

// preempted is called with the outcome of each preemption. Informers show what becomes of victims
// that are being deleted; after a failure the pod is tried again.
func (l *loop) preempted(t preemption.Task, deleted bool, err error) {
	if deleted {
		return
	}
	if err != nil {
		l.log.Warn("Preemption failed", zap.String(metrics.KeyObject, nameOf(t.Pod)), zap.String(metrics.KeyNode, t.Node), zap.Error(err))
		l.reporter.preemptionFailed(t.Pod, t.Message)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range t.Victims {
		l.cache.SetPreempted(v.UID, false)
	}
	// Pods that were nominated after it may wait for the same victims.
	now := time.Now()
	l.queue.Activate(t.Pod.UID, now)
	if n := l.cache.Snapshot().Node(t.Node); n != nil {
		for _, p := range n.Nominated {
			l.queue.Activate(p.UID, now)
		}
	}
	l.wake()
}
