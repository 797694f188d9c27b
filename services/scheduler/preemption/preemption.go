// Package preemption deletes pods to make room for others: the victims that plug-ins chose. It does
// so beside the loop, for several pods at once.
package preemption

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/backoff"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// maxPreemptions is how many are under way at once.
const maxPreemptions = 8

// maxVictims is how many pods one transaction changes beside the pod that room is made for.
const maxVictims = client.MaxOperations - 1

// The pause between two attempts, after others have changed a pod or when the API does not answer.
const (
	retryMin = 50 * time.Millisecond
	retryMax = 2 * time.Second
)

// Task is a pod that room is made for.
type Task struct {
	// Pod is the pod, and Message why it is unschedulable.
	Pod     *framework.Pod
	Message string
	// Node is where room is made, by the deletion of Victims. There are none when all pods that have
	// to leave the node are leaving already.
	Node    string
	Victims []*framework.Pod
}

// Executor makes room for pods.
type Executor struct {
	client  *client.Client
	events  *events.Recorder
	log     *zap.Logger
	slots   chan struct{}
	running sync.WaitGroup
}

// New returns an executor. The client's writes are fenced by the scheduler's election.
func New(c *client.Client, recorder *events.Recorder, log *zap.Logger) *Executor {
	return &Executor{client: c, events: recorder, log: log, slots: make(chan struct{}, maxPreemptions)}
}

// Start makes room for a pod in the background. done is called from another goroutine: with true
// when the victims are being deleted, with false when they stay, because the pod does not wait any
// more or by an error. It is not called when ctx ends: the next leader decides again.
func (e *Executor) Start(ctx context.Context, t Task, done func(t Task, deleted bool, err error)) {
	e.running.Go(func() {
		select {
		case e.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-e.slots }()
		err := e.execute(ctx, t)
		if ctx.Err() != nil || apierr.IsElectionLost(err) {
			return
		}
		deleted := err == nil
		if errors.Is(err, errObsolete) {
			err = nil
		}
		done(t, deleted, err)
	})
}

// Wait returns when no preemption is under way.
func (e *Executor) Wait() { e.running.Wait() }

// errObsolete says that no room is needed: the pod was deleted or has a node.
var errObsolete = errors.New("the pod does not wait any more")

func (e *Executor) execute(ctx context.Context, t Task) error {
	if len(t.Victims) == 0 {
		return e.delete(ctx, t, nil)
	}
	for victims := range slices.Chunk(t.Victims, maxVictims) {
		if err := e.delete(ctx, t, victims); err != nil {
			return err
		}
	}
	return nil
}

// delete deletes victims, and repeats that until the outcome is known.
func (e *Executor) delete(ctx context.Context, t Task, victims []*framework.Pod) error {
	pauses := backoff.Backoff{Min: retryMin, Max: retryMax}
	for {
		deleted, err := e.attempt(ctx, t, victims)
		if err == nil {
			for _, v := range deleted {
				e.events.Event(v, events.Normal, "Preempted", "Preempted by pod %s on node %s", t.Pod.UID, t.Node)
			}
			return nil
		}
		// A victim that was not found or changed meanwhile is read again.
		if !apierr.IsRetryable(err) && !apierr.IsConflict(err) && !apierr.IsNotFound(err) && !apierr.IsConditionFailed(err) ||
			apierr.IsElectionLost(err) {
			return err
		}
		e.log.Debug("Preemption not done, trying again", zap.String(metrics.KeyObject, t.Pod.Namespace+"/"+t.Pod.Name), zap.Error(err))
		if err := pauses.Wait(ctx, err); err != nil {
			return err
		}
	}
}

