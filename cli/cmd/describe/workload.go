package describe

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/xebec-project/xebec/cli/diagnose"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/column"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func describeDeployment(ctx context.Context, cl *client.Client, r *report, d *appsv1.Deployment) error {
	sets, err := diagnose.ReplicaSets(ctx, cl, d)
	if err != nil {
		return err
	}
	spec, status := d.GetSpec(), d.GetStatus()
	r.metadata(d)
	r.time("Created", d.GetMetadata().GetCreationTimestamp())
	r.labels(d)
	r.ends(d)
	r.field("Selector", column.FormatLabelSelector(spec.GetSelector()))
	r.field("Replicas", fmt.Sprintf("%d desired | %d updated | %d total | %d available | %d unavailable",
		spec.GetReplicas(), status.GetUpdatedReplicas(), status.GetReplicas(), status.GetAvailableReplicas(), status.GetUnavailableReplicas()))
	r.field("Strategy", spec.GetStrategy().GetType())
	if u := spec.GetStrategy().GetRollingUpdate(); u != nil {
		r.field(
			"Rolling Update",
			fmt.Sprintf("%s max unavailable, %s max surge", printer.IntOrString(u.GetMaxUnavailable()), printer.IntOrString(u.GetMaxSurge())),
		)
	}
	r.field("Min Ready Seconds", strconv.Itoa(int(spec.GetMinReadySeconds())))
	if spec.GetPaused() {
		r.field("Paused", "yes, until 'xebec rollout resume'")
	}
	r.template(spec.GetTemplate())
	conditions(r, status.GetConditions())
	var old []string
	current := "<none>"
	for _, set := range sets {
		text := fmt.Sprintf(
			"%s (%d/%d replicas ready)",
			set.GetMetadata().GetName(),
			set.GetStatus().GetReadyReplicas(),
			set.GetSpec().GetReplicas(),
		)
		switch {
		case diagnose.DeploymentRevision(set) == diagnose.DeploymentRevision(d):
			current = text
		case set.GetSpec().GetReplicas() > 0 || set.GetStatus().GetReplicas() > 0:
			old = append(old, text)
		}
	}
	r.list("Old ReplicaSets", old)
	r.field("New ReplicaSet", current)
	return nil
}

// Template writes a pod template.
func Template(w io.Writer, now time.Time, t *corev1.PodTemplateSpec) error {
	r := newReport(w, now)
	r.template(t)
	return r.flush()
}

func (r *report) template(t *corev1.PodTemplateSpec) {
	r.group("Pod Template", func() {
		r.list("Labels", printer.Lines(t.GetMetadata().GetLabels(), "="))
		r.list("Annotations", printer.Lines(t.GetMetadata().GetAnnotations(), ": "))
		if a := t.GetSpec().GetServiceAccountName(); a != "" {
			r.field("Service Account", a)
		}
		if len(t.GetSpec().GetInitContainers()) > 0 {
			r.group("Init Containers", func() {
				for _, c := range t.GetSpec().GetInitContainers() {
					r.container(c, nil)
				}
			})
		}
		r.group("Containers", func() {
			for _, c := range t.GetSpec().GetContainers() {
				r.container(c, nil)
			}
		})
		r.volumes(t.GetSpec().GetVolumes())
	})
}

func (r *report) replicaSet(rs *appsv1.ReplicaSet) {
	r.metadata(rs)
	r.field("Selector", column.FormatLabelSelector(rs.GetSpec().GetSelector()))
	r.labels(rs)
	r.ends(rs)
	r.field("Replicas", fmt.Sprintf("%d desired | %d current | %d ready | %d available", rs.GetSpec().GetReplicas(),
		rs.GetStatus().GetReplicas(), rs.GetStatus().GetReadyReplicas(), rs.GetStatus().GetAvailableReplicas()))
	r.template(rs.GetSpec().GetTemplate())
	conditions(r, rs.GetStatus().GetConditions())
}
