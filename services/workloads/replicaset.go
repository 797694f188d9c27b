package workloads

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// maxBatch is how many pods one transaction makes or deletes at most.
	maxBatch = 250
	// maxBatchBytes keeps a transaction under etcd's default request limit of 1.5 MiB.
	maxBatchBytes = 1 << 20
	// deletionCost is the annotation by which people say which pods go first: the lower, the sooner.
	deletionCost = "controller.kubernetes.io/pod-deletion-cost"
)

// replicaSets keeps as many pods as each ReplicaSet asks for.
type replicaSets struct {
	client  *client.Client
	sets    *client.Informer[*appsv1.ReplicaSet]
	pods    *client.Informer[*corev1.Pod]
	events  *events.Recorder
	pending *pending
}

// matchingOrphan gives the sets that could adopt a pod without a controller.
func (r *replicaSets) matchingOrphan(p *corev1.Pod) []controller.Key {
	if kind.ControllerOf(p) != nil || p.GetMetadata().GetDeletionTimestamp() != nil {
		return nil
	}
	var keys []controller.Key
	for _, rs := range r.sets.List() {
		if rs.GetMetadata().GetNamespace() != p.GetMetadata().GetNamespace() {
			continue
		}
		if s, err := kind.LabelSelector(rs.GetSpec().GetSelector()); err == nil && s.Matches(labels.Set(p.GetMetadata().GetLabels())) {
			keys = append(keys, client.KeyOf(rs))
		}
	}
	return keys
}

func (r *replicaSets) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	rs, ok := r.sets.Get(key.Namespace, key.Name)
	if !ok {
		r.pending.forget(key)
		return controller.Result{}, nil
	}
	if r.pending.unclear(key) {
		if err := r.lookForPods(ctx, key, rs); err != nil {
			return controller.Result{}, err
		}
	}
	// What this controller wrote and the informer has not shown yet would be done twice. The pods' own events bring the
	// key back; the timer is for events that the informer has no reason to show.
	if !r.pending.settled(key, r.pods.Revision(), func(p controller.Key, created bool) bool { return r.shows(p, rs, created) }) {
		return controller.Result{RequeueAfter: time.Second}, nil
	}
	selector, err := kind.LabelSelector(rs.GetSpec().GetSelector())
	if err != nil {
		return controller.Result{}, fmt.Errorf("selector: %w", err)
	}
	if changed, err := r.claim(ctx, key, rs, selector); changed || err != nil {
		return controller.Result{RequeueAfter: time.Second}, err
	}
	owned := r.pods.ByIndex(byOwner, rs.GetMetadata().GetUid())
	var scaleErr error
	if rs.GetMetadata().GetDeletionTimestamp() == nil {
		scaleErr = r.scale(ctx, key, rs, owned)
	}
	again, err := r.updateStatus(ctx, rs, owned, scaleErr)
	if scaleErr != nil {
		return controller.Result{}, scaleErr
	}
	return controller.Result{RequeueAfter: again}, err
}

// shows reports whether the informer shows a pod as it should be after a write: the set's, or going.
func (r *replicaSets) shows(p controller.Key, rs *appsv1.ReplicaSet, created bool) bool {
	pod, ok := r.pods.Get(p.Namespace, p.Name)
	if created {
		return ok && kind.IsControlledBy(pod, rs)
	}
	return !ok || pod.GetMetadata().GetDeletionTimestamp() != nil || !kind.IsControlledBy(pod, rs)
}

// lookForPods settles a write of unknown outcome: it asks the API, not the informer, which pods the set has, and waits
// for those that the informer lacks.
func (r *replicaSets) lookForPods(ctx context.Context, key controller.Key, rs *appsv1.ReplicaSet) error {
	pods, revision, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{Namespace: key.Namespace})
	if err != nil {
		return fmt.Errorf("look for pods of an unanswered write: %w", err)
	}
	for _, p := range pods {
		if kind.IsControlledBy(p, rs) && !r.shows(client.KeyOf(p), rs, true) {
			r.pending.created(key, revision, client.KeyOf(p))
		}
	}
	r.pending.cleared(key)
	return nil
}