// attempt nominates the node for the pod and marks the victims in one transaction, so that the next
// leader knows of the preemption, and deletes the victims in another, on the condition that the pod
// has not changed since. A victim can be in a transaction only once. It returns the pods that are
// being deleted for the pod.
func (e *Executor) attempt(ctx context.Context, t Task, victims []*framework.Pod) ([]*corev1.Pod, error) {
	pod, err := client.Get[*corev1.Pod](ctx, e.client, t.Pod.Namespace, t.Pod.Name)
	switch {
	case apierr.IsNotFound(err):
		return nil, errObsolete
	case err != nil:
		return nil, fmt.Errorf("get pod: %w", err)
	case pod.GetMetadata().GetUid() != t.Pod.UID, pod.GetMetadata().GetDeletionTimestamp() != nil, pod.GetSpec().GetNodeName() != "":
		return nil, errObsolete
	}
	deleting, running, err := e.read(ctx, t, victims)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	nominate(pod, t, now)
	marks := []client.Operation{client.OpUpdateStatus(pod)}
	for _, v := range running {
		mark(v, t.Pod.SchedulerName, now)
		marks = append(marks, client.OpUpdateStatus(v))
	}
	marked, err := client.Transact(ctx, e.client, marks...)
	if err != nil || len(running) == 0 {
		return deleting, err
	}
	nominated, err := marked.Object(0)
	if err != nil {
		return nil, err
	}
	deletions := make([]client.Operation, len(running))
	for i, v := range running {
		m := v.GetMetadata()
		deletions[i] = client.OpDelete(kinds.Of(v), m.GetNamespace(), m.GetName(), client.IfUID(m.GetUid()))
	}
	if _, err := client.Transact(ctx, e.client.WithConditions(client.AtRevision(nominated)), deletions...); err != nil {
		return nil, err
	}
	return append(deleting, running...), nil
}

// read returns the victims that are being deleted by this preemption already, because the answer to
// an attempt was lost, and those that have yet to be deleted. Victims that are gone are neither.
func (e *Executor) read(ctx context.Context, t Task, victims []*framework.Pod) (deleting, running []*corev1.Pod, err error) {
	for _, v := range victims {
		pod, err := client.Get[*corev1.Pod](ctx, e.client, v.Namespace, v.Name)
		switch {
		case apierr.IsNotFound(err):
		case err != nil:
			return nil, nil, fmt.Errorf("get victim %s/%s: %w", v.Namespace, v.Name, err)
		case pod.GetMetadata().GetUid() != v.UID:
		case pod.GetMetadata().GetDeletionTimestamp() == nil:
			running = append(running, pod)
		case core.PodCondition(pod, core.PodDisruptionTarget).GetMessage() == message(t.Pod.SchedulerName):
			deleting = append(deleting, pod)
		}
	}
	return deleting, running, nil
}

func message(schedulerName string) string {
	return schedulerName + ": preempting to accommodate a higher priority pod"
}

// mark sets the condition that says why a pod is deleted.
func mark(victim *corev1.Pod, schedulerName string, now time.Time) {
	setCondition(victim, &corev1.PodCondition{
		Type: core.PodDisruptionTarget, Status: condition.True, Reason: framework.ReasonPreempted, Message: message(schedulerName),
	}, now)
}

// nominate sets the node on which room is made for a pod.
func nominate(pod *corev1.Pod, t Task, now time.Time) {
	SetUnschedulable(pod, t.Message, now)
	pod.Status.NominatedNodeName = t.Node
}

// SetUnschedulable sets the condition that says why a pod has no node.
func SetUnschedulable(pod *corev1.Pod, message string, now time.Time) {
	setCondition(pod, &corev1.PodCondition{Type: core.PodScheduled, Status: condition.False, Reason: "Unschedulable", Message: message}, now)
}

func setCondition(pod *corev1.Pod, c *corev1.PodCondition, now time.Time) {
	if pod.Status == nil {
		pod.Status = &corev1.PodStatus{}
	}
	c.LastTransitionTime = condition.Since(pod.GetStatus().GetConditions(), c.GetType(), c.GetStatus(), now)
	pod.Status.Conditions = append(condition.Others(pod.GetStatus().GetConditions(), c.GetType()), c)
}
