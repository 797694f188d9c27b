package core_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func TestReplicationController(t *testing.T) {
	kindtest.Validate(t, kindtest.ReplicationController, []kindtest.Bad[*corev1.ReplicationController]{
		{Name: "no spec", Edit: func(r *corev1.ReplicationController) { r.Spec = nil }, Want: []string{"spec.selector: Required value", "spec.template: Required value"}},
		{Name: "negative", Edit: func(r *corev1.ReplicationController) { r.Spec.Replicas, r.Spec.MinReadySeconds = proto.Int32(-1), -1 },
			Want: []string{"spec.minReadySeconds: Invalid value: -1", "spec.replicas: Invalid value: -1"}},
		{Name: "no labels", Edit: func(r *corev1.ReplicationController) { r.Spec.Template.Metadata = nil }, Want: []string{"spec.selector: Required value"}},
		{Name: "selector that does not match", Edit: func(r *corev1.ReplicationController) { r.Spec.Selector = map[string]string{"app": "db"} },
			Want: []string{"spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"}},
		{Name: "restart policy", Edit: func(r *corev1.ReplicationController) { r.Spec.Template.Spec.RestartPolicy = "Never" },
			Want: []string{`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`}},
		{Name: "deadline", Edit: func(r *corev1.ReplicationController) { r.Spec.Template.Spec.ActiveDeadlineSeconds = proto.Int64(5) },
			Want: []string{"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported"}},
	})
	kindtest.Update(t, kindtest.ReplicationController, []kindtest.Edit[*corev1.ReplicationController]{
		{Name: "selector", Edit: func(r *corev1.ReplicationController) {
			r.Spec.Selector, r.Spec.Template.Metadata.Labels = map[string]string{"app": "b"}, map[string]string{"app": "b"}
		}, Want: nil},
	})
	r := kindtest.ReplicationController()
	r.Status = &corev1.ReplicationControllerStatus{Replicas: 1, FullyLabeledReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 3}
	kindtest.Expect(t, kinds.Of(r).ValidateStatusUpdate(r, kindtest.ReplicationController()), []string{
		"status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
		"status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
		"status.fullyLabeledReplicas: Invalid value: 2", "status.readyReplicas: Invalid value: 2",
	})
}

func TestReplicationControllerTakesLabelsFromTheTemplate(t *testing.T) {
	r := kindtest.ReplicationController()
	k := kinds.Of(r)
	k.Default(r)
	if r.GetSpec().GetReplicas() != 1 || r.GetSpec().GetSelector()["app"] != "web" || r.GetMetadata().GetLabels()["app"] != "web" {
		t.Errorf("got %v", r)
	}
	r.Spec.Selector["more"] = "x"
	if len(r.GetMetadata().GetLabels()) != 1 || len(r.GetSpec().GetTemplate().GetMetadata().GetLabels()) != 1 {
		t.Error("the selector shares memory with labels")
	}
	if s, err := object.ScaleSelector(k, r); err != nil || s != "app=web,more=x" {
		t.Errorf("the selector of the scale is %q, %v", s, err)
	}
	r.Status = &corev1.ReplicationControllerStatus{Replicas: 2, ReadyReplicas: 1}
	kindtest.ExpectCells(t, r, kindtest.Now, map[string]string{
		"DESIRED": "1", "CURRENT": "2", "READY": "1", "AGE": "<unknown>", "CONTAINERS": "web", "IMAGES": "web:1", "SELECTOR": "app=web,more=x",
	})
}

func TestPodTemplate(t *testing.T) {
	kindtest.Validate(t, kindtest.PodTemplate, []kindtest.Bad[*corev1.PodTemplate]{
		{Name: "no template", Edit: func(p *corev1.PodTemplate) { p.Template = nil }, Want: []string{"template.spec.containers: Required value"}},
		{Name: "a job's", Edit: func(p *corev1.PodTemplate) {
			p.Template.Spec.RestartPolicy, p.Template.Spec.ActiveDeadlineSeconds = "Never", proto.Int64(5)
		}, Want: nil},
	})
	kindtest.ExpectCells(t, kindtest.PodTemplate(), kindtest.Now, map[string]string{"CONTAINERS": "web", "IMAGES": "web:1", "POD LABELS": "app=web"})
}
