package nodes

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// taintOutOfService is the taint by which a person vouches that a node is off, as Kubernetes names
// it.
const taintOutOfService = "node.kubernetes.io/out-of-service"

// outOfService removes the pods that are being deleted from nodes that are not ready and have the
// taint: no agent will confirm that they have ended. With the effect NoExecute the taint also
// evicts the pods that do not tolerate it, by eviction.go. As in Kubernetes, the key alone decides
// here, and a node that is ready keeps its pods.
type outOfService struct {
	client *client.Client
	nodes  *client.Informer[*corev1.Node]
	pods   *client.Informer[*corev1.Pod]
	events *events.Recorder
}

func (o *outOfService) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	node, ok := o.nodes.Get("", key.Name)
	if !ok || !isOutOfService(node) {
		return controller.Result{}, nil
	}
	pods := slices.DeleteFunc(o.pods.ByIndex(byNode, key.Name), func(p *corev1.Pod) bool { return !awaitsAgent(p) })
	if len(pods) == 0 {
		return controller.Result{}, nil
	}
	// The informer may be behind, and the node may be back.
	writer := o.client.WithConditions(client.AtRevision(node))
	for _, p := range pods {
		err := o.remove(ctx, writer, p)
		if apierr.IsConditionFailed(err) {
			return controller.Result{RequeueAfter: time.Second}, nil // the informer's news come first
		}
		if err != nil {
			return controller.Result{}, fmt.Errorf("remove pod %s of node %s, which is out of service: %w", client.KeyOf(p), key.Name, err)
		}
	}
	return controller.Result{}, nil
}

// awaitsAgent reports whether a pod is being deleted and stays until its agent confirms that it has
// ended.
func awaitsAgent(p *corev1.Pod) bool {
	m := p.GetMetadata()
	return m.GetDeletionTimestamp() != nil && m.GetDeletionGracePeriodSeconds() > 0
}

func isOutOfService(n *corev1.Node) bool {
	return core.NodeCondition(n, core.NodeReady).GetStatus() != condition.True &&
		slices.ContainsFunc(n.GetSpec().GetTaints(), func(t *corev1.Taint) bool { return t.GetKey() == taintOutOfService })
}

// remove fails a pod, for the owners and finalizers that look at its phase, and removes it.
func (o *outOfService) remove(ctx context.Context, writer *client.Client, seen *corev1.Pod) error {
	m := seen.GetMetadata()
	p, err := client.Get[*corev1.Pod](ctx, o.client, m.GetNamespace(), m.GetName())
	if apierr.IsNotFound(err) || err == nil && (p.GetMetadata().GetUid() != m.GetUid() || !awaitsAgent(p)) {
		return nil
	}
	if err != nil {
		return err
	}
	if !core.IsPodFinished(p) {
		if p.Status == nil {
			p.Status = &corev1.PodStatus{}
		}
		p.Status.Phase = core.PodFailed
		if _, err := client.UpdateStatus(ctx, writer, p); apierr.IsNotFound(err) {
			return nil
		} else if err != nil {
			return fmt.Errorf("write its phase: %w", err)
		}
	}
	_, err = client.Delete[*corev1.Pod](ctx, writer, m.GetNamespace(), m.GetName(), client.IfUID(m.GetUid()), client.GracePeriod(0))
	if apierr.IsNotFound(err) || apierr.IsConflict(err) {
		return nil
	}
	if err == nil {
		o.events.Event(p, events.Warning, "NodeOutOfService",
			"Removed without a confirmation: node %s has the taint %s", p.GetSpec().GetNodeName(), taintOutOfService)
	}
	return err
}
