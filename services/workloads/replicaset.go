package workloads

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

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
	// What this controller wrote and the informer has not shown yet would be done twice. The pods' own events bring the
	// key back; the timer is for events that never come.
	if !r.pending.settled(key, r.seen) {
		return controller.Result{RequeueAfter: time.Second}, nil
	}
	selector, err := kind.LabelSelector(rs.GetSpec().GetSelector())
	if err != nil {
		return controller.Result{}, fmt.Errorf("selector: %w", err)
	}
	if err := r.adopt(ctx, rs, selector); err != nil {
		return controller.Result{}, err
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

// adopt makes the set the controller of pods that match its selector and have none, and lets go of its own that match no
// more.
func (r *replicaSets) adopt(ctx context.Context, rs *appsv1.ReplicaSet, selector labels.Selector) error {
	if rs.GetMetadata().GetDeletionTimestamp() != nil {
		return nil
	}
	for _, p := range r.pods.ByIndex(byOwner, "") {
		m := p.GetMetadata()
		if m.GetNamespace() != rs.GetMetadata().GetNamespace() || m.GetDeletionTimestamp() != nil || !active(p) || !selector.Matches(labels.Set(m.GetLabels())) {
			continue
		}
		if err := r.patchOwners(ctx, p, append(slices.Clone(m.GetOwnerReferences()), kind.NewControllerRef(rs))); err != nil {
			return fmt.Errorf("adopt pod %s: %w", m.GetName(), err)
		}
	}
	for _, p := range r.pods.ByIndex(byOwner, rs.GetMetadata().GetUid()) {
		m := p.GetMetadata()
		if m.GetDeletionTimestamp() != nil || selector.Matches(labels.Set(m.GetLabels())) {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(m.GetOwnerReferences()), func(o *metav1.OwnerReference) bool { return o.GetUid() == rs.GetMetadata().GetUid() })
		if err := r.patchOwners(ctx, p, others); err != nil {
			return fmt.Errorf("release pod %s: %w", m.GetName(), err)
		}
	}
	return nil
}

// patchOwners replaces a pod's owners if the pod is still the one seen.
func (r *replicaSets) patchOwners(ctx context.Context, p *corev1.Pod, owners []*metav1.OwnerReference) error {
	patch, err := ownersPatch(p, owners)
	if err != nil {
		return err
	}
	_, err = client.Patch[*corev1.Pod](ctx, r.client, p.GetMetadata().GetNamespace(), p.GetMetadata().GetName(), patch)
	if apierr.IsNotFound(err) {
		return nil
	}
	return err
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
		return r.remove(ctx, key, rs, pick(running, len(running)-want, time.Now()))
	}
	return nil
}

