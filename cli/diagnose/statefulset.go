package diagnose

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/core"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// statefulSet is the rollout of a stateful set, whose revisions are ControllerRevisions. Its pods
// name a revision by its name.
type statefulSet struct{ *appsv1.StatefulSet }

var _ Rollout = statefulSet{}

// State implements Rollout.
func (s statefulSet) State() (text string, done bool, err error) {
	name, spec, status := s.GetMetadata().GetName(), s.GetSpec(), s.GetStatus()
	want := spec.GetReplicas()
	if spec.GetUpdateStrategy().GetType() == apps.StrategyOnDelete {
		return "", false, fmt.Errorf("rollout status is only available for the strategy RollingUpdate: statefulset %q has OnDelete", name)
	}
	if status.GetObservedGeneration() == 0 || status.GetObservedGeneration() < s.GetMetadata().GetGeneration() {
		return "Waiting for statefulset spec update to be observed...", false, nil
	}
	partition := spec.GetUpdateStrategy().GetRollingUpdate().GetPartition()
	switch updated := max(want-partition, 0); {
	case status.GetReadyReplicas() < want:
		return fmt.Sprintf("Waiting for %d pods to be ready...", want-status.GetReadyReplicas()), false, nil
	case partition > 0 && status.GetUpdatedReplicas() < updated:
		return fmt.Sprintf("Waiting for partitioned roll out to finish: %d out of %d new pods have been updated...",
			status.GetUpdatedReplicas(), updated), false, nil
	case partition > 0:
		return fmt.Sprintf("partitioned roll out complete: %d new pods have been updated...", status.GetUpdatedReplicas()), true, nil
	case status.GetUpdateRevision() != status.GetCurrentRevision():
		return fmt.Sprintf("waiting for statefulset rolling update to complete %d pods at revision %s...",
			status.GetUpdatedReplicas(), status.GetUpdateRevision()), false, nil
	}
	return fmt.Sprintf("statefulset rolling update complete %d pods at revision %s...",
		status.GetCurrentReplicas(), status.GetCurrentRevision()), true, nil
}

// Waits implements Rollout: what one of the pods waits for, and that a broken one of an old
// revision has to be deleted by hand.
func (s statefulSet) Waits(ctx context.Context, cl *client.Client) (string, error) {
	pods, err := podsOf(ctx, cl, s.StatefulSet, s.GetSpec().GetSelector())
	if err != nil {
		return "", err
	}
	p := Worst(pods)
	if p == nil {
		return "", nil
	}
	name := p.GetMetadata().GetName()
	text := fmt.Sprintf("pod %s: %s", name, podProblem(p))
	revision := p.GetMetadata().GetLabels()[apps.LabelControllerRevisionHash]
	if s.GetSpec().GetPodManagementPolicy() != apps.Parallel && revision != s.GetStatus().GetUpdateRevision() && !core.IsPodReady(p) {
		text += fmt.Sprintf(" (it has the old revision %s and holds up the update: 'xebec delete pod %s' replaces it)", revision, name)
	}
	return text, nil
}

// Revisions implements Rollout.
func (s statefulSet) Revisions(ctx context.Context, cl *client.Client) ([]Revision, error) {
	name := func(r *appsv1.ControllerRevision) string { return r.GetMetadata().GetName() }
	return controllerRevisions(ctx, cl, s.StatefulSet, s.GetSpec().GetSelector(), name)
}

// Template implements Rollout.
func (s statefulSet) Template() *corev1.PodTemplateSpec { return s.GetSpec().GetTemplate() }

// SetTemplate implements Rollout.
func (s statefulSet) SetTemplate(t *corev1.PodTemplateSpec) { s.Spec.Template = proto.CloneOf(t) }
