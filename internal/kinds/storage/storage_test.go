package storage_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

func TestStorageClass(t *testing.T) {
	type class = *storagev1.StorageClass
	base := func() class {
		return &storagev1.StorageClass{Metadata: &metav1.ObjectMeta{Name: "fast"}, Provisioner: "csi.example.com", Parameters: map[string]string{"type": "ssd"}}
	}
	zone := func(values ...string) *corev1.TopologySelectorTerm {
		return &corev1.TopologySelectorTerm{MatchLabelExpressions: []*corev1.TopologySelectorLabelRequirement{{Key: "zone", Values: values}}}
	}
	const at = "allowedTopologies[0].matchLabelExpressions"
	kindtest.Validate(t, base, []kindtest.Bad[class]{
		{Name: "no provisioner", Edit: func(c class) { c.Provisioner = "" }, Want: []string{"provisioner: Required value"}},
		{Name: "provisioner", Edit: func(c class) { c.Provisioner = "a b" }, Want: []string{`provisioner: Invalid value: "a b"`}},
		{Name: "parameters", Edit: func(c class) { c.Parameters = map[string]string{"": "a", "b": strings.Repeat("x", 256<<10)} },
			Want: []string{"parameters: Invalid value: \"\": field can not be empty.", "parameters: Too long"}},
		{Name: "policy", Edit: func(c class) { c.ReclaimPolicy = proto.String("Recycle") }, Want: []string{`reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"`}},
		{Name: "topologies", Edit: func(c class) { c.AllowedTopologies = []*corev1.TopologySelectorTerm{zone("a", "a"), zone("a")} },
			Want: []string{at + "[0].values[1]: Duplicate value", "allowedTopologies[1].matchLabelExpressions: Duplicate value"}},
		{Name: "no values", Edit: func(c class) { c.AllowedTopologies = []*corev1.TopologySelectorTerm{zone()} }, Want: []string{at + "[0].values: Required value"}},
	})
	kindtest.Update(t, base, []kindtest.Edit[class]{
		{Name: "parameters", Edit: func(c class) { c.Parameters = nil }, Want: []string{"parameters: Invalid value: field is immutable"}},
		{Name: "provisioner", Edit: func(c class) { c.Provisioner = "x" }, Want: []string{`provisioner: Invalid value: "x": field is immutable`}},
		{Name: "expansion", Edit: func(c class) { c.AllowVolumeExpansion = proto.Bool(true) }},
	})
	c := base()
	kinds.Of(c).Default(c)
	kindtest.ExpectCells(t, c, kindtest.Now, map[string]string{
		"PROVISIONER": "csi.example.com", "RECLAIMPOLICY": "Delete", "VOLUMEBINDINGMODE": "Immediate", "ALLOWVOLUMEEXPANSION": "false",
	})
}

func TestCSIDriver(t *testing.T) {
	type driver = *storagev1.CSIDriver
	base := func() driver {
		return &storagev1.CSIDriver{Metadata: &metav1.ObjectMeta{Name: "csi.example.com"}, Spec: &storagev1.CSIDriverSpec{}}
	}
	tokens := func(seconds ...int64) []*storagev1.TokenRequest {
		var out []*storagev1.TokenRequest
		for _, s := range seconds {
			out = append(out, &storagev1.TokenRequest{Audience: "a", ExpirationSeconds: &s})
		}
		return out
	}
	kindtest.Validate(t, base, []kindtest.Bad[driver]{
		{Name: "modes", Edit: func(d driver) { d.Spec.VolumeLifecycleModes = []string{"Shared"} }, Want: []string{`spec.volumeLifecycleModes: Unsupported value: "Shared"`}},
		{Name: "tokens", Edit: func(d driver) { d.Spec.TokenRequests = tokens(599, 600) },
			Want: []string{"spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes", `spec.tokenRequests[1].audience: Duplicate value: "a"`}},
		{Name: "no tokens", Edit: func(d driver) { d.Spec.ServiceAccountTokenInSecrets = proto.Bool(true) }, Want: []string{"spec.serviceAccountTokenInSecrets: Invalid value: true"}},
		{Name: "period", Edit: func(d driver) { d.Spec.NodeAllocatableUpdatePeriodSeconds = proto.Int64(9) },
			Want: []string{"spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds"}},
	})
	kindtest.Update(t, base, []kindtest.Edit[driver]{
		{Name: "attach", Edit: func(d driver) { d.Spec.AttachRequired = proto.Bool(false) }, Want: []string{"spec.attachedRequired: Invalid value: false: field is immutable"}},
		{Name: "modes", Edit: func(d driver) { d.Spec.VolumeLifecycleModes = []string{"Ephemeral"} }, Want: []string{"spec.volumeLifecycleModes: Invalid value"}},
		{Name: "mount", Edit: func(d driver) { d.Spec.PodInfoOnMount = proto.Bool(true) }},
	})
	d := base()
	kinds.Of(d).Default(d)
	kindtest.ExpectCells(t, d, kindtest.Now, map[string]string{"ATTACHREQUIRED": "true", "TOKENREQUESTS": "<unset>", "MODES": "Persistent"})
}

func TestCSIStorageCapacity(t *testing.T) {
	type capacity = *storagev1.CSIStorageCapacity
	base := func() capacity {
		return &storagev1.CSIStorageCapacity{Metadata: kindtest.Meta("zone-a"), StorageClassName: "fast", NodeTopology: &metav1.LabelSelector{}, Capacity: &metav1.Quantity{String_: "1Gi"}}
	}
	kindtest.Validate(t, base, []kindtest.Bad[capacity]{
		{Name: "negative", Edit: func(c capacity) { c.Capacity.String_ = "-1" }, Want: []string{`capacity: Invalid value: "-1"`}},
		{Name: "no class", Edit: func(c capacity) { c.StorageClassName = "" }, Want: []string{"storageClassName: Invalid value"}},
	})
	kindtest.Update(t, base, []kindtest.Edit[capacity]{
		{Name: "topology", Edit: func(c capacity) { c.NodeTopology = nil }, Want: []string{"nodeTopology: Invalid value: field is immutable"}},
		{Name: "class", Edit: func(c capacity) { c.StorageClassName = "slow" }, Want: []string{`storageClassName: Invalid value: "slow": field is immutable`}},
	})
	kindtest.ExpectCells(t, base(), kindtest.Now, map[string]string{"STORAGECLASSNAME": "fast", "CAPACITY": "1Gi"})
}