func (r *replicaSets) create(ctx context.Context, key controller.Key, rs *appsv1.ReplicaSet, n int) error {
	template := newPod(rs)
	batch := min(maxBatch, max(1, maxBatchBytes/(proto.Size(template)+512)))
	for n > 0 {
		ops := make([]client.Operation, min(n, batch))
		for i := range ops {
			ops[i] = client.OpCreate(proto.Clone(template).(*corev1.Pod))
		}
		result, err := client.Transact(ctx, r.client, ops...)
		if err != nil {
			r.events.Event(rs, events.Warning, "FailedCreate", "Error creating %d pods: %s", len(ops), apierr.Message(err))
			return fmt.Errorf("create %d pods: %w", len(ops), err)
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
		r.pending.created(key, made)
		n -= len(ops)
	}
	return nil
}

func (r *replicaSets) remove(ctx context.Context, key controller.Key, rs *appsv1.ReplicaSet, victims []*corev1.Pod) error {
	for _, p := range victims {
		m := p.GetMetadata()
		_, err := client.Delete[*corev1.Pod](ctx, r.client, m.GetNamespace(), m.GetName(), client.IfUID(m.GetUid()))
		if err != nil && !apierr.IsNotFound(err) && !apierr.IsConflict(err) {
			r.events.Event(rs, events.Warning, "FailedDelete", "Error deleting pod %s: %s", m.GetName(), apierr.Message(err))
			return fmt.Errorf("delete pod %s: %w", m.GetName(), err)
		}
		r.pending.deleted(key, client.KeyOf(p))
		r.events.Event(rs, events.Normal, "SuccessfulDelete", "Deleted pod: %s", m.GetName())
	}
	return nil
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
	return set[:min(len(set), longest)] + "-"
}

// pick chooses the n pods that are missed least, in Kubernetes' order: not bound, then pending, then not ready, then of
// low deletion cost, then on nodes that hold more of the set's pods, then ready for the shorter time, then restarted more
// often, then younger.
func pick(pods []*corev1.Pod, n int, now time.Time) []*corev1.Pod {
	onNode := map[string]int{}
	for _, p := range pods {
		onNode[p.GetSpec().GetNodeName()]++
	}
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
	for _, c := range rs.GetStatus().GetConditions() {
		if c.GetType() != "ReplicaFailure" {
			status.Conditions = append(status.Conditions, c)
		}
	}
	if scaleErr != nil {
		failure := &appsv1.ReplicaSetCondition{Type: "ReplicaFailure", Status: "True", Reason: "FailedCreate", Message: apierr.Message(scaleErr), LastTransitionTime: timestamppb.New(now.Truncate(time.Second))}
		for _, c := range rs.GetStatus().GetConditions() {
			if c.GetType() == failure.Type {
				failure.LastTransitionTime = c.GetLastTransitionTime()
			}
		}
		status.Conditions = append(status.Conditions, failure)
	}
	return status, again
}

// noteChange tells pending what the pods informer shows.
func (r *replicaSets) noteChange(old, new *corev1.Pod) {
	if new == nil {
		r.pending.observe(client.KeyOf(old), true)
		return
	}
	r.pending.observe(client.KeyOf(new), new.GetMetadata().GetDeletionTimestamp() != nil)
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

// seen reports whether the informer shows a pod as it should be after a write: there, or going.
func (r *replicaSets) seen(p controller.Key, created bool) bool {
	pod, ok := r.pods.Get(p.Namespace, p.Name)
	if created {
		return ok
	}
	return !ok || pod.GetMetadata().GetDeletionTimestamp() != nil
}

// pendingTimeout is how long a write is waited for: a pod may be created and gone again between two looks.
const pendingTimeout = 30 * time.Second

// pending remembers, for each set, the pods written that the informer has not shown yet. It does the work of what
// Kubernetes calls expectations, with names in place of counts.
type pending struct {
	mu   sync.Mutex
	sets map[controller.Key]map[controller.Key]expectation
}

type expectation struct {
	created bool
	since   time.Time
}

func newPending() *pending {
	return &pending{sets: map[controller.Key]map[controller.Key]expectation{}}
}

func (p *pending) created(set controller.Key, pods []controller.Key) {
	for _, pod := range pods {
		p.add(set, pod, true)
	}
}

func (p *pending) deleted(set, pod controller.Key) { p.add(set, pod, false) }

func (p *pending) add(set, pod controller.Key, created bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sets[set] == nil {
		p.sets[set] = map[controller.Key]expectation{}
	}
	p.sets[set][pod] = expectation{created, time.Now()}
}

func (p *pending) forget(set controller.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sets, set)
}

// observe forgets what is waited for of a pod that was just seen to change; gone says that it is deleted or being deleted.
func (p *pending) observe(pod controller.Key, gone bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, pods := range p.sets {
		if e, ok := pods[pod]; ok && (e.created || gone) {
			delete(pods, pod)
		}
	}
}

// settled reports whether all writes of a set have been seen, and forgets those that have.
func (p *pending) settled(set controller.Key, seen func(pod controller.Key, created bool) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pod, e := range p.sets[set] {
		if seen(pod, e.created) || time.Since(e.since) > pendingTimeout {
			delete(p.sets[set], pod)
		}
	}
	if len(p.sets[set]) > 0 {
		return false
	}
	delete(p.sets, set)
	return true
}
