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
	l.displace(p, now)
	s := l.cache.Snapshot()
	t := preemption.Task{Pod: p, Message: unfit.Error(), Node: room.Node}
	for _, v := range room.Victims {
		if !v.Deleting && !s.IsPreempted(v) {
			t.Victims = append(t.Victims, v)
			l.cache.SetPreempted(v.UID, true)
		}
	}
	l.preemptions = append(l.preemptions, t)
}

// displace takes the nominated node away from pods with lower priority, since room on it is made
// for another, and lets them find another one.
func (l *loop) displace(p *framework.Pod, now time.Time) {
	for _, o := range slices.Clone(l.cache.Snapshot().NominatedNode(p.UID).Nominated) {
		if o.Priority >= p.Priority {
			continue
		}
		l.cache.EndNomination(o.UID)
		l.reporter.clearNomination(o)
		l.queue.Activate(o.UID, now)
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
