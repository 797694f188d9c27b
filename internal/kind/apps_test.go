package kind_test

import (
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kind"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func template() *corev1.PodTemplateSpec {
	return &corev1.PodTemplateSpec{
		Metadata: &metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
		Spec:     &corev1.PodSpec{Containers: []*corev1.Container{{Name: "web", Image: "web:1"}}},
	}
}

func webSelector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
}

func deployment() *appsv1.Deployment {
	return &appsv1.Deployment{Metadata: meta("web"), Spec: &appsv1.DeploymentSpec{Selector: webSelector(), Template: template()}}
}

func replicaSet() *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{Metadata: meta("web"), Spec: &appsv1.ReplicaSetSpec{Selector: webSelector(), Template: template()}}
}

func rolling(d *appsv1.Deployment, unavailable, surge *metav1.IntOrString) {
	d.Spec.Strategy = &appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: unavailable, MaxSurge: surge}}
}

func TestDeployment(t *testing.T) {
	testValidate(t, deployment, []badCase[*appsv1.Deployment]{
		{"no spec", func(d *appsv1.Deployment) { d.Spec = nil }, []string{"spec.selector: Required value", "spec.template: Required value"}},
		{"negative replicas", func(d *appsv1.Deployment) { d.Spec.Replicas = proto.Int32(-1) },
			[]string{"spec.replicas: Invalid value: -1: must be greater than or equal to 0"}},
		{"no selector", func(d *appsv1.Deployment) { d.Spec.Selector = nil }, []string{"spec.selector: Required value"}},
		{"empty selector", func(d *appsv1.Deployment) { d.Spec.Selector = &metav1.LabelSelector{} },
			[]string{"spec.selector: Invalid value: \"{}\": empty selector is invalid for deployment"}},
		{"deadline", func(d *appsv1.Deployment) { d.Spec.Template.Spec.ActiveDeadlineSeconds = proto.Int64(5) },
			[]string{"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in Deployment is not Supported"}},
		{"selector that does not match", func(d *appsv1.Deployment) { d.Spec.Selector.MatchLabels["app"] = "db" },
			[]string{"spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"}},
		{"selector operator", func(d *appsv1.Deployment) {
			d.Spec.Selector.MatchExpressions = []*metav1.LabelSelectorRequirement{{Key: "a", Operator: "is"}}
		}, []string{`spec.selector.matchExpressions[0].operator: Invalid value: "is"`}},
		{"selector without values", func(d *appsv1.Deployment) {
			d.Spec.Selector.MatchExpressions = []*metav1.LabelSelectorRequirement{{Key: "app", Operator: "In"}}
		}, []string{"spec.selector.matchExpressions[0].values: Required value"}},
		{"restart policy", func(d *appsv1.Deployment) { d.Spec.Template.Spec.RestartPolicy = "Never" },
			[]string{`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`}},
		{"no containers", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers = nil }, []string{"spec.template.spec.containers: Required value"}},
		{"path into the template", func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Ports = []*corev1.ContainerPort{{ContainerPort: 65536}}
		}, []string{"spec.template.spec.containers[0].ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive"}},
		{"strategy", func(d *appsv1.Deployment) { d.Spec.Strategy = &appsv1.DeploymentStrategy{Type: "BlueGreen"} },
			[]string{`spec.strategy.type: Unsupported value: "BlueGreen": supported values: "Recreate", "RollingUpdate"`}},
		{"both zero", func(d *appsv1.Deployment) { rolling(d, kind.Count(0), kind.Text("0%")) },
			[]string{"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"}},
		{"negative surge", func(d *appsv1.Deployment) { rolling(d, nil, kind.Count(-1)) },
			[]string{"spec.strategy.rollingUpdate.maxSurge: Invalid value: -1"}},
		{"percent format", func(d *appsv1.Deployment) { rolling(d, kind.Text("25"), kind.Text("%")) },
			[]string{`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "25": a valid percent string`, `spec.strategy.rollingUpdate.maxSurge: Invalid value: "%"`}},
		{"over 100%", func(d *appsv1.Deployment) { rolling(d, kind.Text("101%"), kind.Text("200%")) },
			[]string{`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`}},
		{"rolling with Recreate", func(d *appsv1.Deployment) { rolling(d, nil, nil); d.Spec.Strategy.Type = "Recreate" },
			[]string{"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"}},
		{"Recreate", func(d *appsv1.Deployment) { d.Spec.Strategy = &appsv1.DeploymentStrategy{Type: "Recreate"} }, nil},
		{"seconds", func(d *appsv1.Deployment) {
			d.Spec.MinReadySeconds, d.Spec.RevisionHistoryLimit = -1, proto.Int32(-1)
		}, []string{"spec.minReadySeconds: Invalid value: -1", "spec.revisionHistoryLimit: Invalid value: -1"}},
		{"progress deadline", func(d *appsv1.Deployment) { d.Spec.MinReadySeconds = 600 },
			[]string{"spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"}},
	})
}

