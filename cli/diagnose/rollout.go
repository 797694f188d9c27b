package diagnose

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
)

// deadlineExceeded is the reason of a rollout that stopped moving.
const deadlineExceeded = "ProgressDeadlineExceeded"

// RolloutState says how far a rollout is, in kubectl's words, which scripts look for.
func RolloutState(d *appsv1.Deployment) (text string, done bool, err error) {
	name, want, status := d.GetMetadata().GetName(), d.GetSpec().GetReplicas(), d.GetStatus()
	if status.GetObservedGeneration() < d.GetMetadata().GetGeneration() {
		return "Waiting for deployment spec update to be observed...", false, nil
	}
	for _, c := range status.GetConditions() {
		if c.GetType() == apps.DeploymentProgressing && c.GetReason() == deadlineExceeded {
			return "", false, fmt.Errorf(
				"deployment %q exceeded its progress deadline: 'xebec describe deployment %s' and its pods show why",
				name,
				name,
			)
		}
	}
	waiting := fmt.Sprintf("Waiting for deployment %q rollout to finish: ", name)
	switch updated, available := status.GetUpdatedReplicas(), status.GetAvailableReplicas(); {
	case updated < want:
		return waiting + fmt.Sprintf("%d out of %d new replicas have been updated...", updated, want), false, nil
	case status.GetReplicas() > updated:
		return waiting + fmt.Sprintf("%d old replicas are pending termination...", status.GetReplicas()-updated), false, nil
	case available < updated:
		return waiting + fmt.Sprintf("%d of %d updated replicas are available...", available, updated), false, nil
	}
	return fmt.Sprintf("deployment %q successfully rolled out", name), true, nil
}

// Revision is the revision that a deployment is at, or that a replica set holds; 0 when it is not
// known.
func Revision(obj scheme.Object) int64 {
	n, err := strconv.ParseInt(obj.GetMetadata().GetAnnotations()[apps.AnnotationRevision], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// ReplicaSets lists the replica sets of a deployment, oldest revision first.
func ReplicaSets(ctx context.Context, cl *client.Client, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	selector, err := object.LabelSelector(d.GetSpec().GetSelector())
	if err != nil {
		return nil, err
	}
	all, _, err := client.List[*appsv1.ReplicaSet](
		ctx,
		cl,
		client.ListOptions{Namespace: d.GetMetadata().GetNamespace(), LabelSelector: selector.String()},
	)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(rs *appsv1.ReplicaSet) bool { return !kinds.IsControlledBy(rs, d) })
	slices.SortFunc(all, func(a, b *appsv1.ReplicaSet) int { return int(Revision(a) - Revision(b)) })
	return all, nil
}
