package nodes

import (
	"slices"
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func TestTaintShortages(t *testing.T) {
	own := &corev1.Taint{Key: "dedicated", Value: "gpu", Effect: "NoSchedule"}
	short := &corev1.Taint{Key: core.TaintDiskPressure, Effect: "NoSchedule"}
	for _, tt := range []struct {
		name, status string
		taints       []*corev1.Taint
		want         []string
	}{
		{"short", "True", []*corev1.Taint{own}, []string{"dedicated", core.TaintDiskPressure}},
		{"short and tainted", "True", []*corev1.Taint{short, own}, []string{core.TaintDiskPressure, "dedicated"}},
		{"well again", "False", []*corev1.Taint{short, own}, []string{"dedicated"}},
		{"silent", "Unknown", []*corev1.Taint{short}, []string{core.TaintDiskPressure}},
		{"unknown", "", []*corev1.Taint{own}, []string{"dedicated"}},
	} {
		node := &corev1.Node{Status: &corev1.NodeStatus{}}
		if tt.status != "" {
			node.Status.Conditions = []*corev1.NodeCondition{{Type: "DiskPressure", Status: tt.status}}
		}
		var got []string
		for _, taint := range taintShortages(node, slices.Clone(tt.taints)) {
			got = append(got, taint.GetKey())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: taints %v, want %v", tt.name, got, tt.want)
		}
	}
}
