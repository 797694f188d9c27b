package statefulset

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// revision is a template with the name of the ControllerRevision that holds it.
type revision struct {
	name     string
	template *corev1.PodTemplateSpec
}

// state is what a plan is made from.
type state struct {
	set *appsv1.StatefulSet
	// current is the revision of pods that are not updated yet, update that of the set's template.
	// They are the same when no update is in progress.
	current, update revision
	// pods are all pods that the set controls.
	pods []*corev1.Pod
	// claims are the claims of the set's namespace, by name.
	claims func(name string) (*corev1.PersistentVolumeClaim, bool)
	now    time.Time
}

// verb is what a step does with its pod.
type verb string

const (
	none    verb = ""
	create  verb = "Create"
	remove  verb = "Delete"
	relabel verb = "Update"
)

// step is what one pod needs. Its claims come first: a step whose claims cannot be written leaves
// the pod as it is.
type step struct {
	pod  *corev1.Pod
	verb verb
	// newClaims are claims to create, owners changes of the owners of claims.
	newClaims []*corev1.PersistentVolumeClaim
	owners    []ownership
	// blocked says why the pod cannot be created now.
	blocked string
}

// planner makes the steps of one reconcile.
type planner struct {
	state
	// replicas are the pods of the wanted numbers, nil for one that is missing; surplus the others,
	// of the highest number first.
	replicas, surplus []*corev1.Pod
	steps             []step
}

// plan returns the next steps from any state, in order. With OrderedReady, a pod is created when
// all before it are available, and surplus pods are deleted one by one from the highest number,
// when all others are available. With Parallel both happen at once. In both cases pods of another
// revision are replaced from the highest number, as availability allows.
func plan(s state) []step {
	p := newPlanner(s)
	if s.set.GetMetadata().GetDeletionTimestamp() != nil {
		return nil
	}
	ordered := s.set.GetSpec().GetPodManagementPolicy() != apps.Parallel
	for i := range p.replicas {
		if wait := p.replica(i); wait && ordered {
			return p.steps
		}
	}
	for _, pod := range p.surplus {
		if owners := p.owners(pod, p.ordinal(pod), true, false); len(owners) > 0 {
			p.steps = append(p.steps, step{pod: pod, owners: owners})
		}
	}
	unavailable := p.firstUnavailable()
	for _, pod := range p.surplus {
		p.shrink(pod, ordered, unavailable)
		if ordered {
			return p.steps
		}
	}
	if s.set.GetSpec().GetUpdateStrategy().GetType() != apps.StrategyOnDelete {
		p.replace()
	}
	return p.steps
}

func newPlanner(s state) *planner {
	p := &planner{state: s, replicas: make([]*corev1.Pod, s.set.GetSpec().GetReplicas())}
	for _, pod := range s.pods {
		ordinal, ok := ordinalOf(s.set, pod)
		if !ok {
			continue
		}
		if i := ordinal - p.start(); i >= 0 && i < len(p.replicas) {
			p.replicas[i] = pod
		} else {
			p.surplus = append(p.surplus, pod)
		}
	}
	slices.SortFunc(p.surplus, func(a, b *corev1.Pod) int { return cmp.Compare(p.ordinal(b), p.ordinal(a)) })
	return p
}

func (p *planner) start() int { return int(p.set.GetSpec().GetOrdinals().GetStart()) }

func (p *planner) ordinal(pod *corev1.Pod) int {
	n, _ := ordinalOf(p.set, pod)
	return n
}

// replica plans what the pod of an index needs. It reports whether those after it have to wait.
func (p *planner) replica(i int) (wait bool) {
	pod, ordinal := p.replicas[i], p.start()+i
	switch {
	case pod == nil:
		p.create(i, ordinal)
		return true
	case core.IsPodFinished(pod):
		// The one in its place can be created when it is gone.
		if pod.GetMetadata().GetDeletionTimestamp() == nil {
			p.steps = append(p.steps, step{pod: pod, verb: remove})
		}
		return true
	}
	s := step{pod: pod, owners: p.owners(pod, ordinal, false, false)}
	if pod.GetStatus().GetPhase() == core.PodPending {
		s.newClaims, _ = p.missingClaims(pod, ordinal) // Someone may have deleted one that the pod waits for.
	}
	m := pod.GetMetadata()
	if m.GetDeletionTimestamp() == nil && m.GetLabels()[apps.LabelStatefulSetPodName] != m.GetName() {
		s.verb = relabel
	}
	if s.verb != none || len(s.owners)+len(s.newClaims) > 0 {
		p.steps = append(p.steps, s)
	}
	return p.isUnavailable(pod)
}

// create plans a pod that is missing, unless its claims go with a former pod.
func (p *planner) create(i, ordinal int) {
	pod := newPod(p.set, p.revisionAt(i), ordinal)
	s := step{pod: pod, verb: create, owners: p.owners(pod, ordinal, false, true)}
	for _, t := range p.set.GetSpec().GetVolumeClaimTemplates() {
		claim, ok := p.claims(claimName(p.set, t, ordinal))
		if !ok {
			continue
		}
		deletes := p.set.GetSpec().GetPersistentVolumeClaimRetentionPolicy().GetWhenScaled() == apps.DeleteClaims
		if deletes && isStale(claim.GetMetadata().GetOwnerReferences(), pod) {
			return // The collector deletes it.
		}
	}
	s.newClaims, s.blocked = p.missingClaims(pod, ordinal)
	p.steps = append(p.steps, s)
}

