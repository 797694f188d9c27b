package nodes

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kind"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Taints that tell what is wrong with a node, as Kubernetes names them.
const (
	taintNotReady    = "node.kubernetes.io/not-ready"
	taintUnreachable = "node.kubernetes.io/unreachable"
	noSchedule       = "NoSchedule"
	noExecute        = "NoExecute"
)

// reasonSilent is why a node's conditions are unknown.
const reasonSilent = "NodeStatusUnknown"

// startGrace is how long a node that has just been made may take until its first heartbeat.
const startGrace = 15 * time.Second

// liveness marks nodes whose heartbeat lapsed, and taints every node by its Ready condition.
type liveness struct {
	client *client.Client
	nodes  *client.Informer[*corev1.Node]
	leases *client.Informer[*coordinationv1.Lease]
	pods   *client.Informer[*corev1.Pod]
	events *events.Recorder
}

func (l *liveness) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	node, ok := l.nodes.Get("", key.Name)
	if !ok || node.GetMetadata().GetDeletionTimestamp() != nil {
		return controller.Result{}, nil
	}
	_, beating := l.leases.Get(heartbeatNamespace, key.Name)
	if !beating {
		if age := time.Since(node.GetMetadata().GetCreationTimestamp().AsTime()); age < startGrace {
			return controller.Result{RequeueAfter: startGrace - age}, nil
		}
		var err error
		if node, err = l.markSilent(ctx, node); err != nil {
			return controller.Result{}, err
		}
	}
	if err := l.taint(ctx, node); err != nil {
		return controller.Result{}, err
	}
	if ready := kind.NodeCondition(node, "Ready"); ready.GetStatus() != "True" {
		return controller.Result{}, l.markPodsNotReady(ctx, node)
	}
	return controller.Result{}, nil
}

// markSilent sets the node's conditions to unknown. The agent writes its own again when it is back.
func (l *liveness) markSilent(ctx context.Context, node *corev1.Node) (*corev1.Node, error) {
	updated := proto.Clone(node).(*corev1.Node)
	if updated.Status == nil {
		updated.Status = &corev1.NodeStatus{}
	}
	if kind.NodeCondition(updated, "Ready") == nil {
		updated.Status.Conditions = append(updated.Status.Conditions, &corev1.NodeCondition{Type: "Ready"})
	}
	for _, c := range updated.Status.Conditions {
		if c.GetStatus() == "Unknown" {
			continue
		}
		c.Status, c.Reason, c.Message = "Unknown", reasonSilent, "The node's agent stopped renewing its lease."
		c.LastTransitionTime = timestamppb.New(time.Now().Truncate(time.Second))
	}
	if proto.Equal(updated, node) {
		return node, nil
	}
	updated, err := client.UpdateStatus(ctx, l.client, updated)
	if err != nil {
		return nil, fmt.Errorf("mark node %s silent: %w", node.GetMetadata().GetName(), err)
	}
	l.events.Event(node, events.Normal, "NodeNotReady", "Node %s status is now: NodeNotReady", node.GetMetadata().GetName())
	return updated, nil
}

// taint keeps the taints that follow from the Ready condition, and leaves all others alone.
func (l *liveness) taint(ctx context.Context, node *corev1.Node) error {
	want := ""
	switch kind.NodeCondition(node, "Ready").GetStatus() {
	case "True":
	case "Unknown":
		want = taintUnreachable
	default:
		want = taintNotReady
	}
	kept := slices.DeleteFunc(slices.Clone(node.GetSpec().GetTaints()), func(t *corev1.Taint) bool {
		return (t.GetKey() == taintNotReady || t.GetKey() == taintUnreachable) && t.GetKey() != want
	})
	if want != "" {
		for _, effect := range []string{noSchedule, noExecute} {
			if !slices.ContainsFunc(kept, func(t *corev1.Taint) bool { return t.GetKey() == want && t.GetEffect() == effect }) {
				// The time counts from when the node was first seen so, which is now.
				kept = append(kept, &corev1.Taint{Key: want, Effect: effect, TimeAdded: timestamppb.New(time.Now().Truncate(time.Second))})
			}
		}
	}
	if len(kept) == len(node.GetSpec().GetTaints()) && slices.EqualFunc(kept, node.GetSpec().GetTaints(), func(a, b *corev1.Taint) bool { return proto.Equal(a, b) }) {
		return nil
	}
	updated := proto.Clone(node).(*corev1.Node)
	if updated.Spec == nil {
		updated.Spec = &corev1.NodeSpec{}
	}
	updated.Spec.Taints = kept
	if _, err := client.Update(ctx, l.client, updated); err != nil {
		return fmt.Errorf("taint node %s: %w", node.GetMetadata().GetName(), err)
	}
	return nil
}

// markPodsNotReady takes the pods of a silent node out of their services: nobody knows whether they still serve.
func (l *liveness) markPodsNotReady(ctx context.Context, node *corev1.Node) error {
	if kind.NodeCondition(node, "Ready").GetStatus() != "Unknown" {
		return nil // the agent is there and speaks for its pods
	}
	for _, p := range l.pods.ByIndex(byNode, node.GetMetadata().GetName()) {
		if !kind.IsPodReady(p) {
			continue
		}
		m := p.GetMetadata()
		full, err := client.Get[*corev1.Pod](ctx, l.client, m.GetNamespace(), m.GetName())
		if err == nil && full.GetMetadata().GetUid() == m.GetUid() && kind.IsPodReady(full) {
			ready := kind.PodCondition(full, "Ready")
			ready.Status, ready.Reason, ready.Message = "False", "NodeUnreachable", "The node's agent stopped renewing its lease."
			ready.LastTransitionTime = timestamppb.New(time.Now().Truncate(time.Second))
			_, err = client.UpdateStatus(ctx, l.client, full)
		}
		if err != nil && !apierr.IsNotFound(err) {
			return fmt.Errorf("mark pod %s/%s not ready: %w", m.GetNamespace(), m.GetName(), err)
		}
	}
	return nil
}
