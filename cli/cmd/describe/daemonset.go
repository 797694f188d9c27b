package describe

import (
	"context"
	"fmt"
	"strconv"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/column"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func describeDaemonSet(ctx context.Context, cl *client.Client, r *report, d *appsv1.DaemonSet) error {
	selector, err := object.LabelSelector(d.GetSpec().GetSelector())
	if err != nil {
		return err
	}
	r.metadata(d)
	r.field("Selector", selector.String())
	r.field("Node-Selector", column.FormatLabels(d.GetSpec().GetTemplate().GetSpec().GetNodeSelector()))
	r.labels(d)
	r.ends(d)
	s := d.GetStatus()
	for _, count := range []struct {
		name string
		n    int32
	}{
		{"Desired Number of Nodes Scheduled", s.GetDesiredNumberScheduled()},
		{"Current Number of Nodes Scheduled", s.GetCurrentNumberScheduled()},
		{"Number of Nodes Scheduled with Up-to-date Pods", s.GetUpdatedNumberScheduled()},
		{"Number of Nodes Scheduled with Available Pods", s.GetNumberAvailable()},
		{"Number of Nodes Misscheduled", s.GetNumberMisscheduled()},
	} {
		r.field(count.name, strconv.Itoa(int(count.n)))
	}
	if err := r.podStatuses(ctx, cl, d, selector); err != nil {
		return err
	}
	r.template(d.GetSpec().GetTemplate())
	return nil
}

func describeReplicationController(ctx context.Context, cl *client.Client, r *report, rc *corev1.ReplicationController) error {
	r.metadata(rc)
	r.field("Selector", column.FormatLabels(rc.GetSpec().GetSelector()))
	r.labels(rc)
	r.ends(rc)
	r.field("Replicas", fmt.Sprintf("%d current / %d desired", rc.GetStatus().GetReplicas(), rc.GetSpec().GetReplicas()))
	if err := r.podStatuses(ctx, cl, rc, labels.SelectorFromSet(rc.GetSpec().GetSelector())); err != nil {
		return err
	}
	r.template(rc.GetSpec().GetTemplate())
	conditions(r, rc.GetStatus().GetConditions())
	return nil
}

// podStatuses counts the pods of an owner by phase.
func (r *report) podStatuses(ctx context.Context, cl *client.Client, owner scheme.Object, selector labels.Selector) error {
	pods, _, err := client.List[*corev1.Pod](ctx, cl, client.ListOptions{
		Namespace: owner.GetMetadata().GetNamespace(), LabelSelector: selector.String(),
	})
	if err != nil {
		return err
	}
	phases := map[string]int{}
	for _, p := range pods {
		if kinds.IsControlledBy(p, owner) {
			phases[p.GetStatus().GetPhase()]++
		}
	}
	r.field("Pods Status", fmt.Sprintf("%d Running / %d Waiting / %d Succeeded / %d Failed",
		phases[core.PodRunning], phases[core.PodPending], phases[core.PodSucceeded], phases[core.PodFailed]))
	return nil
}
