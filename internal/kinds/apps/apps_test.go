package apps_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func rolling(d *appsv1.Deployment, unavailable, surge *metav1.IntOrString) {
	d.Spec.Strategy = &appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: unavailable, MaxSurge: surge}}
}

func TestDeployment(t *testing.T) {
	kindtest.Validate(t, kindtest.Deployment, []kindtest.Bad[*appsv1.Deployment]{
		{Name: "no spec", Edit: func(d *appsv1.Deployment) { d.Spec = nil }, Want: []string{"spec.selector: Required value", "spec.template: Required value"}},
		{Name: "negative replicas", Edit: func(d *appsv1.Deployment) { d.Spec.Replicas = proto.Int32(-1) },
			Want: []string{"spec.replicas: Invalid value: -1: must be greater than or equal to 0"}},
		{Name: "no selector", Edit: func(d *appsv1.Deployment) { d.Spec.Selector = nil }, Want: []string{"spec.selector: Required value"}},
		{Name: "empty selector", Edit: func(d *appsv1.Deployment) { d.Spec.Selector = &metav1.LabelSelector{} },
			Want: []string{"spec.selector: Invalid value: \"{}\": empty selector is invalid for deployment"}},
		{Name: "deadline", Edit: func(d *appsv1.Deployment) { d.Spec.Template.Spec.ActiveDeadlineSeconds = proto.Int64(5) },
			Want: []string{"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in Deployment is not Supported"}},
		{Name: "selector that does not match", Edit: func(d *appsv1.Deployment) { d.Spec.Selector.MatchLabels["app"] = "db" },
			Want: []string{"spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"}},
		{Name: "selector operator", Edit: func(d *appsv1.Deployment) {
			d.Spec.Selector.MatchExpressions = []*metav1.LabelSelectorRequirement{{Key: "a", Operator: "is"}}
		}, Want: []string{`spec.selector.matchExpressions[0].operator: Invalid value: "is"`}},
		{Name: "selector without values", Edit: func(d *appsv1.Deployment) {
			d.Spec.Selector.MatchExpressions = []*metav1.LabelSelectorRequirement{{Key: "app", Operator: "In"}}
		}, Want: []string{"spec.selector.matchExpressions[0].values: Required value"}},
		{Name: "restart policy", Edit: func(d *appsv1.Deployment) { d.Spec.Template.Spec.RestartPolicy = "Never" },
			Want: []string{`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`}},
		{Name: "no containers", Edit: func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers = nil }, Want: []string{"spec.template.spec.containers: Required value"}},
		{Name: "path into the template", Edit: func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Ports = []*corev1.ContainerPort{{ContainerPort: 65536}}
		}, Want: []string{"spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive"}},
		{Name: "strategy", Edit: func(d *appsv1.Deployment) { d.Spec.Strategy = &appsv1.DeploymentStrategy{Type: "BlueGreen"} },
			Want: []string{`spec.strategy.type: Unsupported value: "BlueGreen": supported values: "Recreate", "RollingUpdate"`}},
		{Name: "both zero", Edit: func(d *appsv1.Deployment) { rolling(d, object.Count(0), object.Text("0%")) },
			Want: []string{"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"}},
		{Name: "negative surge", Edit: func(d *appsv1.Deployment) { rolling(d, nil, object.Count(-1)) },
			Want: []string{"spec.strategy.rollingUpdate.maxSurge: Invalid value: -1"}},
		{Name: "percent format", Edit: func(d *appsv1.Deployment) { rolling(d, object.Text("25"), object.Text("%")) },
			Want: []string{`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "25": a valid percent string`, `spec.strategy.rollingUpdate.maxSurge: Invalid value: "%"`}},
		{Name: "over 100%", Edit: func(d *appsv1.Deployment) { rolling(d, object.Text("101%"), object.Text("200%")) },
			Want: []string{`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`}},
		{Name: "rolling with Recreate", Edit: func(d *appsv1.Deployment) { rolling(d, nil, nil); d.Spec.Strategy.Type = "Recreate" },
			Want: []string{"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"}},
		{Name: "Recreate", Edit: func(d *appsv1.Deployment) { d.Spec.Strategy = &appsv1.DeploymentStrategy{Type: "Recreate"} }, Want: nil},
		{Name: "seconds", Edit: func(d *appsv1.Deployment) {
			d.Spec.MinReadySeconds, d.Spec.RevisionHistoryLimit = -1, proto.Int32(-1)
		}, Want: []string{"spec.minReadySeconds: Invalid value: -1", "spec.revisionHistoryLimit: Invalid value: -1"}},
		{Name: "progress deadline", Edit: func(d *appsv1.Deployment) { d.Spec.MinReadySeconds = 600 },
			Want: []string{"spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"}},
	})
}

