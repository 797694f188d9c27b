package statefulset

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// world is a cluster with one set. Controllers act on it through plans, of which a crash may cut
// off any step, and agents and users change it in between.
type world struct {
	t         *testing.T
	r         *rand.Rand
	set       *appsv1.StatefulSet
	pods      map[string]*corev1.Pod
	claims    map[string]*corev1.PersistentVolumeClaim
	revisions map[string]revision
	uids      int
	now       time.Time
	log       []string
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%v", fmt.Sprintf(format, args...), w.log[max(0, len(w.log)-30):])
}

func (w *world) state() state {
	s := state{
		set: w.set, pods: slices.Collect(maps.Values(w.pods)), now: w.now,
		claims: func(name string) (*corev1.PersistentVolumeClaim, bool) { c, ok := w.claims[name]; return c, ok },
	}
	s.update = w.revisions[w.set.GetStatus().GetUpdateRevision()]
	s.current = s.update
	if r, ok := w.revisions[w.set.GetStatus().GetCurrentRevision()]; ok {
		s.current = r
	}
	return s
}

// reconcile plans, takes the steps up to a crash, and writes the status unless it crashed.
func (w *world) reconcile(mayCrash bool) (steps int) {
	s := w.state()
	planned := plan(s)
	for i, step := range planned {
		if mayCrash && w.r.IntN(4) == 0 {
			w.note("crash before step %d of %s", i, text(planned))
			return len(planned)
		}
		w.take(s, step, mayCrash)
	}
	w.set.Status, _ = newStatus(w.state(), 0)
	return len(planned)
}

func (w *world) take(s state, step step, mayCrash bool) {
	for _, c := range step.newClaims {
		if mayCrash && w.r.IntN(8) == 0 {
			return // A crash between a claim and its pod.
		}
		w.claims[c.GetMetadata().GetName()] = c
	}
	for _, o := range step.owners {
		o.claim.Metadata.OwnerReferences = o.owners
	}
	if step.blocked != "" {
		return
	}
	name := step.pod.GetMetadata().GetName()
	switch step.verb {
	case create:
		w.note("create %s:%s", name, revisionOf(step.pod))
		w.checkCreate(s, step.pod)
		w.uids++
		step.pod.Metadata.Uid = fmt.Sprint("uid-", w.uids)
		step.pod.Status = &corev1.PodStatus{Phase: "Pending", Conditions: []*corev1.PodCondition{{Type: "Ready", Status: "False"}}}
		w.pods[name] = step.pod
	case remove:
		w.note("delete %s:%s", name, revisionOf(step.pod))
		if now := w.pods[name]; now != nil && now.GetMetadata().GetUid() == step.pod.GetMetadata().GetUid() {
			w.checkDelete(s, now)
			now.Metadata.DeletionTimestamp = timestamppb.New(w.now)
		}
	}
}

// checkCreate checks what holds whenever a pod is created.
func (w *world) checkCreate(s state, pod *corev1.Pod) {
	name := pod.GetMetadata().GetName()
	if w.pods[name] != nil {
		w.fail("%s is created, though it exists", name)
	}
	ordinal, _ := ordinalOf(w.set, pod)
	p := newPlanner(s)
	for i, other := range p.replicas {
		if ordered := w.set.GetSpec().GetPodManagementPolicy() == apps.OrderedReady; ordered && p.start()+i < ordinal && p.isUnavailable(other) {
			w.fail("%s is created, though pod %d is not available", name, p.start()+i)
		}
	}
	for _, v := range pod.GetSpec().GetVolumes() {
		if w.claims[v.GetVolumeSource().GetPersistentVolumeClaim().GetClaimName()] == nil {
			w.fail("%s is created without its claim", name)
		}
	}
}

// checkDelete checks what holds whenever a pod is deleted with OrderedReady: a surplus pod is the
// highest one that is left, and a pod that is replaced is the only one that ends.
func (w *world) checkDelete(s state, pod *corev1.Pod) {
	p := newPlanner(s)
	if w.set.GetSpec().GetPodManagementPolicy() != apps.OrderedReady || p.maxUnavailable() > 1 {
		return
	}
	name, surplus := pod.GetMetadata().GetName(), slices.Contains(p.surplus, pod)
	if surplus && p.surplus[0] != pod {
		w.fail("%s is deleted before %s", name, p.surplus[0].GetMetadata().GetName())
	}
	for other, o := range w.pods {
		if !surplus && o != pod && o.GetMetadata().GetDeletionTimestamp() != nil && !isFinished(pod) {
			w.fail("%s is deleted while %s ends", name, other)
		}
	}
}

