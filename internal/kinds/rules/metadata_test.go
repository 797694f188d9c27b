package rules_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestMetadata(t *testing.T) {
	owner := func(name string, controller bool) *metav1.OwnerReference {
		return &metav1.OwnerReference{ApiVersion: "v1", Kind: "Pod", Name: name, Uid: "u-" + name, Controller: &controller}
	}
	kindtest.Validate(t, kindtest.ConfigMap, []kindtest.Bad[*corev1.ConfigMap]{
		{Name: "no metadata", Edit: func(m *corev1.ConfigMap) { m.Metadata = nil },
			Want: []string{"metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value"}},
		{Name: "254 characters", Edit: func(m *corev1.ConfigMap) { m.Metadata.Name = strings.Repeat("a", 254) },
			Want: []string{`metadata.name: Invalid value: "aaa`}},
		{Name: "253 characters", Edit: func(m *corev1.ConfigMap) { m.Metadata.Name = strings.Repeat("a", 253) }, Want: nil},
		{Name: "upper case", Edit: func(m *corev1.ConfigMap) { m.Metadata.Name = "Web" },
			Want: []string{`metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of`}},
		{Name: "slash", Edit: func(m *corev1.ConfigMap) { m.Metadata.Name = "a/b" }, Want: []string{`metadata.name: Invalid value: "a/b"`}},
		{Name: "generateName with dash", Edit: func(m *corev1.ConfigMap) { m.Metadata.GenerateName = "web-" }, Want: nil},
		{Name: "bad generateName", Edit: func(m *corev1.ConfigMap) { m.Metadata.GenerateName = "Web-" }, Want: []string{`metadata.generateName: Invalid value: "Web-"`}},
		{Name: "bad namespace", Edit: func(m *corev1.ConfigMap) { m.Metadata.Namespace = "a.b" }, Want: []string{`metadata.namespace: Invalid value: "a.b"`}},
		{Name: "label key", Edit: func(m *corev1.ConfigMap) { m.Metadata.Labels = map[string]string{"a b": "c"} }, Want: []string{`metadata.labels: Invalid value: "a b": name part must consist of`}},
		{Name: "label value", Edit: func(m *corev1.ConfigMap) { m.Metadata.Labels = map[string]string{"a": "b c"} }, Want: []string{`metadata.labels: Invalid value: "b c": a valid label must be`}},
		{Name: "annotation key", Edit: func(m *corev1.ConfigMap) { m.Metadata.Annotations = map[string]string{"a/b/c": "d"} }, Want: []string{`metadata.annotations: Invalid value: "a/b/c"`}},
		{Name: "annotation in capitals", Edit: func(m *corev1.ConfigMap) { m.Metadata.Annotations = map[string]string{"Example.com/A": "d e"} }, Want: nil},
		{Name: "annotations too long", Edit: func(m *corev1.ConfigMap) {
			m.Metadata.Annotations = map[string]string{"a": strings.Repeat("x", 256<<10)}
		}, Want: []string{"metadata.annotations: Too long: may not be more than 262144 bytes"}},
		{Name: "two controllers", Edit: func(m *corev1.ConfigMap) {
			m.Metadata.OwnerReferences = []*metav1.OwnerReference{owner("a", true), owner("b", false), owner("c", true)}
		}, Want: []string{`metadata.ownerReferences: Invalid value: "Pod/c": Only one reference can have Controller set to true`}},
		{Name: "empty owner", Edit: func(m *corev1.ConfigMap) { m.Metadata.OwnerReferences = []*metav1.OwnerReference{{}} }, Want: []string{
			"metadata.ownerReferences.apiVersion: Invalid value", "metadata.ownerReferences.kind: Invalid value",
			"metadata.ownerReferences.name: Invalid value", "metadata.ownerReferences.uid: Invalid value"}},
		{Name: "finalizers", Edit: func(m *corev1.ConfigMap) { m.Metadata.Finalizers = []string{"mine", "example.com/fine", "orphan"} },
			Want: []string{`metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified`}},
		{Name: "finalizers that contradict", Edit: func(m *corev1.ConfigMap) { m.Metadata.Finalizers = []string{"orphan", "foregroundDeletion"} },
			Want: []string{"metadata.finalizers: Invalid value"}},
	})

	ns := &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "a.b", Namespace: "default"}}
	kindtest.Expect(t, kinds.Of(ns).Validate(ns), []string{`metadata.name: Invalid value: "a.b": must not contain dots`, "metadata.namespace: Forbidden: not allowed on this type"})
}