// claim makes the set the controller of pods that match its selector and have none, and lets go of its own that match no
// more. It reports whether it changed any, which the informer then has to show first.
func (r *replicaSets) claim(ctx context.Context, key controller.Key, rs *appsv1.ReplicaSet, selector labels.Selector) (changed bool, err error) {
	if rs.GetMetadata().GetDeletionTimestamp() != nil {
		return false, nil
	}
	sure := false
	for _, p := range r.pods.ByIndex(byOwner, "") {
		m := p.GetMetadata()
		if m.GetNamespace() != key.Namespace || !active(p) || !selector.Matches(labels.Set(m.GetLabels())) {
			continue
		}
		// A set that was deleted and let its pods go must not take them back: they would be collected with it. The
		// informers of sets and pods need not be equally far, so the API is asked.
		if !sure {
			if sure, err = stillThere(ctx, r.client, rs); err != nil || !sure {
				return changed, err
			}
		}
		patched, err := r.patchOwners(ctx, p, append(slices.Clone(m.GetOwnerReferences()), kind.NewControllerRef(rs)))
		if err != nil {
			return changed, fmt.Errorf("adopt pod %s: %w", m.GetName(), err)
		}
		if patched != nil {
			r.pending.created(key, patched.GetMetadata().GetResourceVersion(), client.KeyOf(p))
			changed = true
		}
	}
	for _, p := range r.pods.ByIndex(byOwner, rs.GetMetadata().GetUid()) {
		m := p.GetMetadata()
		if !active(p) || selector.Matches(labels.Set(m.GetLabels())) {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(m.GetOwnerReferences()), func(o *metav1.OwnerReference) bool { return o.GetUid() == rs.GetMetadata().GetUid() })
		patched, err := r.patchOwners(ctx, p, others)
		if err != nil {
			return changed, fmt.Errorf("release pod %s: %w", m.GetName(), err)
		}
		if patched != nil {
			r.pending.deleted(key, patched.GetMetadata().GetResourceVersion(), client.KeyOf(p))
			changed = true
		}
	}
	return changed, nil
}

// stillThere asks the API whether an object that the informer shows exists and is not being deleted.
func stillThere[T kind.Object](ctx context.Context, c *client.Client, obj T) (bool, error) {
	m := obj.GetMetadata()
	live, err := client.Get[T](ctx, c, m.GetNamespace(), m.GetName())
	if apierr.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("check that it is still there: %w", err)
	}
	return live.GetMetadata().GetUid() == m.GetUid() && live.GetMetadata().GetDeletionTimestamp() == nil, nil
}

// patchOwners replaces a pod's owners if the pod is still the one seen; nil when it is gone.
func (r *replicaSets) patchOwners(ctx context.Context, p *corev1.Pod, owners []*metav1.OwnerReference) (*corev1.Pod, error) {
	patch, err := ownersPatch(p, owners)
	if err != nil {
		return nil, err
	}
	patched, err := client.Patch[*corev1.Pod](ctx, r.client, p.GetMetadata().GetNamespace(), p.GetMetadata().GetName(), patch)
	if apierr.IsNotFound(err) {
		return nil, nil
	}
	return patched, err
}

// active reports whether a pod counts as one of its set's replicas: it has not ended and is not being deleted.
func active(p *corev1.Pod) bool {
	return !kind.IsPodFinished(p) && p.GetMetadata().GetDeletionTimestamp() == nil
}

// scale creates or deletes pods until the set has as many active ones as it asks for.
func (r *replicaSets) scale(ctx context.Context, key controller.Key, rs *appsv1.ReplicaSet, owned []*corev1.Pod) error {
	var running []*corev1.Pod
	for _, p := range owned {
		if active(p) {
			running = append(running, p)
		}
	}
	want := int(rs.GetSpec().GetReplicas())
	switch {
	case len(running) < want:
		return r.create(ctx, key, rs, want-len(running))
	case len(running) > want:
		return r.remove(ctx, key, rs, pick(running, len(running)-want, r.crowding(rs)))
	}
	return nil
}

