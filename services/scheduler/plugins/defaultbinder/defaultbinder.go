// Package defaultbinder binds pods by the API's bind operation.
package defaultbinder

import (
	"context"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
)

// Plugin binds a batch of pods in one transaction.
type Plugin struct {
	// Client reaches the API. Its writes are fenced by the scheduler's election.
	Client *client.Client
}

// Bind implements framework.BindPlugin. A batch has at most client.MaxOperations pods. The API
// refuses to bind a pod that is bound; whether it is bound to the chosen node is looked up for a
// batch of one.
func (pl Plugin) Bind(ctx context.Context, batch []framework.Assignment) error {
	ops := make([]client.Operation, len(batch))
	for i, a := range batch {
		ops[i] = client.OpBind(a.Pod.Namespace, a.Pod.Name, a.Pod.UID, a.Node)
	}
	_, err := client.Transact(ctx, pl.Client, ops...)
	if len(batch) != 1 || !apierr.IsConflict(err) {
		return err
	}
	bound, getErr := pl.IsBound(ctx, batch[0])
	switch {
	case apierr.IsRetryable(getErr):
		return getErr
	case getErr == nil && bound:
		return nil
	}
	return err
}

// IsBound implements framework.BindPlugin.
func (pl Plugin) IsBound(ctx context.Context, a framework.Assignment) (bool, error) {
	pod, err := client.Get[*corev1.Pod](ctx, pl.Client, a.Pod.Namespace, a.Pod.Name)
	return err == nil && pod.GetMetadata().GetUid() == a.Pod.UID && pod.GetSpec().GetNodeName() == a.Node, err
}
