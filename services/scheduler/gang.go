package scheduler

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/scheduling"
	"github.com/xebec-project/xebec/internal/metrics"
	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/podgroup"
	"github.com/xebec-project/xebec/services/scheduler/queue"
)

// gang is a group of which pods have nodes that they are bound to together.
type gang struct {
	group       *podgroup.Group
	assignments []framework.Assignment
	pods        map[string]*queue.Pod // by uid
}

// podGroupChanged follows the PodGroups informer.
func (l *loop) podGroupChanged(old, g *schedulingv1alpha2.PodGroup) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g == nil {
		l.admit(l.groups.Delete(old.GetMetadata().GetNamespace(), old.GetMetadata().GetName()), time.Now())
		return
	}
	l.admit(l.groups.Set(g), time.Now())
}

// admit puts the waiting pods of a group into the queue when it is ready, and takes them out when
// it is not. The group may be nil.
func (l *loop) admit(g *podgroup.Group, now time.Time) {
	if g == nil {
		return
	}
	for _, p := range g.Waiting() {
		switch {
		case !g.Ready():
			l.forget(p.UID)
		case !l.queue.Has(p.UID):
			l.queue.Add(p, now)
			l.wake()
		}
	}
}

// placed lets the other pods of a group follow one that was bound.
func (l *loop) placed(g *podgroup.Group, now time.Time) {
	if g == nil {
		return
	}
	l.admit(g, now)
	for _, p := range g.Waiting() {
		l.queue.Activate(p.UID, now)
		l.wake()
	}
}

// scheduleGang chooses nodes for the pods of a gang, of which w was taken out of the queue: for as
// many as the gang needs, or for none.
func (l *loop) scheduleGang(g *podgroup.Group, w *queue.Pod, now time.Time) {
	pods, members := l.takeMembers(g, w)
	if g.Binding || len(pods) < g.Need() {
		// The outcome of what is under way wakes the pods.
		l.refuse(members, pods, now)
		return
	}
	if err := sameScheduler(pods); err != nil {
		l.refuse(members, pods, now)
		l.reporter.gangRefused(g.Key, scheduling.GroupSchedulerError, err.Error(), pods)
		return
	}
	profile := l.profiles[w.SchedulerName]
	placement, err := podgroup.Place(profile, l.cache.Snapshot(), pods, g.Need(), client.MaxOperations)
	if err != nil {
		l.log.Warn("Reservation failed", zap.Error(err))
		for _, p := range pods {
			l.queue.Retry(members[p.UID], now)
		}
		return
	}
	l.refuse(members, placement.Others, now)
	for _, u := range placement.Unfit {
		l.queue.MarkUnschedulable(members[u.Pod.UID], u.Why.Plugins, now)
		l.reporter.report(u.Pod, u.Why)
	}
	if !placement.Fits() {
		l.reporter.gangRefused(g.Key, scheduling.GroupUnschedulable, placement.Message(), placement.Others)
		return
	}
	g.Binding = true
	l.gangs = append(l.gangs, gang{g, placement.Assignments, members})
}

// takeMembers takes the other waiting pods of a gang out of the queue. It returns all in the order
// in which they are placed, and by uid.
func (l *loop) takeMembers(g *podgroup.Group, w *queue.Pod) ([]*framework.Pod, map[string]*queue.Pod) {
	members := map[string]*queue.Pod{w.UID: w}
	var pods []*framework.Pod
	for _, p := range g.Waiting() {
		if p.UID != w.UID {
			m := l.queue.Take(p.UID)
			if m == nil {
				continue
			}
			members[p.UID] = m
		}
		pods = append(pods, members[p.UID].Pod)
	}
	return pods, members
}

// refuse lets pods wait for the others of their gang.
func (l *loop) refuse(members map[string]*queue.Pod, pods []*framework.Pod, now time.Time) {
	for _, p := range pods {
		l.queue.MarkUnschedulable(members[p.UID], []string{podgroup.Name}, now)
	}
}

// sameScheduler refuses a gang of which different schedulers would have to place pods.
func sameScheduler(pods []*framework.Pod) error {
	for _, p := range pods {
		if first := pods[0].SchedulerName; p.SchedulerName != first {
			return fmt.Errorf("all pods in a single pod group should have the same .spec.schedulerName set, got: %q and %q",
				first, p.SchedulerName)
		}
	}
	return nil
}

// takeGangs returns the gangs that are not being bound yet.
func (l *loop) takeGangs() []gang {
	l.mu.Lock()
	defer l.mu.Unlock()
	gangs := l.gangs
	l.gangs = nil
	return gangs
}

// gangBound is called with the outcome of the binding of a gang.
func (l *loop) gangBound(g gang, err error) {
	for _, a := range g.assignments {
		l.bound(g.pods[a.Pod.UID], a, err)
	}
	if err == nil {
		l.reporter.setPodGroup(groupReport{key: g.group.Key, status: condition.True, reason: scheduling.GroupScheduled})
	} else if !apierr.IsNotFound(err) && !apierr.IsConflict(err) {
		l.log.Warn("Binding of a gang failed", zap.String(metrics.KeyObject, g.group.Namespace+"/"+g.group.Name), zap.Error(err))
		l.reporter.setPodGroup(groupReport{
			key: g.group.Key, status: condition.False, reason: scheduling.GroupSchedulerError, message: "bind the pods of the group: " + err.Error(),
		})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g.group.Binding = false
	l.placed(g.group, time.Now())
}