func TestMetadataUpdate(t *testing.T) {
	base := func() *corev1.ConfigMap {
		m := kindtest.ConfigMap()
		m.Metadata.Uid, m.Metadata.CreationTimestamp, m.Metadata.DeletionTimestamp = "u1", kindtest.Ago(time.Hour), kindtest.Ago(0)
		m.Metadata.DeletionGracePeriodSeconds = proto.Int64(5)
		m.Metadata.Finalizers = []string{"example.com/a", "example.com/b"}
		return m
	}
	kindtest.Update(t, base, []kindtest.Edit[*corev1.ConfigMap]{
		{Name: "nothing", Edit: func(*corev1.ConfigMap) {}, Want: nil},
		{Name: "labels", Edit: func(m *corev1.ConfigMap) { m.Metadata.Labels = map[string]string{"a": "b"} }, Want: nil},
		{Name: "fewer finalizers", Edit: func(m *corev1.ConfigMap) { m.Metadata.Finalizers = []string{"example.com/b"} }, Want: nil},
		{Name: "more finalizers", Edit: func(m *corev1.ConfigMap) { m.Metadata.Finalizers = []string{"example.com/b", "example.com/c"} },
			Want: []string{"metadata.finalizers[1]: Forbidden: no new finalizers can be added if the object is being deleted"}},
		{Name: "name", Edit: func(m *corev1.ConfigMap) { m.Metadata.Name = "x" }, Want: []string{`metadata.name: Invalid value: "x": field is immutable`}},
		{Name: "namespace", Edit: func(m *corev1.ConfigMap) { m.Metadata.Namespace = "x" }, Want: []string{`metadata.namespace: Invalid value: "x": field is immutable`}},
		{Name: "uid", Edit: func(m *corev1.ConfigMap) { m.Metadata.Uid = "x" }, Want: []string{`metadata.uid: Invalid value: "x": field is immutable`}},
		{Name: "created", Edit: func(m *corev1.ConfigMap) { m.Metadata.CreationTimestamp = kindtest.Ago(0) }, Want: []string{"metadata.creationTimestamp: Invalid value"}},
		{Name: "undeleted", Edit: func(m *corev1.ConfigMap) {
			m.Metadata.DeletionTimestamp, m.Metadata.DeletionGracePeriodSeconds = nil, nil
		},
			Want: []string{"metadata.deletionTimestamp: Invalid value", "metadata.deletionGracePeriodSeconds: Invalid value"}},
	})
}

func TestPrepare(t *testing.T) {
	k, _ := kinds.ByName("deployments")
	old := kindtest.Deployment()
	old.Status = &appsv1.DeploymentStatus{Replicas: 7}
	k.PrepareCreate(old)
	if old.Status != nil || old.GetMetadata().GetGeneration() != 1 {
		t.Errorf("after creation: status %v, generation %d", old.Status, old.GetMetadata().GetGeneration())
	}
	old.Status = &appsv1.DeploymentStatus{Replicas: 3}

	same := proto.CloneOf(old)
	same.Status, same.Metadata.Generation = nil, 99
	same.Metadata.Labels = map[string]string{"a": "b"}
	k.PrepareUpdate(same, old)
	if same.GetStatus().GetReplicas() != 3 || same.GetMetadata().GetGeneration() != 1 {
		t.Errorf("new labels: status %v, generation %d", same.GetStatus(), same.GetMetadata().GetGeneration())
	}
	same.Status.Replicas = 4
	if old.GetStatus().GetReplicas() != 3 {
		t.Error("the update shares its status with the stored object")
	}

	changed := proto.CloneOf(old)
	changed.Spec.Replicas = proto.Int32(9)
	k.PrepareUpdate(changed, old)
	if got := changed.GetMetadata().GetGeneration(); got != 2 {
		t.Errorf("new replicas: generation %d, want 2", got)
	}

	status := kindtest.Deployment()
	status.Metadata.Labels, status.Metadata.ResourceVersion = map[string]string{"x": "y"}, "17"
	status.Spec.Replicas = proto.Int32(40)
	status.Status = &appsv1.DeploymentStatus{Replicas: 5}
	k.PrepareStatusUpdate(status, old)
	want := proto.CloneOf(old)
	want.Status, want.Metadata.ResourceVersion = &appsv1.DeploymentStatus{Replicas: 5}, "17"
	if !proto.Equal(status, want) {
		t.Errorf("a status update gives\n%v\nwant\n%v", status, want)
	}
}
