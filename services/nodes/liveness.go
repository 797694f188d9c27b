package nodes

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
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

// liveness marks nodes whose lease expired, and taints every node by its Ready condition.
type liveness struct {
	client *client.Client
	nodes  *client.Informer[*corev1.Node]
	leases *client.Informer[*coordinationv1.Lease]
	events *events.Recorder
	zones  *zones
	// startGrace is how long a node that has just been made may take until its first heartbeat.
	startGrace time.Duration
}

func (l *liveness) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	node, ok := l.nodes.Get("", key.Name)
	if !ok || node.GetMetadata().GetDeletionTimestamp() != nil {
		return controller.Result{}, nil
	}
	silent, grace, err := l.silent(ctx, node)
	if err != nil {
		return controller.Result{}, err
	}
	if silent {
		if node, err = l.markSilent(ctx, node); err != nil {
			return controller.Result{}, err
		}
	}
	// A node that has just been made says nothing of itself yet, and has no room for pods either.
	if ready := core.NodeCondition(node, core.NodeReady); ready != nil || grace == 0 {
		wait, err := l.taint(ctx, node)
		if err != nil {
			return controller.Result{}, err
		}
		if wait > 0 && (grace == 0 || wait < grace) {
			grace = wait
		}
		if ready.GetStatus() == condition.Unknown {
			return controller.Result{RequeueAfter: grace}, l.markPodsNotReady(ctx, node)
		}
	}
	return controller.Result{RequeueAfter: grace}, nil
}

// silent reports whether a node's lease expired. While a new node has not begun to send one, it
// returns for how long that is in order. The informer may be behind, and marking a node takes its
// pods out of service: the API is asked.
func (l *liveness) silent(ctx context.Context, node *corev1.Node) (silent bool, grace time.Duration, err error) {
	m := node.GetMetadata()
	if _, beating := l.leases.Get(heartbeatNamespace, m.GetName()); beating {
		return false, 0, nil
	}
	if age := time.Since(m.GetCreationTimestamp().AsTime()); age < l.startGrace {
		return false, l.startGrace - age, nil
	}
	if isSilent(node) {
		return true, 0, nil // it is marked already
	}
	_, err = client.Get[*coordinationv1.Lease](ctx, l.client, heartbeatNamespace, m.GetName())
	switch {
	case apierr.IsNotFound(err):
		return true, 0, nil
	case err != nil:
		return false, 0, fmt.Errorf("look for the heartbeat of node %s: %w", m.GetName(), err)
	}
	return false, 0, nil // the informer will show it, which brings the node back here
}

// isSilent reports whether a node is marked as silent.
func isSilent(n *corev1.Node) bool {
	return core.NodeCondition(n, core.NodeReady).GetStatus() == condition.Unknown
}

