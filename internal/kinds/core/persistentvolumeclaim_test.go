package core_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func boundClaim() *corev1.PersistentVolumeClaim {
	c := kindtest.Claim()
	c.Spec.VolumeName = "pv-1"
	c.Status = &corev1.PersistentVolumeClaimStatus{Phase: "Bound", AccessModes: []string{"ReadWriteMany", "ReadWriteOnce"}, Capacity: kindtest.Amounts("storage", "1Gi")}
	return c
}

func TestClaim(t *testing.T) {
	kindtest.Validate(t, kindtest.Claim, []kindtest.Bad[*corev1.PersistentVolumeClaim]{
		{Name: "no spec", Edit: func(c *corev1.PersistentVolumeClaim) { c.Spec = nil },
			Want: []string{"spec.accessModes: Required value: at least 1 access mode is required", "spec.resources[storage]: Required value"}},
		{Name: "mode", Edit: func(c *corev1.PersistentVolumeClaim) { c.Spec.AccessModes = []string{"Once"} },
			Want: []string{`spec.accessModes: Unsupported value: "Once": supported values: "ReadOnlyMany", "ReadWriteMany"`}},
		{Name: "modes", Edit: func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []string{"ReadWriteOncePod", "ReadWriteOnce"}
		},
			Want: []string{"spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"}},
		{Name: "size", Edit: func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = kindtest.Amounts("storage", "0") },
			Want: []string{`spec.resources[storage]: Invalid value: "0": must be greater than zero`}},
		{Name: "volume mode", Edit: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = proto.String("Tape") },
			Want: []string{`spec.volumeMode: Unsupported value: "Tape"`}},
		{Name: "class", Edit: func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = proto.String("A") },
			Want: []string{`spec.storageClassName: Invalid value: "A"`}},
		{Name: "no class", Edit: func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = proto.String("") }, Want: nil},
		{Name: "selector", Edit: func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Selector = &metav1.LabelSelector{MatchExpressions: []*metav1.LabelSelectorRequirement{{Key: "a", Operator: "is"}}}
		}, Want: []string{`spec.selector.matchExpressions[0].operator: Invalid value: "is"`}},
		{Name: "other source", Edit: func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "Backup", Name: "monday"}
		}, Want: []string{`spec.dataSource: Invalid value: "Backup": must be a PersistentVolumeClaim or a VolumeSnapshot`}},
		{Name: "sources differ", Edit: func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "a"}
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "b"}
		}, Want: []string{"spec: Invalid value: \"spec.dataSource\": must match dataSourceRef"}},
		{Name: "other namespace", Edit: func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "b", Namespace: proto.String("other")}
		}, Want: []string{"spec.dataSourceRef.namespace: Unsupported value"}},
	})
}

func TestClaimDefaults(t *testing.T) {
	c := kindtest.Claim()
	c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "a"}
	c.Status = &corev1.PersistentVolumeClaimStatus{Phase: "Bound"}
	k := kinds.Of(c)
	k.PrepareCreate(c)
	k.Default(c)
	if c.GetSpec().GetVolumeMode() != "Filesystem" || c.GetStatus().GetPhase() != "Pending" || c.GetSpec().GetDataSourceRef().GetName() != "a" {
		t.Errorf("claim %v", c)
	}
	if w := k.Warnings(c); len(w) != 1 || !strings.Contains(w[0], "stays Pending") {
		t.Errorf("warnings %q", w)
	}
}

func TestClaimUpdate(t *testing.T) {
	immutable := "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
	grow := func(size string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests = kindtest.Amounts("storage", size) }
	}
	kindtest.Update(t, kindtest.Claim, []kindtest.Edit[*corev1.PersistentVolumeClaim]{
		{Name: "bind", Edit: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pv-1" }, Want: nil},
		{Name: "name a class", Edit: func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = proto.String("fast") }, Want: nil},
		{Name: "grow before it is bound", Edit: grow("2Gi"), Want: []string{immutable}},
		{Name: "mode", Edit: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = proto.String("Block") }, Want: []string{immutable}},
		{Name: "annotation", Edit: func(c *corev1.PersistentVolumeClaim) {
			c.Metadata.Annotations = map[string]string{"volume.beta.kubernetes.io/storage-class": "a"}
		}, Want: []string{"metadata.annotations[volume.beta.kubernetes.io/storage-class]: Invalid value: \"a\": field is immutable"}},
	})
	kindtest.Update(t, boundClaim, []kindtest.Edit[*corev1.PersistentVolumeClaim]{
		{Name: "grow", Edit: grow("2Gi"), Want: nil},
		{Name: "shrink", Edit: grow("1Mi"), Want: []string{"spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"}},
		{Name: "another volume", Edit: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pv-2" }, Want: []string{immutable}},
		{Name: "attributes", Edit: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = proto.String("gold") }, Want: nil},
	})
	c := kindtest.Claim()
	c.Status = &corev1.PersistentVolumeClaimStatus{
		Capacity: kindtest.Amounts("storage", "-1"), AllocatedResources: kindtest.Amounts("cpu", "1"),
		AllocatedResourceStatuses: map[string]string{"storage": "Growing"},
	}
	kindtest.Expect(t, kinds.Of(c).ValidateStatusUpdate(c, kindtest.Claim()), []string{
		"status.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
		`status.allocatedResources: Unsupported value: "cpu": supported values: "storage"`,
		`status.allocatedResourceStatuses: Unsupported value: "storage": supported values: "ControllerResizeInProgress"`,
	})
}

func TestClaimColumns(t *testing.T) {
	c := boundClaim()
	c.Spec.StorageClassName = proto.String("fast")
	kindtest.ExpectCells(t, c, kindtest.Now, map[string]string{
		"STATUS": "Bound", "VOLUME": "pv-1", "CAPACITY": "1Gi", "ACCESS MODES": "RWO,RWX", "STORAGECLASS": "fast", "VOLUMEATTRIBUTESCLASS": "<unset>",
	})
	pending := kindtest.Claim()
	kinds.Of(pending).Default(pending)
	kindtest.ExpectCells(t, pending, kindtest.Now, map[string]string{"STATUS": "Pending", "VOLUME": "", "CAPACITY": "", "ACCESS MODES": "", "VOLUMEMODE": "Filesystem"})
}