// scaleError says which half of scaling failed.
type scaleError struct {
	reason string // of the ReplicaFailure condition and of the event
	err    error
}

// Error is the cause's.
func (e *scaleError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *scaleError) Unwrap() error { return e.err }

const (
	failedCreate = "FailedCreate"
	failedDelete = "FailedDelete"
)

// create makes n pods, many in each transaction.
func (r *replicaSets) create(ctx context.Context, key controller.Key, rs *appsv1.ReplicaSet, n int) error {
	template := newPod(rs)
	batch := min(maxBatch, max(1, maxBatchBytes/(proto.Size(template)+512)))
	for n > 0 {
		ops := make([]client.Operation, min(n, batch))
		for i := range ops {
			ops[i] = client.OpCreate(proto.Clone(template).(*corev1.Pod))
		}
		result, err := client.Transact(ctx, r.client, ops...)
		switch {
		case apierr.IsBadRequest(err) && len(ops) > 1:
			// An etcd that takes fewer operations at once than ours, or smaller ones: one pod alone tells.
			batch = len(ops) / 2
			continue
		case err != nil:
			if outcomeUnknown(err) {
				r.pending.doubt(key)
			}
			r.events.Event(rs, events.Warning, failedCreate, "Error creating: %s", apierr.Message(err))
			return &scaleError{failedCreate, fmt.Errorf("create %d pods: %w", len(ops), err)}
		}
		made := make([]controller.Key, 0, len(ops))
		for i := range result.Len() {
			o, err := result.Object(i)
			if err != nil {
				return err
			}
			made = append(made, client.KeyOf(o))
			r.events.Event(rs, events.Normal, "SuccessfulCreate", "Created pod: %s", o.GetMetadata().GetName())
		}
		r.pending.created(key, result.Revision, made...)
		n -= len(ops)
	}
	return nil
}

// outcomeUnknown reports whether a write that failed with err may have happened.
func outcomeUnknown(err error) bool {
	switch apierr.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.Unknown:
		return true
	}
	return false
}

// remove deletes pods, many in each transaction.
func (r *replicaSets) remove(ctx context.Context, key controller.Key, rs *appsv1.ReplicaSet, victims []*corev1.Pod) error {
	for batch := range slices.Chunk(victims, maxBatch) {
		if err := r.removeBatch(ctx, key, rs, batch); err != nil {
			return err
		}
	}
	return nil
}

// removeBatch deletes pods in one transaction. When that fails, because one of them is gone already for example, or
// because agents write to them all the time, its halves are tried.
func (r *replicaSets) removeBatch(ctx context.Context, key controller.Key, rs *appsv1.ReplicaSet, batch []*corev1.Pod) error {
	ops := make([]client.Operation, len(batch))
	for i, p := range batch {
		ops[i] = client.OpDelete(r.pods.Kind(), p.GetMetadata().GetNamespace(), p.GetMetadata().GetName(), client.IfUID(p.GetMetadata().GetUid()))
	}
	result, err := client.Transact(ctx, r.client, ops...)
	switch {
	case err == nil:
		for _, p := range batch {
			r.pending.deleted(key, result.Revision, client.KeyOf(p))
			r.events.Event(rs, events.Normal, "SuccessfulDelete", "Deleted pod: %s", p.GetMetadata().GetName())
		}
		return nil
	case len(batch) > 1 && (apierr.IsNotFound(err) || apierr.IsConflict(err) || apierr.IsBadRequest(err)):
		half := len(batch) / 2
		if err := r.removeBatch(ctx, key, rs, batch[:half]); err != nil {
			return err
		}
		return r.removeBatch(ctx, key, rs, batch[half:])
	case apierr.IsNotFound(err) || apierr.IsConflict(err):
		return nil
	}
	r.events.Event(rs, events.Warning, failedDelete, "Error deleting: %s", apierr.Message(err))
	return &scaleError{failedDelete, fmt.Errorf("delete %d pods: %w", len(batch), err)}
}

