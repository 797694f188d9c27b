package apps_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// claimed returns a StatefulSet whose container mounts a claim.
func claimed() *appsv1.StatefulSet {
	s, claim := kindtest.StatefulSet(), kindtest.Claim()
	claim.Metadata.Namespace = ""
	s.Spec.VolumeClaimTemplates = []*corev1.PersistentVolumeClaim{claim}
	s.Spec.Template.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	return s
}

func stepwise(s *appsv1.StatefulSet, partition *int32, unavailable *metav1.IntOrString) {
	s.Spec.UpdateStrategy = &appsv1.StatefulSetUpdateStrategy{
		RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: partition, MaxUnavailable: unavailable},
	}
}

func TestStatefulSet(t *testing.T) {
	kindtest.Validate(t, claimed, []kindtest.Bad[*appsv1.StatefulSet]{
		{Name: "name", Edit: func(s *appsv1.StatefulSet) { s.Metadata.Name = "a.b" }, Want: []string{"metadata.name: Invalid value: \"a.b\""}},
		{Name: "no spec", Edit: func(s *appsv1.StatefulSet) { s.Spec = nil }, Want: []string{"spec.selector: Required value", "spec.template: Required value"}},
		{Name: "empty selector", Edit: func(s *appsv1.StatefulSet) { s.Spec.Selector = &metav1.LabelSelector{} },
			Want: []string{"spec.selector: Invalid value: \"{}\": empty selector is invalid for statefulset"}},
		{Name: "selector that does not match", Edit: func(s *appsv1.StatefulSet) { s.Spec.Selector.MatchLabels["app"] = "db" },
			Want: []string{"spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"}},
		{Name: "restart policy", Edit: func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.RestartPolicy = "Never" },
			Want: []string{`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`}},
		{Name: "policy", Edit: func(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = "Random" },
			Want: []string{`spec.podManagementPolicy: Invalid value: "Random": must be 'OrderedReady' or 'Parallel'`}},
		{Name: "strategy", Edit: func(s *appsv1.StatefulSet) {
			s.Spec.UpdateStrategy = &appsv1.StatefulSetUpdateStrategy{Type: "Recreate"}
		},
			Want: []string{`spec.updateStrategy: Invalid value: "Recreate": must be 'RollingUpdate' or 'OnDelete'`}},
		{Name: "steps with OnDelete", Edit: func(s *appsv1.StatefulSet) { stepwise(s, nil, nil); s.Spec.UpdateStrategy.Type = "OnDelete" },
			Want: []string{"spec.updateStrategy.rollingUpdate: Invalid value"}},
		{Name: "steps", Edit: func(s *appsv1.StatefulSet) { stepwise(s, proto.Int32(-1), object.Count(0)) },
			Want: []string{"spec.updateStrategy.rollingUpdate.partition: Invalid value: -1", "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"}},
		{Name: "percent", Edit: func(s *appsv1.StatefulSet) { stepwise(s, nil, object.Text("101%")) },
			Want: []string{`spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`}},
		{Name: "numbers", Edit: func(s *appsv1.StatefulSet) {
			s.Spec.Replicas, s.Spec.MinReadySeconds, s.Spec.Ordinals = proto.Int32(-1), -1, &appsv1.StatefulSetOrdinals{Start: -1}
		}, Want: []string{"spec.replicas: Invalid value: -1", "spec.minReadySeconds: Invalid value: -1", "spec.ordinals.start: Invalid value: -1"}},
		{Name: "service", Edit: func(s *appsv1.StatefulSet) { s.Spec.ServiceName = "a.b" }, Want: []string{`spec.serviceName: Invalid value: "a.b"`}},
		{Name: "retention", Edit: func(s *appsv1.StatefulSet) {
			s.Spec.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: "Keep"}
		}, Want: []string{`spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "Keep": supported values: "Retain", "Delete"`}},
		{Name: "claim", Edit: func(s *appsv1.StatefulSet) { s.Spec.VolumeClaimTemplates[0].Spec = nil },
			Want: []string{"spec.volumeClaimTemplates[0].spec.accessModes: Required value", "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value"}},
		{Name: "claim without a name", Edit: func(s *appsv1.StatefulSet) { s.Spec.VolumeClaimTemplates[0].Metadata = nil },
			Want: []string{"spec.template.spec.containers[0].volumeMounts[0].name: Not found", "spec.template.spec.volumes[0].name: Required value"}},
		{Name: "volume of a claim", Edit: func(s *appsv1.StatefulSet) {
			s.Spec.Template.Spec.Volumes = []*corev1.Volume{{Name: "data", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		}, Want: nil},
		{Name: "all revisions", Edit: func(s *appsv1.StatefulSet) { s.Spec.RevisionHistoryLimit = proto.Int32(-1) }, Want: nil},
	})
	if w := kinds.Of(claimed()).Warnings(claimed()); !slices.ContainsFunc(w, func(s string) bool { return strings.Contains(s, "stay Pending") }) {
		t.Errorf("warnings about claims: %q", w)
	}
}

