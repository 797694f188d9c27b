package nodes

import (
	"context"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// disrupt says on a pod, by the condition DisruptionTarget, why it is about to be deleted: Jobs
// read it. A pod that no agent is left to end also gets the phase Failed. A pod that is gone, or
// was replaced, is left to the deletion to find out.
func disrupt(ctx context.Context, writer *client.Client, seen *corev1.Pod, reason, message string, fail bool) error {
	m := seen.GetMetadata()
	p, err := client.Get[*corev1.Pod](ctx, writer, m.GetNamespace(), m.GetName())
	if apierr.IsNotFound(err) || err == nil && p.GetMetadata().GetUid() != m.GetUid() {
		return nil
	}
	if err != nil {
		return err
	}
	changed := core.SetDisruptionTarget(p, reason, message, time.Now())
	if fail && !core.IsPodFinished(p) {
		p.Status.Phase, changed = core.PodFailed, true
	}
	if !changed {
		return nil
	}
	_, err = client.UpdateStatus(ctx, writer, p)
	if apierr.IsNotFound(err) || apierr.IsInvalid(err) {
		// A status that the API refuses for another reason does not keep the pod.
		return nil
	}
	return err
}