// crowding counts the active pods on each node that belong to the set, or to another of the same deployment.
func (r *replicaSets) crowding(rs *appsv1.ReplicaSet) map[string]int {
	related := []*appsv1.ReplicaSet{rs}
	if owner := kind.ControllerOf(rs); owner != nil {
		related = r.sets.ByIndex(byOwner, owner.GetUid())
	}
	onNode := map[string]int{}
	for _, set := range related {
		for _, p := range r.pods.ByIndex(byOwner, set.GetMetadata().GetUid()) {
			if active(p) {
				onNode[p.GetSpec().GetNodeName()]++
			}
		}
	}
	return onNode
}

// newPod makes a pod of the set's template.
func newPod(rs *appsv1.ReplicaSet) *corev1.Pod {
	t := rs.GetSpec().GetTemplate()
	pod := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{
			GenerateName: generateName(rs.GetMetadata().GetName()), Namespace: rs.GetMetadata().GetNamespace(),
			Labels: t.GetMetadata().GetLabels(), Annotations: t.GetMetadata().GetAnnotations(), Finalizers: t.GetMetadata().GetFinalizers(),
			OwnerReferences: []*metav1.OwnerReference{kind.NewControllerRef(rs)},
		},
		Spec: t.GetSpec(),
	}
	return proto.Clone(pod).(*corev1.Pod)
}

// generateName is the prefix of the pods' names, short enough to stay a valid host name with its suffix.
func generateName(set string) string {
	const longest = 63 - 1 - 5
	// A cut behind a dot would leave a label that begins with the hyphen.
	return strings.TrimRight(set[:min(len(set), longest)], "-.") + "-"
}

// pick chooses the n pods that are missed least, in Kubernetes' order: not bound, then pending, then not ready, then of
// low deletion cost, then on nodes that onNode says hold more related pods, then ready for the shorter time, then restarted more
// often, then younger.
func pick(pods []*corev1.Pod, n int, onNode map[string]int) []*corev1.Pod {
	phases := map[string]int{"Pending": 0, "Unknown": 1, "Running": 2}
	sorted := slices.Clone(pods)
	slices.SortStableFunc(sorted, func(a, b *corev1.Pod) int {
		return cmp.Or(
			compareBool(a.GetSpec().GetNodeName() != "", b.GetSpec().GetNodeName() != ""),
			cmp.Compare(phases[a.GetStatus().GetPhase()], phases[b.GetStatus().GetPhase()]),
			compareBool(kind.IsPodReady(a), kind.IsPodReady(b)),
			cmp.Compare(costOf(a), costOf(b)),
			cmp.Compare(onNode[b.GetSpec().GetNodeName()], onNode[a.GetSpec().GetNodeName()]),
			readySince(b).Compare(readySince(a)),
			cmp.Compare(restarts(b), restarts(a)),
			b.GetMetadata().GetCreationTimestamp().AsTime().Compare(a.GetMetadata().GetCreationTimestamp().AsTime()),
		)
	})
	return sorted[:n]
}

// compareBool orders false before true.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func costOf(p *corev1.Pod) int {
	n, _ := strconv.Atoi(p.GetMetadata().GetAnnotations()[deletionCost])
	return n
}

func restarts(p *corev1.Pod) (n int32) {
	for _, c := range p.GetStatus().GetContainerStatuses() {
		n = max(n, c.GetRestartCount())
	}
	return n
}

// readySince is when the pod became ready, the zero time when it is not.
func readySince(p *corev1.Pod) time.Time {
	if !kind.IsPodReady(p) {
		return time.Time{}
	}
	return kind.PodCondition(p, kind.PodReady).GetLastTransitionTime().AsTime()
}

