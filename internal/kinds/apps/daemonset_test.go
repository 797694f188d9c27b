package apps_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func byNode(d *appsv1.DaemonSet, unavailable, surge *metav1.IntOrString) {
	d.Spec.UpdateStrategy = &appsv1.DaemonSetUpdateStrategy{
		RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: unavailable, MaxSurge: surge},
	}
}

func TestDaemonSet(t *testing.T) {
	kindtest.Validate(t, kindtest.DaemonSet, []kindtest.Bad[*appsv1.DaemonSet]{
		{Name: "no spec", Edit: func(d *appsv1.DaemonSet) { d.Spec = nil }, Want: []string{"spec.selector: Required value", "spec.template: Required value"}},
		{Name: "empty selector", Edit: func(d *appsv1.DaemonSet) { d.Spec.Selector = &metav1.LabelSelector{} },
			Want: []string{"spec.selector: Invalid value: \"{}\": empty selector is invalid for daemonset"}},
		{Name: "selector that does not match", Edit: func(d *appsv1.DaemonSet) { d.Spec.Selector.MatchLabels["app"] = "db" },
			Want: []string{"spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"}},
		{Name: "restart policy", Edit: func(d *appsv1.DaemonSet) { d.Spec.Template.Spec.RestartPolicy = "OnFailure" },
			Want: []string{`spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always"`}},
		{Name: "deadline", Edit: func(d *appsv1.DaemonSet) { d.Spec.Template.Spec.ActiveDeadlineSeconds = proto.Int64(5) },
			Want: []string{"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported"}},
		{Name: "strategy", Edit: func(d *appsv1.DaemonSet) { d.Spec.UpdateStrategy = &appsv1.DaemonSetUpdateStrategy{Type: "Recreate"} },
			Want: []string{`spec.updateStrategy.type: Unsupported value: "Recreate": supported values: "RollingUpdate", "OnDelete"`}},
		{Name: "both zero", Edit: func(d *appsv1.DaemonSet) { byNode(d, object.Count(0), object.Text("0%")) },
			Want: []string{"spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"}},
		{Name: "surge beside the default of maxUnavailable", Edit: func(d *appsv1.DaemonSet) { byNode(d, nil, object.Count(1)) },
			Want: []string{"spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"}},
		{Name: "surge alone", Edit: func(d *appsv1.DaemonSet) { byNode(d, object.Count(0), object.Text("10%")) }, Want: nil},
		{Name: "more than all nodes", Edit: func(d *appsv1.DaemonSet) { byNode(d, object.Text("101%"), nil) },
			Want: []string{`spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`}},
		{Name: "surge on more than all nodes", Edit: func(d *appsv1.DaemonSet) { byNode(d, object.Count(0), object.Text("101%")) },
			Want: []string{`spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "101%": must not be greater than 100%`}},
		{Name: "percent format", Edit: func(d *appsv1.DaemonSet) { byNode(d, object.Text("25"), nil) },
			Want: []string{`spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "25": a valid percent string`}},
		{Name: "negative", Edit: func(d *appsv1.DaemonSet) {
			byNode(d, object.Count(-1), nil)
			d.Spec.MinReadySeconds, d.Spec.RevisionHistoryLimit = -1, proto.Int32(-1)
		}, Want: []string{"spec.minReadySeconds: Invalid value: -1", "spec.revisionHistoryLimit: Invalid value: -1",
			"spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: -1"}},
		{Name: "OnDelete", Edit: func(d *appsv1.DaemonSet) { d.Spec.UpdateStrategy = &appsv1.DaemonSetUpdateStrategy{Type: "OnDelete"} }, Want: nil},
	})
	kindtest.Update(t, kindtest.DaemonSet, []kindtest.Edit[*appsv1.DaemonSet]{
		{Name: "image", Edit: func(d *appsv1.DaemonSet) { d.Spec.Template.Spec.Containers[0].Image = "web:2" }, Want: nil},
		{Name: "selector", Edit: func(d *appsv1.DaemonSet) { d.Spec.Selector.MatchLabels["a"] = "b" },
			Want: []string{`spec.selector: Invalid value: "a=b,app=web": field is immutable`}},
	})
	old, d := kindtest.DaemonSet(), kindtest.DaemonSet()
	old.Status = &appsv1.DaemonSetStatus{CollisionCount: proto.Int32(2)}
	d.Status = &appsv1.DaemonSetStatus{CollisionCount: proto.Int32(1), NumberReady: -1}
	kindtest.Expect(t, kinds.Of(d).ValidateStatusUpdate(d, old), []string{
		"status.collisionCount: Invalid value: 1: cannot be decremented", "status.numberReady: Invalid value: -1",
	})
}

func TestDaemonSetDefaults(t *testing.T) {
	d := kindtest.DaemonSet()
	kinds.Of(d).Default(d)
	r := d.GetSpec().GetUpdateStrategy().GetRollingUpdate()
	if !proto.Equal(r.GetMaxUnavailable(), object.Count(1)) || !proto.Equal(r.GetMaxSurge(), object.Count(0)) || d.GetSpec().GetRevisionHistoryLimit() != 10 {
		t.Errorf("got %v", d.GetSpec())
	}
	d.Spec.UpdateStrategy = &appsv1.DaemonSetUpdateStrategy{Type: "OnDelete"}
	kinds.Of(d).Default(d)
	if d.GetSpec().GetUpdateStrategy().GetRollingUpdate() != nil {
		t.Errorf("OnDelete has %v", d.GetSpec().GetUpdateStrategy())
	}
}

func TestDaemonSetColumns(t *testing.T) {
	d := kindtest.DaemonSet()
	d.Metadata.CreationTimestamp = kindtest.Ago(time.Minute)
	d.Spec.Template.Spec.NodeSelector = map[string]string{"b": "2", "a": "1"}
	d.Status = &appsv1.DaemonSetStatus{
		DesiredNumberScheduled: 5, CurrentNumberScheduled: 4, NumberReady: 3, UpdatedNumberScheduled: 2, NumberAvailable: 1,
	}
	kindtest.ExpectCells(t, d, kindtest.Now, map[string]string{
		"DESIRED": "5", "CURRENT": "4", "READY": "3", "UP-TO-DATE": "2", "AVAILABLE": "1", "NODE SELECTOR": "a=1,b=2", "AGE": "60s",
		"CONTAINERS": "web", "IMAGES": "web:1", "SELECTOR": "app=web",
	})
}
