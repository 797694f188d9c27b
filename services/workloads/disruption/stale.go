package disruption

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// staleTimeout is how long a pod that is not being deleted keeps the condition DisruptionTarget.
const staleTimeout = 2 * time.Minute

// addStale adds the controller that resets the condition DisruptionTarget of pods that were not
// deleted after all.
func addStale(t *controller.Term, cfg Config) {
	c := t.Controller("stale-disruption", cfg.Workers, func(ctx context.Context, key controller.Key) (controller.Result, error) {
		seen, ok := cfg.Pods.Get(key.Namespace, key.Name)
		if !ok {
			return controller.Result{}, nil
		}
		if left, has := staleIn(seen, time.Now()); !has || left > 0 {
			return controller.Result{RequeueAfter: left}, nil
		}
		return controller.Result{}, reset(ctx, t.Client(), key)
	})
	cfg.Pods.OnChange(func(_, now *corev1.Pod) {
		if now == nil {
			return
		}
		if left, has := staleIn(now, time.Now()); has {
			c.EnqueueAfter(client.KeyOf(now), left)
		}
	})
}

// staleIn returns how long it takes until the condition DisruptionTarget of a pod is reset, 0 or
// less for now, and false for one that has none or keeps it: the agent may take long from its own
// decision to the end of the pod.
func staleIn(p *corev1.Pod, now time.Time) (time.Duration, bool) {
	c := core.PodCondition(p, core.PodDisruptionTarget)
	if c.GetStatus() != condition.True || c.GetReason() == core.TerminationByKubelet || core.IsPodFinished(p) ||
		p.GetMetadata().GetDeletionTimestamp() != nil {
		return 0, false
	}
	return c.GetLastTransitionTime().AsTime().Add(staleTimeout).Sub(now), true
}

// reset sets the condition of a pod to False, unless the pod has changed.
func reset(ctx context.Context, c *client.Client, key controller.Key) error {
	p, err := client.Get[*corev1.Pod](ctx, c, key.Namespace, key.Name)
	if apierr.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	now := time.Now()
	if left, has := staleIn(p, now); !has || left > 0 {
		return nil
	}
	target := core.PodCondition(p, core.PodDisruptionTarget)
	target.Status, target.Reason, target.Message = condition.False, "", ""
	target.LastTransitionTime = timestamppb.New(now.Truncate(time.Second))
	if _, err := client.UpdateStatus(ctx, c, p); err != nil && !apierr.IsNotFound(err) {
		return fmt.Errorf("reset the condition DisruptionTarget: %w", err)
	}
	return nil
}