func TestDeploymentDefaults(t *testing.T) {
	d := kindtest.Deployment()
	kinds.Of(d).Default(d)
	s := d.GetSpec()
	if s.GetReplicas() != 1 || s.GetStrategy().GetType() != "RollingUpdate" || s.GetRevisionHistoryLimit() != 10 || s.GetProgressDeadlineSeconds() != 600 {
		t.Errorf("spec %v", s)
	}
	if r := s.GetStrategy().GetRollingUpdate(); r.GetMaxSurge().GetStrVal() != "25%" || r.GetMaxUnavailable().GetStrVal() != "25%" {
		t.Errorf("rolling update %v", r)
	}
	if p := s.GetTemplate().GetSpec(); p.GetRestartPolicy() != "Always" || p.GetServiceAccountName() != "" {
		t.Errorf("template: restart policy %q, account %q", p.GetRestartPolicy(), p.GetServiceAccountName())
	}
	zero := kindtest.Deployment()
	zero.Spec.Replicas = proto.Int32(0)
	kinds.Of(zero).Default(zero)
	if zero.GetSpec().GetReplicas() != 0 {
		t.Error("0 replicas became 1")
	}
}

func TestDeploymentUpdate(t *testing.T) {
	kindtest.Update(t, kindtest.Deployment, []kindtest.Edit[*appsv1.Deployment]{
		{Name: "image", Edit: func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "web:2" }, Want: nil},
		{Name: "selector", Edit: func(d *appsv1.Deployment) { d.Spec.Selector.MatchLabels["a"] = "b" },
			Want: []string{`spec.selector: Invalid value: "a=b,app=web": field is immutable`}},
	})
	d := kindtest.Deployment()
	d.Status = &appsv1.DeploymentStatus{Replicas: 1, ReadyReplicas: 2, AvailableReplicas: 3}
	kindtest.Expect(t, kinds.Of(d).ValidateStatusUpdate(d, kindtest.Deployment()), []string{
		"status.readyReplicas: Invalid value: 2", "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
		"status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
	})
	d.Status = &appsv1.DeploymentStatus{TerminatingReplicas: proto.Int32(-1)}
	kindtest.Expect(t, kinds.Of(d).ValidateStatusUpdate(d, kindtest.Deployment()), []string{"status.terminatingReplicas: Invalid value: -1"})
}

func TestReplicaSet(t *testing.T) {
	kindtest.Validate(t, kindtest.ReplicaSet, []kindtest.Bad[*appsv1.ReplicaSet]{
		{Name: "no spec", Edit: func(r *appsv1.ReplicaSet) { r.Spec = nil }, Want: []string{"spec.selector: Required value", "spec.template: Required value"}},
		{Name: "negative replicas", Edit: func(r *appsv1.ReplicaSet) { r.Spec.Replicas = proto.Int32(-1) }, Want: []string{"spec.replicas: Invalid value: -1"}},
		{Name: "empty selector", Edit: func(r *appsv1.ReplicaSet) { r.Spec.Selector = &metav1.LabelSelector{} },
			Want: []string{"spec.selector: Invalid value: \"{}\": empty selector is invalid for replicaset"}},
		{Name: "deadline", Edit: func(r *appsv1.ReplicaSet) { r.Spec.Template.Spec.ActiveDeadlineSeconds = proto.Int64(5) },
			Want: []string{"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"}},
		{Name: "selector that does not match", Edit: func(r *appsv1.ReplicaSet) { r.Spec.Template.Metadata = nil },
			Want: []string{"spec.template.metadata.labels: Invalid value"}},
	})
	kindtest.Update(t, kindtest.ReplicaSet, []kindtest.Edit[*appsv1.ReplicaSet]{
		{Name: "replicas", Edit: func(r *appsv1.ReplicaSet) { r.Spec.Replicas = proto.Int32(4) }, Want: nil},
		{Name: "selector", Edit: func(r *appsv1.ReplicaSet) { r.Spec.Selector = nil }, Want: []string{"spec.selector: Invalid value"}},
	})
}

func TestAppsColumns(t *testing.T) {
	d := kindtest.Deployment()
	d.Metadata.CreationTimestamp = kindtest.Ago(5*24*time.Hour + 3*time.Hour)
	kinds.Of(d).Default(d)
	d.Spec.Replicas = proto.Int32(3)
	d.Status = &appsv1.DeploymentStatus{ReadyReplicas: 2, UpdatedReplicas: 3, AvailableReplicas: 1}
	kindtest.ExpectCells(t, d, kindtest.Now, map[string]string{
		"READY": "2/3", "UP-TO-DATE": "3", "AVAILABLE": "1", "AGE": "5d3h", "CONTAINERS": "web", "IMAGES": "web:1", "SELECTOR": "app=web",
	})
	r := kindtest.ReplicaSet()
	r.Spec.Replicas = proto.Int32(3)
	r.Status = &appsv1.ReplicaSetStatus{Replicas: 2, ReadyReplicas: 1}
	kindtest.ExpectCells(t, r, kindtest.Now, map[string]string{"DESIRED": "3", "CURRENT": "2", "READY": "1", "AGE": "<unknown>"})
}
