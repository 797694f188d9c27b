package describe

import (
	"strings"
	"testing"
	"time"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestPersistentVolumeDescription(t *testing.T) {
	mode := "Block"
	v := &corev1.PersistentVolume{
		Metadata: &metav1.ObjectMeta{Name: "pv-1", Finalizers: []string{"kubernetes.io/pv-protection"}},
		Spec: &corev1.PersistentVolumeSpec{
			Capacity: map[string]*metav1.Quantity{"storage": {String_: "10Gi"}}, AccessModes: []string{"ReadWriteOnce"},
			ClaimRef: &corev1.ObjectReference{Namespace: "default", Name: "data"}, PersistentVolumeReclaimPolicy: "Delete",
			StorageClassName: "fast", VolumeMode: &mode, MountOptions: []string{"ro", "soft"},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []*corev1.NodeSelectorTerm{{
				MatchExpressions: []*corev1.NodeSelectorRequirement{{Key: "zone", Operator: "In", Values: []string{"a", "b"}}, {Key: "ssd", Operator: "Exists"}},
			}}}},
			PersistentVolumeSource: &corev1.PersistentVolumeSource{Csi: &corev1.CSIPersistentVolumeSource{
				Driver: "csi.example.com", VolumeHandle: "vol-1", VolumeAttributes: map[string]string{"tier": "gold"},
			}},
		},
		Status: &corev1.PersistentVolumeStatus{Phase: "Failed", Message: "It could not be deleted"},
	}
	var b strings.Builder
	r := newReport(&b, time.Now())
	if err := r.object(t.Context(), nil, v); err != nil {
		t.Fatal(err)
	}
	if err := r.flush(); err != nil {
		t.Fatal(err)
	}
	const want = `Name:            pv-1
Labels:          <none>
Annotations:     <none>
Finalizers:      kubernetes.io/pv-protection
StorageClass:    fast
Status:          Failed
Claim:           default/data
Reclaim Policy:  Delete
Access Modes:    RWO
VolumeMode:      Block
Capacity:        10Gi
Node Affinity:
  Required Terms:
    Term 0:     zone in [a, b]
                ssd exists
Message:        It could not be deleted
Mount Options:  ro,soft
Source:
  Type:    csi
  Driver:  csi.example.com
  Volume Attributes:
    Tier:         gold
  Volume Handle:  vol-1
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
