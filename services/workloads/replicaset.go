package workloads

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// deletionCost is the annotation by which people say which pods go first: the lower, the sooner.
	deletionCost = "controller.kubernetes.io/pod-deletion-cost"
)

// replicaSets keeps as many pods as each ReplicaSet asks for.
type replicaSets struct {
	client *client.Client
	sets   *client.Informer[*appsv1.ReplicaSet]
	pods   *controller.Dependents[*appsv1.ReplicaSet, *corev1.Pod]
	events *events.Recorder
}

func (r *replicaSets) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	rs, ok := r.sets.Get(key.Namespace, key.Name)
	if !ok {
		r.pods.Forget(key)
		return controller.Result{}, nil
	}
	owned, wait, err := r.pods.Claim(ctx, rs)
	if wait > 0 || err != nil {
		return controller.Result{RequeueAfter: wait}, err
	}
	var scaleErr error
	if rs.GetMetadata().GetDeletionTimestamp() == nil {
		scaleErr = r.scale(ctx, rs, owned)
	}
	again, err := r.updateStatus(ctx, rs, owned, scaleErr)
	if scaleErr != nil {
		return controller.Result{}, scaleErr
	}
	return controller.Result{RequeueAfter: again}, err
}

// active reports whether a pod counts as one of its set's replicas: it has not ended and is not being deleted.
func active(p *corev1.Pod) bool {
	return !kind.IsPodFinished(p) && p.GetMetadata().GetDeletionTimestamp() == nil
}

// scale creates or deletes pods until the set has as many active ones as it asks for.
func (r *replicaSets) scale(ctx context.Context, rs *appsv1.ReplicaSet, owned []*corev1.Pod) error {
	var running []*corev1.Pod
	for _, p := range owned {
		if active(p) {
			running = append(running, p)
		}
	}
	want := int(rs.GetSpec().GetReplicas())
	switch {
	case len(running) < want:
		return r.create(ctx, rs, want-len(running))
	case len(running) > want:
		return r.remove(ctx, rs, pick(running, len(running)-want, r.crowding(rs)))
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

// create creates n pods.
func (r *replicaSets) create(ctx context.Context, rs *appsv1.ReplicaSet, n int) error {
	created, err := r.pods.Create(ctx, rs, n, func(int) *corev1.Pod { return newPod(rs) })
	for _, pod := range created {
		r.events.Event(rs, events.Normal, "SuccessfulCreate", "Created pod: %s", pod.Name)
	}
	if err != nil {
		r.events.Event(rs, events.Warning, failedCreate, "Error creating: %s", apierr.Message(err))
		return &scaleError{failedCreate, fmt.Errorf("create %d pods: %w", n-len(created), err)}
	}
	return nil
}

// remove deletes pods.
func (r *replicaSets) remove(ctx context.Context, rs *appsv1.ReplicaSet, victims []*corev1.Pod) error {
	deleted, err := r.pods.Delete(ctx, rs, victims)
	for _, pod := range deleted {
		r.events.Event(rs, events.Normal, "SuccessfulDelete", "Deleted pod: %s", pod.Name)
	}
	if err != nil {
		r.events.Event(rs, events.Warning, failedDelete, "Error deleting: %s", apierr.Message(err))
		return &scaleError{failedDelete, fmt.Errorf("delete %d pods: %w", len(victims)-len(deleted), err)}
	}
	return nil
}

// crowding counts the active pods on each node that belong to the set, or to another of the same deployment.
func (r *replicaSets) crowding(rs *appsv1.ReplicaSet) map[string]int {
	related := []*appsv1.ReplicaSet{rs}
	if owner := kind.ControllerOf(rs); owner != nil {
		related = controller.ControlledBy(r.sets, owner.GetUid())
	}
	onNode := map[string]int{}
	for _, set := range related {
		for _, p := range controller.ControlledBy(r.pods.Dependents, set.GetMetadata().GetUid()) {
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
