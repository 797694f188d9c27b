package storage_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	storagev1 "github.com/xebec-project/xebec/proto/xebec/storage/v1"
)

func TestCSINode(t *testing.T) {
	type node = *storagev1.CSINode
	base := func() node {
		return &storagev1.CSINode{Metadata: &metav1.ObjectMeta{Name: "node-1"}, Spec: &storagev1.CSINodeSpec{Drivers: []*storagev1.CSINodeDriver{
			{Name: "csi.example.com", NodeId: "i-1", TopologyKeys: []string{"zone"}},
		}}}
	}
	kindtest.Validate(t, base, []kindtest.Bad[node]{
		{Name: "twice", Edit: func(n node) { n.Spec.Drivers = append(n.Spec.Drivers, n.Spec.Drivers[0]) },
			Want: []string{`spec.drivers[1].name: Duplicate value: "csi.example.com"`}},
		{Name: "no node", Edit: func(n node) { n.Spec.Drivers[0].NodeId = "" }, Want: []string{"spec.drivers[0].nodeID: Required value"}},
		{Name: "long node", Edit: func(n node) { n.Spec.Drivers[0].NodeId = strings.Repeat("n", 257) },
			Want: []string{"spec.drivers[0].nodeID: Invalid value"}},
		{Name: "name", Edit: func(n node) { n.Spec.Drivers[0].Name = "a b" }, Want: []string{`spec.drivers[0].name: Invalid value: "a b"`}},
		{Name: "keys", Edit: func(n node) { n.Spec.Drivers[0].TopologyKeys = []string{"zone", "zone", "a b"} },
			Want: []string{`spec.drivers[0].topologyKeys[1]: Duplicate value: "zone"`, `spec.drivers[0].topologyKeys[2]: Invalid value: "a b"`}},
		{Name: "count", Edit: func(n node) { n.Spec.Drivers[0].Allocatable = &storagev1.VolumeNodeResources{Count: proto.Int32(-1)} },
			Want: []string{"spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0"}},
	})
	kindtest.Update(t, base, []kindtest.Edit[node]{
		{Name: "node", Edit: func(n node) { n.Spec.Drivers[0].NodeId = "i-2" }, Want: []string{"spec.drivers[0]: Invalid value: field is immutable"}},
		{Name: "count", Edit: func(n node) { n.Spec.Drivers[0].Allocatable = &storagev1.VolumeNodeResources{Count: proto.Int32(7)} }},
		{Name: "removed", Edit: func(n node) { n.Spec.Drivers = nil }},
	})
	kindtest.ExpectCells(t, base(), kindtest.Now, map[string]string{"DRIVERS": "1"})
}

func TestVolumeAttachment(t *testing.T) {
	type attachment = *storagev1.VolumeAttachment
	base := func() attachment {
		return &storagev1.VolumeAttachment{Metadata: &metav1.ObjectMeta{Name: "csi-1"}, Spec: &storagev1.VolumeAttachmentSpec{
			Attacher: "csi.example.com", NodeName: "node-1", Source: &storagev1.VolumeAttachmentSource{PersistentVolumeName: proto.String("pv-1")},
		}}
	}
	inline := func(edit func(*corev1.PersistentVolumeSpec)) func(attachment) {
		return func(a attachment) {
			spec := &corev1.PersistentVolumeSpec{AccessModes: []string{"ReadWriteOnce"}, PersistentVolumeSource: &corev1.PersistentVolumeSource{
				Csi: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com", VolumeHandle: "vol-1"},
			}}
			edit(spec)
			a.Spec.Source = &storagev1.VolumeAttachmentSource{InlineVolumeSpec: spec}
		}
	}
	const at, one = "spec.source.inlineVolumeSpec", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	kindtest.Validate(t, base, []kindtest.Bad[attachment]{
		{Name: "attacher", Edit: func(a attachment) { a.Spec.Attacher = "" }, Want: []string{"spec.attacher: Required value"}},
		{Name: "node", Edit: func(a attachment) { a.Spec.NodeName = "" }, Want: []string{"spec.nodeName: Invalid value"}},
		{Name: "no source", Edit: func(a attachment) { a.Spec.Source = nil }, Want: []string{"spec.source: Required value: " + one}},
		{Name: "no name", Edit: func(a attachment) { a.Spec.Source.PersistentVolumeName = proto.String("") },
			Want: []string{
				"spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName", "spec.source.persistentVolumeName: Invalid value"}},
		{Name: "inline", Edit: inline(func(*corev1.PersistentVolumeSpec) {})},
		{Name: "both", Edit: func(a attachment) {
			inline(func(*corev1.PersistentVolumeSpec) {})(a)
			a.Spec.Source.PersistentVolumeName = proto.String("pv-1")
		}, Want: []string{"spec.source: Forbidden: " + one}},
		{Name: "inline fields", Edit: inline(func(s *corev1.PersistentVolumeSpec) {
			s.Capacity, s.StorageClassName, s.PersistentVolumeReclaimPolicy = kindtest.Amounts("storage", "1Gi"), "fast", "Delete"
			s.VolumeMode = proto.String("Block")
		}), Want: []string{
			at + ".capacity: Forbidden: may not be specified in the context of inline volumes", at + ".storageClassName: Forbidden",
			at + ".persistentVolumeReclaimPolicy: Forbidden: may only be Retain", at + ".volumeMode: Forbidden: may not specify volumeMode other than Filesystem"}},
	})
	kindtest.Update(t, base, []kindtest.Edit[attachment]{
		{Name: "node", Edit: func(a attachment) { a.Spec.NodeName = "node-2" }, Want: []string{"spec: Invalid value: field is immutable"}},
		{Name: "label", Edit: func(a attachment) { a.Metadata.Labels = map[string]string{"a": "b"} }},
	})
	kindtest.ExpectCells(t, base(), kindtest.Now, map[string]string{"ATTACHER": "csi.example.com", "PV": "pv-1", "NODE": "node-1", "ATTACHED": "false"})
}

func TestVolumeAttributesClass(t *testing.T) {
	type class = *storagev1.VolumeAttributesClass
	base := func() class {
		return &storagev1.VolumeAttributesClass{Metadata: &metav1.ObjectMeta{Name: "gold"}, DriverName: "csi.example.com", Parameters: map[string]string{"iops": "4000"}}
	}
	kindtest.Validate(t, base, []kindtest.Bad[class]{
		{Name: "driver", Edit: func(c class) { c.DriverName = "" }, Want: []string{"driverName: Required value"}},
		{Name: "driver's name", Edit: func(c class) { c.DriverName = "a b" }, Want: []string{`driverName: Invalid value: "a b"`}},
		{Name: "parameters", Edit: func(c class) { c.Parameters = nil }, Want: []string{"parameters: Required value: must contain at least one key/value pair"}},
	})
	kindtest.Update(t, base, []kindtest.Edit[class]{
		{Name: "driver", Edit: func(c class) { c.DriverName = "other" }, Want: []string{"driverName: Forbidden: updates to driverName are forbidden."}},
		{Name: "parameters", Edit: func(c class) { c.Parameters["iops"] = "1" }, Want: []string{"parameters: Forbidden: updates to parameters are forbidden."}},
	})
	kindtest.ExpectCells(t, base(), kindtest.Now, map[string]string{"DRIVERNAME": "csi.example.com"})
}