func TestStatefulSetDefaults(t *testing.T) {
	s := kindtest.StatefulSet()
	kinds.Of(s).Default(s)
	spec := s.GetSpec()
	if spec.GetReplicas() != 1 || spec.GetPodManagementPolicy() != "OrderedReady" || spec.GetRevisionHistoryLimit() != 10 ||
		spec.GetUpdateStrategy().GetType() != "RollingUpdate" || spec.GetUpdateStrategy().GetRollingUpdate().Partition == nil ||
		spec.GetPersistentVolumeClaimRetentionPolicy().GetWhenDeleted() != "Retain" || spec.GetPersistentVolumeClaimRetentionPolicy().GetWhenScaled() != "Retain" {
		t.Errorf("spec %v", spec)
	}
	s = kindtest.StatefulSet()
	s.Spec.UpdateStrategy = &appsv1.StatefulSetUpdateStrategy{Type: "OnDelete"}
	kinds.Of(s).Default(s)
	if s.GetSpec().GetUpdateStrategy().GetRollingUpdate() != nil {
		t.Error("OnDelete got steps of a rolling update")
	}
}

func TestStatefulSetUpdate(t *testing.T) {
	forbidden := []string{"spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template'"}
	kindtest.Update(t, claimed, []kindtest.Edit[*appsv1.StatefulSet]{
		{Name: "what may change", Edit: func(s *appsv1.StatefulSet) {
			s.Spec.Replicas, s.Spec.Ordinals, s.Spec.MinReadySeconds, s.Spec.RevisionHistoryLimit = proto.Int32(3), &appsv1.StatefulSetOrdinals{Start: 2}, 3, proto.Int32(2)
			s.Spec.Template.Spec.Containers[0].Image = "web:2"
			s.Spec.UpdateStrategy = &appsv1.StatefulSetUpdateStrategy{Type: "OnDelete"}
			s.Spec.PersistentVolumeClaimRetentionPolicy.WhenScaled = "Delete"
		}, Want: nil},
		{Name: "selector", Edit: func(s *appsv1.StatefulSet) { s.Spec.Selector.MatchLabels["a"] = "b" }, Want: forbidden},
		{Name: "service", Edit: func(s *appsv1.StatefulSet) { s.Spec.ServiceName = "db" }, Want: forbidden},
		{Name: "policy", Edit: func(s *appsv1.StatefulSet) { s.Spec.PodManagementPolicy = "Parallel" }, Want: forbidden},
		{Name: "claim templates", Edit: func(s *appsv1.StatefulSet) {
			s.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests = kindtest.Amounts("storage", "2Gi")
		}, Want: forbidden},
	})
	s := kindtest.StatefulSet()
	s.Status = &appsv1.StatefulSetStatus{Replicas: 1, ReadyReplicas: 2, CurrentReplicas: 2, UpdatedReplicas: 2, AvailableReplicas: 3}
	kindtest.Expect(t, kinds.Of(s).ValidateStatusUpdate(s, kindtest.StatefulSet()), []string{
		"status.readyReplicas: Invalid value: 2", "status.currentReplicas: Invalid value: 2", "status.updatedReplicas: Invalid value: 2",
		"status.availableReplicas: Invalid value: 3: cannot be greater than status.readyReplicas",
		"status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
	})
}

func TestStatefulSetColumns(t *testing.T) {
	s := kindtest.StatefulSet()
	s.Spec.Replicas = proto.Int32(3)
	s.Status = &appsv1.StatefulSetStatus{Replicas: 3, ReadyReplicas: 2}
	kindtest.ExpectCells(t, s, kindtest.Now, map[string]string{"READY": "2/3", "CONTAINERS": "web", "IMAGES": "web:1"})
}
