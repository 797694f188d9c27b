package diagnose

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/terminal"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// deadlineExceeded is the reason of a rollout that stopped moving.
const deadlineExceeded = "ProgressDeadlineExceeded"

// deployment is the rollout of a deployment, whose revisions are replica sets.
type deployment struct{ *appsv1.Deployment }

var _ Pausable = deployment{}

// State implements Rollout.
func (d deployment) State() (text string, done bool, err error) {
	name, want, status := d.GetMetadata().GetName(), d.GetSpec().GetReplicas(), d.GetStatus()
	if status.GetObservedGeneration() < d.GetMetadata().GetGeneration() {
		return "Waiting for deployment spec update to be observed...", false, nil
	}
	if c := condition.Find(status.GetConditions(), apps.DeploymentProgressing); c.GetReason() == deadlineExceeded {
		return "", false, fmt.Errorf(
			"deployment %q exceeded its progress deadline: 'xebec describe deployment %s' and its pods show why", name, name)
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

// Waits implements Rollout: that pods can't be made, or what one of the pods of the present
// template waits for.
func (d deployment) Waits(ctx context.Context, cl *client.Client) (string, error) {
	if c := condition.Find(d.GetStatus().GetConditions(), apps.DeploymentReplicaFailure); c.GetStatus() == condition.True {
		return terminal.OneLine(fmt.Sprintf("cannot create pods: %s: %s", c.GetReason(), c.GetMessage())), nil
	}
	sets, err := ReplicaSets(ctx, cl, d.Deployment)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(sets, func(rs *appsv1.ReplicaSet) bool { return DeploymentRevision(rs) == DeploymentRevision(d.Deployment) })
	if i < 0 {
		return "", nil
	}
	return podsWait(ctx, cl, sets[i], sets[i].GetSpec().GetSelector())
}

// Revisions implements Rollout.
func (d deployment) Revisions(ctx context.Context, cl *client.Client) ([]Revision, error) {
	sets, err := ReplicaSets(ctx, cl, d.Deployment)
	if err != nil {
		return nil, err
	}
	revisions := make([]Revision, len(sets))
	for i, set := range sets {
		number := DeploymentRevision(set)
		revisions[i] = Revision{
			Number: number, Holder: set, Template: set.GetSpec().GetTemplate(), Replicas: set.GetSpec().GetReplicas(),
			Current: number == DeploymentRevision(d.Deployment),
		}
	}
	return revisions, nil
}

// Template implements Rollout.
func (d deployment) Template() *corev1.PodTemplateSpec { return d.GetSpec().GetTemplate() }

// SetTemplate implements Rollout. Replica sets have a label in their templates that deployments do
// not have.
func (d deployment) SetTemplate(t *corev1.PodTemplateSpec) {
	t = proto.CloneOf(t)
	delete(t.GetMetadata().GetLabels(), apps.LabelPodTemplateHash)
	d.Spec.Template = t
}

// Paused implements Pausable.
func (d deployment) Paused() *bool { return &d.Spec.Paused }

// DeploymentRevision is the revision that a deployment is at, or that a replica set holds; 0 when
// it is not known.
func DeploymentRevision(obj scheme.Object) int64 {
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
	slices.SortFunc(all, func(a, b *appsv1.ReplicaSet) int { return int(DeploymentRevision(a) - DeploymentRevision(b)) })
	return all, nil
}
