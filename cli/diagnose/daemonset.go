package diagnose

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller/history"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// daemonSet is the rollout of a DaemonSet, whose revisions are ControllerRevisions.
type daemonSet struct{ *appsv1.DaemonSet }

// State implements Rollout.
func (d daemonSet) State() (text string, done bool, err error) {
	name, status := d.GetMetadata().GetName(), d.GetStatus()
	waiting := fmt.Sprintf("Waiting for daemon set %q rollout to finish: ", name)
	switch want := status.GetDesiredNumberScheduled(); {
	case d.GetSpec().GetUpdateStrategy().GetType() != apps.StrategyRollingUpdate:
		return "", false, errors.New("rollout status is only available for RollingUpdate strategy type")
	case status.GetObservedGeneration() < d.GetMetadata().GetGeneration():
		return "Waiting for daemon set spec update to be observed...", false, nil
	case status.GetUpdatedNumberScheduled() < want:
		return waiting + fmt.Sprintf("%d out of %d new pods have been updated...", status.GetUpdatedNumberScheduled(), want), false, nil
	case status.GetNumberAvailable() < want:
		return waiting + fmt.Sprintf("%d of %d updated pods are available...", status.GetNumberAvailable(), want), false, nil
	}
	return fmt.Sprintf("daemon set %q successfully rolled out", name), true, nil
}

// Waits implements Rollout: what one of the pods waits for.
func (d daemonSet) Waits(ctx context.Context, cl *client.Client) (string, error) {
	return podsWait(ctx, cl, d.DaemonSet, d.GetSpec().GetSelector())
}

// Revisions implements Rollout.
func (d daemonSet) Revisions(ctx context.Context, cl *client.Client) ([]Revision, error) {
	selector, err := object.LabelSelector(d.GetSpec().GetSelector())
	if err != nil {
		return nil, err
	}
	held, _, err := client.List[*appsv1.ControllerRevision](ctx, cl, client.ListOptions{
		Namespace: d.GetMetadata().GetNamespace(), LabelSelector: selector.String(),
	})
	if err != nil {
		return nil, err
	}
	held = slices.DeleteFunc(held, func(r *appsv1.ControllerRevision) bool { return !kinds.IsControlledBy(r, d.DaemonSet) })
	pods, err := podsOf(ctx, cl, d.DaemonSet, d.GetSpec().GetSelector())
	if err != nil {
		return nil, err
	}
	current, err := history.Data(d.GetSpec().GetTemplate())
	if err != nil {
		return nil, err
	}
	equal := history.FindEqual(held, current)
	var revisions []Revision
	for _, r := range history.Sorted(held) {
		template, err := history.Template(r)
		if err != nil {
			return nil, err
		}
		revision := Revision{Number: r.GetRevision(), Holder: r, Template: template, Current: slices.Contains(equal, r)}
		for _, p := range pods {
			if p.GetMetadata().GetLabels()[apps.LabelControllerRevision] == r.GetMetadata().GetLabels()[apps.LabelControllerRevision] {
				revision.Replicas++
			}
		}
		revisions = append(revisions, revision)
	}
	return revisions, nil
}

// Template implements Rollout.
func (d daemonSet) Template() *corev1.PodTemplateSpec { return d.GetSpec().GetTemplate() }

// SetTemplate implements Rollout.
func (d daemonSet) SetTemplate(t *corev1.PodTemplateSpec) { d.Spec.Template = proto.CloneOf(t) }
