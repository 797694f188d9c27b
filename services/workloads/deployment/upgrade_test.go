package deployment

import (
	"encoding/json"
	"os"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestUpgradeStartsNoRollout compares the template of a Deployment that version 0.1.0 stored with
// that of its ReplicaSet when one of them, or both, were written again with today's defaults.
func TestUpgradeStartsNoRollout(t *testing.T) {
	data, err := os.ReadFile("../../../tests/upgrades/testdata/v0.1.0/objects.json")
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]json.RawMessage
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	d, pod := decode[*appsv1.Deployment](t, stored["Deployment shop/web"]), decode[*corev1.Pod](t, stored["Pod shop/web-0"])
	// The pod has a volume of the downward API, which had fewer defaults in that version.
	d.Spec.Template.Spec.Volumes = pod.GetSpec().GetVolumes()
	r, err := newRollout(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := (&reconciler{}).newSet(r)
	if err != nil {
		t.Fatal(err)
	}
	updated, updatedSet := proto.CloneOf(d), proto.CloneOf(rs)
	kinds.Of(d).Default(updated)
	kinds.Of(rs).Default(updatedSet)
	if proto.Equal(updated.GetSpec().GetTemplate(), d.GetSpec().GetTemplate()) {
		t.Fatal("no default is newer than the stored Deployment: the test shows nothing")
	}
	for name, pair := range map[string]struct {
		d  *appsv1.Deployment
		rs *appsv1.ReplicaSet
	}{"neither": {d, rs}, "deployment": {updated, rs}, "set": {d, updatedSet}, "both": {updated, updatedSet}} {
		r, err := newRollout(pair.d, []*appsv1.ReplicaSet{pair.rs})
		if err != nil {
			t.Fatal(err)
		}
		if r.current != pair.rs {
			t.Errorf("%s written again: the set is not that of the current template", name)
		}
	}
	updated.Spec.Template.Spec.Containers[0].Image = "other"
	if sameTemplate(rs, updated) {
		t.Error("another image is the same template")
	}
}

func decode[T scheme.Object](t *testing.T, data json.RawMessage) T {
	t.Helper()
	o, err := codec.Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return o.(T)
}