func isFinished(p *corev1.Pod) bool {
	return p.GetStatus().GetPhase() == "Failed" || p.GetStatus().GetPhase() == "Succeeded"
}

// live is what agents do to a pod.
func (w *world) live(name string, healthy bool) {
	p := w.pods[name]
	ready := func(phase, status string) {
		p.Status.Phase, p.Status.Conditions[0].Status = phase, status
		p.Status.Conditions[0].LastTransitionTime = timestamppb.New(w.now)
	}
	switch n := w.r.IntN(10); {
	case p.GetMetadata().GetDeletionTimestamp() != nil:
		if healthy || n < 4 {
			delete(w.pods, name)
		}
	case isFinished(p):
	case healthy:
		if p.GetStatus().GetConditions()[0].GetStatus() != "True" {
			ready("Running", "True")
		}
	case n < 5:
		ready("Running", "True")
	case n < 7:
		ready("Running", "False")
	case n == 7:
		ready("Failed", "False")
	}
}

// disturb is what users do to the set and its pods.
func (w *world) disturb() {
	spec := w.set.GetSpec()
	switch w.r.IntN(8) {
	case 0:
		n := w.r.Int32N(5)
		spec.Replicas = &n
		w.note("scale to %d", n)
	case 1:
		name := fmt.Sprint("r", len(w.revisions))
		w.revisions[name] = revision{name, spec.GetTemplate()}
		w.set.Status.UpdateRevision = name
		w.note("update to %s", name)
	case 2:
		if u := spec.GetUpdateStrategy().GetRollingUpdate(); u != nil {
			n := w.r.Int32N(3)
			u.Partition = &n
			w.note("partition %d", n)
		}
	case 3:
		for name, p := range w.pods {
			p.Metadata.DeletionTimestamp = timestamppb.New(w.now)
			w.note("someone deletes %s", name)
			break
		}
	}
}

// TestModel plays random histories, with a crash after any write, and expects that no number ever
// has two pods, that OrderedReady keeps its order, and that the set is whole in the end.
func TestModel(t *testing.T) {
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		edits := []func(*appsv1.StatefulSetSpec){claimed, from(r.Int32N(3))}
		if seed%3 == 0 {
			edits = append(edits, parallel)
		}
		w := &world{
			t: t, r: r, set: set(r.Int32N(5), edits...), pods: map[string]*corev1.Pod{}, claims: map[string]*corev1.PersistentVolumeClaim{},
			revisions: map[string]revision{}, now: now,
		}
		w.revisions["r0"] = revision{"r0", w.set.GetSpec().GetTemplate()}
		w.set.Status = &appsv1.StatefulSetStatus{UpdateRevision: "r0"}
		if seed%2 == 0 {
			w.set.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable = object.Count(1 + r.Int32N(3))
		}
		for range 150 {
			w.now = w.now.Add(time.Second)
			if r.IntN(4) == 0 {
				w.disturb()
			}
			for _, name := range slices.Sorted(maps.Keys(w.pods)) {
				if r.IntN(2) == 0 {
					w.live(name, false)
				}
			}
			w.reconcile(true)
		}
		w.settle()
	}
}

// settle lets every pod become ready and expects the set to be whole.
func (w *world) settle() {
	for range 60 {
		w.now = w.now.Add(time.Second)
		for _, name := range slices.Sorted(maps.Keys(w.pods)) {
			w.live(name, true)
		}
		w.reconcile(false)
	}
	if n := w.reconcile(false); n > 0 {
		w.fail("steps go on: %s", text(plan(w.state())))
	}
	p := newPlanner(w.state())
	partition := int(w.set.GetSpec().GetUpdateStrategy().GetRollingUpdate().GetPartition())
	for i, pod := range p.replicas {
		if p.isUnavailable(pod) || i >= partition && revisionOf(pod) != w.set.GetStatus().GetUpdateRevision() {
			w.fail("in the end pod %d is missing, unavailable or of an old revision: %v", i, pod)
		}
	}
	if len(p.surplus) > 0 {
		w.fail("in the end %d pods are left over", len(p.surplus))
	}
}