// missingClaims are the claims of a pod that do not exist. blocked names one that is being deleted.
func (p *planner) missingClaims(pod *corev1.Pod, ordinal int) (missing []*corev1.PersistentVolumeClaim, blocked string) {
	seen := map[string]bool{}
	for _, t := range p.set.GetSpec().GetVolumeClaimTemplates() {
		name := claimName(p.set, t, ordinal)
		claim, ok := p.claims(name)
		switch {
		case seen[name]:
		case !ok:
			claim = newClaim(p.set, t, ordinal)
			claim.Metadata.OwnerReferences, _ = claimOwners(claim.GetMetadata().GetOwnerReferences(), p.set, pod, false)
			missing = append(missing, claim)
		case claim.GetMetadata().GetDeletionTimestamp() != nil:
			blocked = fmt.Sprintf("pvc %s is being deleted", name)
		}
		seen[name] = true
	}
	return missing, blocked
}

// owners are the changes of the owners of a pod's claims. With conflicts, claims that another
// controller has are among them though nothing changes.
func (p *planner) owners(pod *corev1.Pod, ordinal int, surplus, conflicts bool) []ownership {
	var changes []ownership
	for _, t := range p.set.GetSpec().GetVolumeClaimTemplates() {
		claim, ok := p.claims(claimName(p.set, t, ordinal))
		if !ok {
			continue
		}
		has := claim.GetMetadata().GetOwnerReferences()
		wanted, conflict := claimOwners(has, p.set, pod, surplus)
		if !sameOwners(has, wanted) || conflict && conflicts {
			changes = append(changes, ownership{claim, wanted, conflict})
		}
	}
	return changes
}

// revisionAt is the revision that a new pod of an index gets.
func (p *planner) revisionAt(i int) revision {
	strategy := p.set.GetSpec().GetUpdateStrategy()
	kept := 0
	switch r := strategy.GetRollingUpdate(); {
	case r != nil:
		kept = int(r.GetPartition())
	case strategy.GetType() == apps.StrategyRollingUpdate:
		kept = int(p.set.GetStatus().GetCurrentReplicas())
	}
	if i < kept {
		return p.current
	}
	return p.update
}

// shrink plans the deletion of a surplus pod. With OrderedReady the lowest pod that is not
// available holds up the others that are not; one that has
// ended never becomes available and is deleted all the same.
func (p *planner) shrink(pod *corev1.Pod, ordered bool, unavailable *corev1.Pod) {
	waits := ordered && p.isUnavailable(pod) && pod != unavailable && !core.IsPodFinished(pod)
	if pod.GetMetadata().GetDeletionTimestamp() == nil && !waits {
		p.steps = append(p.steps, step{pod: pod, verb: remove})
	}
}

// firstUnavailable is the pod of the lowest number that is not available, nil when there is none.
func (p *planner) firstUnavailable() *corev1.Pod {
	for _, pod := range p.replicas {
		if pod != nil && p.isUnavailable(pod) {
			return pod
		}
	}
	for _, pod := range slices.Backward(p.surplus) {
		if p.isUnavailable(pod) {
			return pod
		}
	}
	return nil
}

// isUnavailable reports whether a pod is missing, ends, or has not been ready for minReadySeconds.
func (p *planner) isUnavailable(pod *corev1.Pod) bool {
	if pod == nil || !podcontrol.IsActive(pod) {
		return true
	}
	wait, ready := podcontrol.AvailableIn(pod, p.set.GetSpec().GetMinReadySeconds(), p.now)
	return !ready || wait > 0
}

// replace plans the deletion of pods of another revision, from the highest number down to the
// partition.
//
// Without maxUnavailable one pod is replaced at a time, and an unavailable one of the new revision
// holds up those of lower numbers, as in Kubernetes. With it, all unavailable pods of the set
// count; one of an old revision is deleted all the same, since it does not get worse. Kubernetes
// 1.36 waits for it if the feature is enabled, so that a broken revision stays.
func (p *planner) replace() {
	rolling := p.set.GetSpec().GetUpdateStrategy().GetRollingUpdate()
	budget := p.maxUnavailable()
	if rolling.GetMaxUnavailable() != nil {
		for _, pod := range p.replicas {
			if p.isUnavailable(pod) {
				budget--
			}
		}
	}
	for i := len(p.replicas) - 1; i >= int(rolling.GetPartition()); i-- {
		pod := p.replicas[i]
		old := pod != nil && pod.GetMetadata().GetDeletionTimestamp() == nil && revisionOf(pod) != p.update.name
		down := p.isUnavailable(pod)
		switch {
		case rolling.GetMaxUnavailable() == nil && !old && down:
			return
		case !old:
		case rolling.GetMaxUnavailable() != nil && down:
			p.delete(pod)
		case budget > 0:
			p.delete(pod)
			budget--
		}
		if rolling.GetMaxUnavailable() == nil && budget == 0 {
			return
		}
	}
}

// delete plans the deletion of a pod that no other step deletes.
func (p *planner) delete(pod *corev1.Pod) {
	if !slices.ContainsFunc(p.steps, func(s step) bool { return s.pod == pod && s.verb == remove }) {
		p.steps = append(p.steps, step{pod: pod, verb: remove})
	}
}

// maxUnavailable is how many pods may be unavailable during an update: 1 at least.
func (p *planner) maxUnavailable() int {
	v := p.set.GetSpec().GetUpdateStrategy().GetRollingUpdate().GetMaxUnavailable()
	n, err := object.ScaledValue(v, p.set.GetSpec().GetReplicas(), false)
	if err != nil {
		return 1 // Validation refuses such a value.
	}
	return max(int(n), 1)
}