// markSilent sets the node's conditions to unknown. The agent writes its own again when it is back.
func (l *liveness) markSilent(ctx context.Context, node *corev1.Node) (*corev1.Node, error) {
	updated := proto.Clone(node).(*corev1.Node)
	if updated.Status == nil {
		updated.Status = &corev1.NodeStatus{}
	}
	if core.NodeCondition(updated, core.NodeReady) == nil {
		updated.Status.Conditions = append(updated.Status.Conditions, &corev1.NodeCondition{Type: core.NodeReady})
	}
	for _, c := range updated.Status.Conditions {
		if c.GetStatus() == condition.Unknown {
			continue
		}
		c.Status, c.Reason, c.Message = condition.Unknown, reasonSilent, "The node's agent stopped renewing its lease."
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

// shortages are the taints that follow from conditions of want: no further pods come to such a
// node.
var shortages = map[string]string{
	"MemoryPressure": core.TaintMemoryPressure,
	"DiskPressure":   core.TaintDiskPressure,
	"PIDPressure":    core.TaintPIDPressure,
}

// taintShortages makes the taints of want follow their conditions.
func taintShortages(node *corev1.Node, taints []*corev1.Taint) []*corev1.Taint {
	for _, pressure := range slices.Sorted(maps.Keys(shortages)) {
		key := shortages[pressure]
		is := func(t *corev1.Taint) bool { return t.GetKey() == key && t.GetEffect() == noSchedule }
		switch core.NodeCondition(node, pressure).GetStatus() {
		case condition.True:
			if !slices.ContainsFunc(taints, is) {
				taints = append(taints, &corev1.Taint{Key: key, Effect: noSchedule})
			}
		case condition.Unknown:
			// A silent node is as it was last.
		default:
			taints = slices.DeleteFunc(taints, is)
		}
	}
	return taints
}

// taint keeps the taints that follow from the node's conditions, and leaves all others alone. While
// evictions have stopped in the zone of the node it is not tainted NoExecute, and loses that taint;
// when they go on, the time of its pods starts again. wait is not 0 when one more node of the zone
// may be tainted NoExecute only after that time.
func (l *liveness) taint(ctx context.Context, node *corev1.Node) (wait time.Duration, err error) {
	want := ""
	effects := []string{noSchedule, noExecute}
	switch core.NodeCondition(node, core.NodeReady).GetStatus() {
	case condition.True:
	case condition.Unknown:
		want = taintUnreachable
	default:
		want = taintNotReady
	}
	if want != "" {
		stopped, why := l.zones.stopped(node)
		if !stopped && !slices.ContainsFunc(noExecuteTaints(node), isOwn) {
			wait = l.zones.reserve(node)
		}
		if stopped || wait > 0 {
			effects = effects[:1]
		}
		if why != "" && time.Since(node.GetMetadata().GetCreationTimestamp().AsTime()) > l.startGrace {
			l.events.Event(node, events.Warning, "EvictionStopped", "%s: pods of this node are not evicted", why)
		}
	}
	kept := slices.DeleteFunc(slices.Clone(node.GetSpec().GetTaints()), func(t *corev1.Taint) bool {
		return (t.GetKey() == taintNotReady || t.GetKey() == taintUnreachable) && (t.GetKey() != want || !slices.Contains(effects, t.GetEffect()))
	})
	if want != "" {
		for _, effect := range effects {
			if !slices.ContainsFunc(kept, func(t *corev1.Taint) bool { return t.GetKey() == want && t.GetEffect() == effect }) {
				// The time counts from when the node was first seen so, which is now; in whole seconds, and
				// never early.
				added := timestamppb.New(time.Now().Add(time.Second - 1).Truncate(time.Second))
				kept = append(kept, &corev1.Taint{Key: want, Effect: effect, TimeAdded: added})
			}
		}
	}
	kept = taintShortages(node, kept)
	same := func(a, b *corev1.Taint) bool { return proto.Equal(a, b) }
	if slices.EqualFunc(kept, node.GetSpec().GetTaints(), same) {
		return wait, nil
	}
	updated := proto.Clone(node).(*corev1.Node)
	if updated.Spec == nil {
		updated.Spec = &corev1.NodeSpec{}
	}
	updated.Spec.Taints = kept
	if _, err := client.Update(ctx, l.client, updated); err != nil {
		return 0, fmt.Errorf("taint node %s: %w", node.GetMetadata().GetName(), err)
	}
	return wait, nil
}

// markPodsNotReady takes the pods of a silent node out of their services: it is not known whether
// they still serve. It writes them all at once; when one of them changed meanwhile, one by one.
func (l *liveness) markPodsNotReady(ctx context.Context, node *corev1.Node) error {
	pods, _, err := client.List[*corev1.Pod](ctx, l.client, client.ListOptions{FieldSelector: "spec.nodeName=" + node.GetMetadata().GetName()})
	if err != nil {
		return fmt.Errorf("list the pods of silent node %s: %w", node.GetMetadata().GetName(), err)
	}
	pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return !core.IsPodReady(p) })
	for batch := range slices.Chunk(pods, podsAtOnce) {
		ops := make([]client.Operation, len(batch))
		for i, p := range batch {
			ready := core.PodCondition(p, core.PodReady)
			ready.Status, ready.Reason, ready.Message = condition.False, "NodeUnreachable", "The node's agent stopped renewing its lease."
			ready.LastTransitionTime = timestamppb.New(time.Now().Truncate(time.Second))
			ops[i] = client.OpUpdateStatus(p)
		}
		_, err := client.Transact(ctx, l.client, ops...)
		if err != nil && len(batch) > 1 {
			err = nil
			for _, op := range ops {
				if _, one := client.Transact(ctx, l.client, op); !apierr.IsNotFound(one) {
					err = errors.Join(err, one)
				}
			}
		}
		if err != nil && !apierr.IsNotFound(err) {
			return fmt.Errorf("mark pods of silent node %s not ready: %w", node.GetMetadata().GetName(), err)
		}
		for _, p := range batch {
			l.events.Event(p, events.Warning, "NodeNotReady", "Node is not ready")
		}
	}
	return nil
}

// podsAtOnce is how many pods one transaction marks.
const podsAtOnce = 100