// availableIn is how long until a pod counts as available: negative or 0 for now, false when it is not ready.
func availableIn(p *corev1.Pod, minReadySeconds int32, now time.Time) (time.Duration, bool) {
	if !kind.IsPodReady(p) {
		return 0, false
	}
	if minReadySeconds == 0 {
		return 0, true // whatever the clock of its node says
	}
	return readySince(p).Add(time.Duration(minReadySeconds) * time.Second).Sub(now), true
}

// updateStatus writes what the set's pods come to. It returns when a pod that is ready becomes available, 0 for never.
func (r *replicaSets) updateStatus(ctx context.Context, rs *appsv1.ReplicaSet, owned []*corev1.Pod, scaleErr error) (time.Duration, error) {
	status, again := replicaSetStatus(rs, owned, scaleErr, time.Now())
	if proto.Equal(status, rs.GetStatus()) {
		return again, nil
	}
	updated := proto.Clone(rs).(*appsv1.ReplicaSet)
	updated.Status = status
	_, err := client.UpdateStatus(ctx, r.client, updated)
	if apierr.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("update status: %w", err)
	}
	return again, nil
}

func replicaSetStatus(rs *appsv1.ReplicaSet, owned []*corev1.Pod, scaleErr error, now time.Time) (*appsv1.ReplicaSetStatus, time.Duration) {
	status := &appsv1.ReplicaSetStatus{ObservedGeneration: rs.GetMetadata().GetGeneration()}
	templateLabels := labels.SelectorFromValidatedSet(rs.GetSpec().GetTemplate().GetMetadata().GetLabels())
	var again time.Duration
	var terminating int32
	for _, p := range owned {
		if p.GetMetadata().GetDeletionTimestamp() != nil && !kind.IsPodFinished(p) {
			terminating++
		}
		if !active(p) {
			continue
		}
		status.Replicas++
		if templateLabels.Matches(labels.Set(p.GetMetadata().GetLabels())) {
			status.FullyLabeledReplicas++
		}
		wait, isReady := availableIn(p, rs.GetSpec().GetMinReadySeconds(), now)
		if !isReady {
			continue
		}
		status.ReadyReplicas++
		if wait <= 0 {
			status.AvailableReplicas++
		} else if again == 0 || wait < again {
			again = wait
		}
	}
	if terminating > 0 || rs.GetStatus().GetTerminatingReplicas() > 0 {
		status.TerminatingReplicas = &terminating
	}
	var was *appsv1.ReplicaSetCondition
	for _, c := range rs.GetStatus().GetConditions() {
		if c.GetType() == conditionReplicaFailure {
			was = c
			continue
		}
		status.Conditions = append(status.Conditions, c)
	}
	if failed := (*scaleError)(nil); errors.As(scaleErr, &failed) {
		failure := was
		// One that stays keeps its first message: messages name what differs at every attempt, and writing each anew
		// would bring on the next attempt at once.
		if was.GetStatus() != kind.ConditionTrue || was.GetReason() != failed.reason {
			failure = &appsv1.ReplicaSetCondition{Type: conditionReplicaFailure, Status: kind.ConditionTrue, Reason: failed.reason, Message: apierr.Message(scaleErr), LastTransitionTime: timestamppb.New(now.Truncate(time.Second))}
		}
		status.Conditions = append(status.Conditions, failure)
	}
	return status, again
}

// ownersPatch is a merge patch that replaces a pod's owners, refused when the pod is another by then.
func ownersPatch(p *corev1.Pod, owners []*metav1.OwnerReference) ([]byte, error) {
	changed := &metav1.ObjectMeta{Uid: p.GetMetadata().GetUid(), ResourceVersion: p.GetMetadata().GetResourceVersion(), OwnerReferences: owners}
	v, err := codec.Value(changed)
	if err != nil {
		return nil, fmt.Errorf("owners of pod %s as JSON: %w", p.GetMetadata().GetName(), err)
	}
	meta, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("owners of pod %s are no JSON object", p.GetMetadata().GetName())
	}
	if len(owners) == 0 {
		meta["ownerReferences"] = nil
	}
	return json.Marshal(map[string]any{"metadata": meta})
}
