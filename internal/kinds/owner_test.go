package kinds_test

import (
	"testing"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestOwners(t *testing.T) {
	rs := kindtest.ReplicaSet()
	rs.Metadata.Uid = "u1"
	pod := &corev1.Pod{Metadata: kindtest.Meta("web-1")}
	if kinds.ControllerOf(pod) != nil || kinds.IsControlledBy(pod, rs) {
		t.Error("an orphan has a controller")
	}
	pod.Metadata.OwnerReferences = []*metav1.OwnerReference{{Uid: "other"}, kinds.NewControllerRef(rs)}
	r := kinds.ControllerOf(pod)
	if r.GetApiVersion() != "apps/v1" || r.GetKind() != "ReplicaSet" || r.GetName() != "web" || r.GetUid() != "u1" || !r.GetBlockOwnerDeletion() {
		t.Errorf("controller %v", r)
	}
	if !kinds.IsControlledBy(pod, rs) {
		t.Error("the controller does not know its pod")
	}
	rs.Metadata.Uid = "u2"
	if kinds.IsControlledBy(pod, rs) {
		t.Error("a namesake counts as the controller")
	}
}