func TestDeploymentDefaults(t *testing.T) {
	d := deployment()
	kind.Of(d).Default(d)
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
	zero := deployment()
	zero.Spec.Replicas = proto.Int32(0)
	kind.Of(zero).Default(zero)
	if zero.GetSpec().GetReplicas() != 0 {
		t.Error("0 replicas became 1")
	}
}

func TestDeploymentUpdate(t *testing.T) {
	testUpdate(t, deployment, []updateCase[*appsv1.Deployment]{
		{"image", func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "web:2" }, nil},
		{"selector", func(d *appsv1.Deployment) { d.Spec.Selector.MatchLabels["a"] = "b" },
			[]string{`spec.selector: Invalid value: "a=b,app=web": field is immutable`}},
	})
	d := deployment()
	d.Status = &appsv1.DeploymentStatus{Replicas: 1, ReadyReplicas: 2, AvailableReplicas: 3}
	expect(t, kind.Of(d).ValidateStatusUpdate(d, deployment()), []string{"status.readyReplicas: Invalid value: 2", "status.availableReplicas: Invalid value: 3"})
	d.Status = &appsv1.DeploymentStatus{TerminatingReplicas: proto.Int32(-1)}
	expect(t, kind.Of(d).ValidateStatusUpdate(d, deployment()), []string{"status.terminatingReplicas: Invalid value: -1"})
}

func TestReplicaSet(t *testing.T) {
	testValidate(t, replicaSet, []badCase[*appsv1.ReplicaSet]{
		{"no spec", func(r *appsv1.ReplicaSet) { r.Spec = nil }, []string{"spec.selector: Required value", "spec.template: Required value"}},
		{"negative replicas", func(r *appsv1.ReplicaSet) { r.Spec.Replicas = proto.Int32(-1) }, []string{"spec.replicas: Invalid value: -1"}},
		{"empty selector", func(r *appsv1.ReplicaSet) { r.Spec.Selector = &metav1.LabelSelector{} },
			[]string{"spec.selector: Invalid value: \"{}\": empty selector is invalid for replicaset"}},
		{"deadline", func(r *appsv1.ReplicaSet) { r.Spec.Template.Spec.ActiveDeadlineSeconds = proto.Int64(5) },
			[]string{"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported"}},
		{"selector that does not match", func(r *appsv1.ReplicaSet) { r.Spec.Template.Metadata = nil },
			[]string{"spec.template.metadata.labels: Invalid value"}},
	})
	testUpdate(t, replicaSet, []updateCase[*appsv1.ReplicaSet]{
		{"replicas", func(r *appsv1.ReplicaSet) { r.Spec.Replicas = proto.Int32(4) }, nil},
		{"selector", func(r *appsv1.ReplicaSet) { r.Spec.Selector = nil }, []string{"spec.selector: Invalid value"}},
	})
}

func TestAppsColumns(t *testing.T) {
	d := deployment()
	d.Metadata.CreationTimestamp = ago(5*24*time.Hour + 3*time.Hour)
	kind.Of(d).Default(d)
	d.Spec.Replicas = proto.Int32(3)
	d.Status = &appsv1.DeploymentStatus{ReadyReplicas: 2, UpdatedReplicas: 3, AvailableReplicas: 1}
	expectCells(t, d, now, map[string]string{
		"READY": "2/3", "UP-TO-DATE": "3", "AVAILABLE": "1", "AGE": "5d3h", "CONTAINERS": "web", "IMAGES": "web:1", "SELECTOR": "app=web",
	})
	r := replicaSet()
	r.Spec.Replicas = proto.Int32(3)
	r.Status = &appsv1.ReplicaSetStatus{Replicas: 2, ReadyReplicas: 1}
	expectCells(t, r, now, map[string]string{"DESIRED": "3", "CURRENT": "2", "READY": "1", "AGE": "<unknown>"})
}

func TestScaledValue(t *testing.T) {
	tests := []struct {
		v     *metav1.IntOrString
		total int32
		up    bool
		want  int32
	}{
		{nil, 10, true, 0}, {kind.Count(3), 10, true, 3}, {kind.Text("25%"), 10, true, 3}, {kind.Text("25%"), 10, false, 2},
		{kind.Text("100%"), 7, false, 7}, {kind.Text("0%"), 7, true, 0}, {kind.Text("150%"), 1 << 30, false, 1610612736},
		{kind.Text("999999999%"), 1 << 30, true, math.MaxInt32},
	}
	for _, tt := range tests {
		if got, err := kind.ScaledValue(tt.v, tt.total, tt.up); err != nil || got != tt.want {
			t.Errorf("ScaledValue(%v, %d, %v) = %d, %v; want %d", tt.v, tt.total, tt.up, got, err, tt.want)
		}
	}
	if _, err := kind.ScaledValue(kind.Text("x%"), 1, true); err == nil {
		t.Error("x% is a percentage")
	}
}
