package nodes

import (
	"context"
	"fmt"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// orphans deletes pods bound to nodes that do not exist: no agent is left to finish them.
type orphans struct {
	client *client.Client
	nodes  *client.Informer[*corev1.Node]
	pods   *client.Informer[*corev1.Pod]
	// since is when each missing node was first missed; used by the one worker only.
	since map[string]time.Time
	// grace is how long a node must have been gone before its pods are.
	grace time.Duration
}

func (o *orphans) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	pods := o.pods.ByIndex(byNode, key.Name)
	if _, ok := o.nodes.Get("", key.Name); ok || len(pods) == 0 {
		delete(o.since, key.Name)
		return controller.Result{}, nil
	}
	first, ok := o.since[key.Name]
	if !ok {
		first = time.Now()
		o.since[key.Name] = first
	}
	if left := o.grace - time.Since(first); left > 0 {
		return controller.Result{RequeueAfter: left}, nil
	}
	// The informer may be behind.
	writer := o.client.WithConditions(client.Absent(o.nodes.Kind(), "", key.Name))
	for _, p := range pods {
		m := p.GetMetadata()
		err := disrupt(ctx, writer, p, core.DeletionByPodGC, "PodGC: node no longer exists", true)
		if err == nil {
			_, err = client.Delete[*corev1.Pod](ctx, writer, m.GetNamespace(), m.GetName(), client.IfUID(m.GetUid()), client.GracePeriod(0))
		}
		if apierr.IsConditionFailed(err) {
			return controller.Result{RequeueAfter: time.Second}, nil // the node exists after all
		}
		if err != nil && !apierr.IsNotFound(err) && !apierr.IsConflict(err) {
			return controller.Result{}, fmt.Errorf("delete pod %s/%s of vanished node %s: %w", m.GetNamespace(), m.GetName(), key.Name, err)
		}
	}
	return controller.Result{}, nil
}
