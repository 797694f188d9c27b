package core_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

type volume = *corev1.PersistentVolume

func csiVolume() volume {
	v := &corev1.PersistentVolume{Metadata: &metav1.ObjectMeta{Name: "pv-1"}, Spec: &corev1.PersistentVolumeSpec{
		Capacity: kindtest.Amounts("storage", "1Gi"), AccessModes: []string{"ReadWriteOnce"},
		PersistentVolumeSource: &corev1.PersistentVolumeSource{Csi: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com", VolumeHandle: "vol-1"}},
	}}
	kinds.Of(v).Default(v)
	return v
}

func zones(key, zone string) *corev1.VolumeNodeAffinity {
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []*corev1.NodeSelectorTerm{
		{MatchExpressions: []*corev1.NodeSelectorRequirement{{Key: key, Operator: "In", Values: []string{zone}}}},
	}}}
}

// source returns an edit that gives a volume a source.
func source(s *corev1.PersistentVolumeSource) func(volume) {
	return func(v volume) { v.Spec.PersistentVolumeSource = s }
}

func TestPersistentVolume(t *testing.T) {
	kindtest.Validate(t, csiVolume, []kindtest.Bad[volume]{
		{Name: "no modes", Edit: func(v volume) { v.Spec.AccessModes = nil }, Want: []string{"spec.accessModes: Required value"}},
		{Name: "modes", Edit: func(v volume) { v.Spec.AccessModes = []string{"Once", "ReadWriteOncePod", "ReadWriteOnce"} },
			Want: []string{`spec.accessModes: Unsupported value: "Once"`, "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"}},
		{Name: "no capacity", Edit: func(v volume) { v.Spec.Capacity = nil }, Want: []string{"spec.capacity: Required value", "spec.capacity: Unsupported value"}},
		{Name: "capacity", Edit: func(v volume) { v.Spec.Capacity = kindtest.Amounts("storage", "0") },
			Want: []string{`spec.capacity[storage]: Invalid value: "0": must be greater than zero`}},
		{Name: "no source", Edit: source(nil), Want: []string{"spec: Required value: must specify a volume type"}},
		{Name: "two sources", Edit: func(v volume) {
			v.Spec.PersistentVolumeSource.Nfs = &corev1.NFSVolumeSource{Server: "a", Path: "/"}
		}, Want: []string{"spec.csi: Forbidden: may not specify more than 1 volume type"}},
		{Name: "driver", Edit: func(v volume) { v.Spec.PersistentVolumeSource.Csi.Driver = strings.Repeat("A", 64) },
			Want: []string{"spec.csi.driver: Too long: may not be more than 63 bytes"}},
		{Name: "secret", Edit: func(v volume) {
			v.Spec.PersistentVolumeSource.Csi.NodeExpandSecretRef = &corev1.SecretReference{Name: "A"}
		}, Want: []string{`spec.csi.nodeExpandSecretRef.name: Invalid value: "A"`, "spec.csi.nodeExpandSecretRef.namespace: Required value"}},
		{Name: "policy", Edit: func(v volume) { v.Spec.PersistentVolumeReclaimPolicy = "Keep" },
			Want: []string{`spec.persistentVolumeReclaimPolicy: Unsupported value: "Keep": supported values: "Delete", "Recycle", "Retain"`}},
		{Name: "attributes", Edit: func(v volume) {
			source(&corev1.PersistentVolumeSource{Nfs: &corev1.NFSVolumeSource{Server: "a", Path: "b"}})(v)
			v.Spec.VolumeAttributesClassName = proto.String("")
		}, Want: []string{
			"spec.nfs.path: Invalid value: \"b\": must be an absolute path", "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
			"spec.csi: Required value: has to be specified when using volumeAttributesClassName"}},
		{Name: "local", Edit: source(&corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/a/../b"}}),
			Want: []string{"spec.local.path: Invalid value: \"/a/../b\": must not contain '..'", "spec.nodeAffinity: Required value: Local volume requires node affinity"}},
		{Name: "affinity", Edit: func(v volume) { v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{} },
			Want: []string{"spec.nodeAffinity.required: Required value: must specify required node constraints"}},
		{Name: "recycled root", Edit: func(v volume) {
			source(&corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/."}})(v)
			v.Spec.PersistentVolumeReclaimPolicy = "Recycle"
		}, Want: []string{"spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"}},
		{Name: "mount options", Edit: func(v volume) {
			v.Metadata.Annotations = map[string]string{"volume.beta.kubernetes.io/mount-options": "ro"}
		}, Want: []string{"metadata.annotations.volume.beta.kubernetes.io/mount-options: Forbidden: may not specify mount options for this volume type"}},
	})
}

func TestPersistentVolumeSources(t *testing.T) {
	kindtest.Validate(t, csiVolume, []kindtest.Bad[volume]{
		{Name: "iscsi", Edit: source(&corev1.PersistentVolumeSource{Iscsi: &corev1.ISCSIPersistentVolumeSource{
			TargetPortal: strings.Repeat("1", 60), Iqn: "iqn.bad", Lun: 256, ChapAuthSession: true, InitiatorName: proto.String("me"),
		}}), Want: []string{
			"spec.iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive", "spec.iscsi.iqn: Invalid value: \"iqn.bad\": must be valid format",
			"spec.iscsi.initiatorName: Invalid value: \"me\": must be valid format", "spec.iscsi.targetPortal: Invalid value",
			"spec.iscsi.secretRef: Required value"}},
		{Name: "fc", Edit: source(&corev1.PersistentVolumeSource{Fc: &corev1.FCVolumeSource{TargetWwNs: []string{"a"}, Wwids: []string{"b"}}}),
			Want: []string{"spec.fc.targetWWNs: Invalid value", "spec.fc.lun: Required value: lun is required if targetWWNs is specified"}},
		{Name: "glusterfs", Edit: source(&corev1.PersistentVolumeSource{Glusterfs: &corev1.GlusterfsPersistentVolumeSource{
			Endpoints: "a", Path: "b", EndpointsNamespace: proto.String("a.b"),
		}}), Want: []string{`spec.glusterfs.endpointsNamespace: Invalid value: "a.b"`}},
		{Name: "flocker", Edit: source(&corev1.PersistentVolumeSource{Flocker: &corev1.FlockerVolumeSource{}}),
			Want: []string{"spec.flocker: Required value: one of datasetName and datasetUUID is required"}},
		{Name: "quobyte", Edit: source(&corev1.PersistentVolumeSource{Quobyte: &corev1.QuobyteVolumeSource{Registry: "a", Volume: "b"}}),
			Want: []string{"spec.quobyte.registry: Invalid value: \"a\": must be a host:port pair or multiple pairs separated by commas"}},
		{Name: "flex", Edit: source(&corev1.PersistentVolumeSource{FlexVolume: &corev1.FlexPersistentVolumeSource{
			Driver: "a/b", Options: map[string]string{"Storage.K8s.io/x": "y"},
		}}), Want: []string{"spec.flexVolume.options[Storage.K8s.io/x]: Invalid value: \"Storage.K8s.io/x\": kubernetes.io and k8s.io namespaces are reserved"}},
		{Name: "azure", Edit: source(&corev1.PersistentVolumeSource{AzureDisk: &corev1.AzureDiskVolumeSource{
			DiskName: "a", DiskUri: "https://x", Kind: proto.String("Managed"),
		}}), Want: []string{"spec.azureDisk.diskURI: Unsupported value: \"https://x\": supported values: \"/subscriptions/"}},
		{Name: "cinder", Edit: source(&corev1.PersistentVolumeSource{Cinder: &corev1.CinderPersistentVolumeSource{VolumeId: "a", SecretRef: &corev1.SecretReference{}}}),
			Want: []string{"spec.cinder.secretRef.name: Required value", "spec.cinder.secretRef.namespace: Required value"}},
	})
}

func TestPersistentVolumeUpdate(t *testing.T) {
	zoned := func() volume {
		v := csiVolume()
		v.Spec.NodeAffinity = zones("failure-domain.beta.kubernetes.io/zone", "a")
		v.Spec.VolumeAttributesClassName = proto.String("gold")
		return v
	}
	const affinity = "spec.nodeAffinity: Invalid value: field is immutable, except for updating from beta label to GA"
	kindtest.Update(t, zoned, []kindtest.Edit[volume]{
		{Name: "claim", Edit: func(v volume) { v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "a", Name: "b"} }},
		{Name: "class", Edit: func(v volume) { v.Spec.StorageClassName = "other" }},
		{Name: "attributes", Edit: func(v volume) { v.Spec.VolumeAttributesClassName = proto.String("silver") }},
		{Name: "no attributes", Edit: func(v volume) { v.Spec.VolumeAttributesClassName = nil },
			Want: []string{"spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"}},
		{Name: "handle", Edit: func(v volume) { v.Spec.PersistentVolumeSource.Csi.VolumeHandle = "vol-2" },
			Want: []string{"spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation: \"spec.csi.volumeHandle\" differs"}},
		{Name: "secret to expand", Edit: func(v volume) {
			v.Spec.PersistentVolumeSource.Csi.ControllerExpandSecretRef = &corev1.SecretReference{Name: "a", Namespace: "b"}
		}},
		{Name: "mode", Edit: func(v volume) { v.Spec.VolumeMode = proto.String("Block") }, Want: []string{`spec.volumeMode: Invalid value: "Block": field is immutable`}},
		{Name: "renamed label", Edit: func(v volume) { v.Spec.NodeAffinity = zones("topology.kubernetes.io/zone", "a") }},
		{Name: "other zone", Edit: func(v volume) { v.Spec.NodeAffinity = zones("topology.kubernetes.io/zone", "b") }, Want: []string{affinity}},
		{Name: "other label", Edit: func(v volume) { v.Spec.NodeAffinity = zones("topology.kubernetes.io/region", "a") }, Want: []string{affinity}},
		{Name: "no zone", Edit: func(v volume) { v.Spec.NodeAffinity = nil }, Want: []string{affinity}},
	})
	kindtest.Update(t, csiVolume, []kindtest.Edit[volume]{
		{Name: "a first zone", Edit: func(v volume) { v.Spec.NodeAffinity = zones("topology.kubernetes.io/zone", "a") }},
	})
}

func TestPersistentVolumeTransitionTime(t *testing.T) {
	v := csiVolume()
	k := kinds.Of(v)
	v.Status = &corev1.PersistentVolumeStatus{Phase: "Bound"}
	k.PrepareCreate(v)
	if v.GetStatus().GetPhase() != "Pending" || v.GetStatus().GetLastPhaseTransitionTime() == nil {
		t.Fatalf("created with %v", v.GetStatus())
	}
	long := timestamppb.New(time.Unix(1, 0))
	v.Status.LastPhaseTransitionTime = long
	write := func(phase string, at *timestamppb.Timestamp) *timestamppb.Timestamp {
		now := proto.CloneOf(v)
		now.Status.Phase, now.Status.LastPhaseTransitionTime = phase, at
		k.PrepareStatusUpdate(now, v)
		return now.GetStatus().GetLastPhaseTransitionTime()
	}
	if got := write("Pending", nil); !proto.Equal(got, long) {
		t.Errorf("the phase stays: the time is %v", got)
	}
	for _, at := range []*timestamppb.Timestamp{nil, long} {
		if got := write("Available", at); time.Since(got.AsTime()) > time.Hour {
			t.Errorf("the phase changes: the time is %v", got)
		}
	}
	own := timestamppb.New(time.Unix(2, 0))
	if got := write("Available", own); !proto.Equal(got, own) {
		t.Errorf("the writer sets the time: it is %v", got)
	}
}

func TestPersistentVolumeColumnsAndWarnings(t *testing.T) {
	v := csiVolume()
	v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "data"}
	v.Spec.StorageClassName = "fast"
	kindtest.ExpectCells(t, v, kindtest.Now, map[string]string{
		"CAPACITY": "1Gi", "ACCESS MODES": "RWO", "RECLAIM POLICY": "Retain", "STATUS": "Pending", "CLAIM": "default/data", "STORAGECLASS": "fast",
		"VOLUMEATTRIBUTESCLASS": "<unset>", "REASON": "", "VOLUMEMODE": "Filesystem",
	})
	v.Spec.PersistentVolumeReclaimPolicy = "Recycle"
	v.Metadata.Annotations = map[string]string{"volume.beta.kubernetes.io/storage-class": "slow"}
	v.Spec.PersistentVolumeSource = &corev1.PersistentVolumeSource{Rbd: &corev1.RBDPersistentVolumeSource{}}
	kindtest.ExpectCells(t, v, kindtest.Now, map[string]string{"STORAGECLASS": "slow"})
	warnings := strings.Join(kinds.Of(v).Warnings(v), "\n")
	for _, want := range []string{"have no effect yet", "deprecated since v1.8", "Recycle reclaim policy is deprecated", "spec.rbd: deprecated in v1.28"} {
		if !strings.Contains(warnings, want) {
			t.Errorf("warnings %q: want %q", warnings, want)
		}
	}
}
