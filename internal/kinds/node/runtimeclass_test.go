package node_test

import (
	"testing"

	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

func TestRuntimeClass(t *testing.T) {
	type class = *nodev1.RuntimeClass
	base := func() class {
		return &nodev1.RuntimeClass{Metadata: &metav1.ObjectMeta{Name: "sandboxed"}, Handler: "runsc"}
	}
	kindtest.Validate(t, base, []kindtest.Bad[class]{
		{Name: "no handler", Edit: func(c class) { c.Handler = "" }, Want: []string{"handler: Required value"}},
		{Name: "handler", Edit: func(c class) { c.Handler = "Run_SC" }, Want: []string{`handler: Invalid value: "Run_SC"`}},
		{Name: "overhead", Edit: func(c class) { c.Overhead = &nodev1.Overhead{PodFixed: kindtest.Amounts("cpu", "-1", "wheels", "4")} },
			Want: []string{"overhead.limits[cpu]: Invalid value", "overhead.limits[wheels]: Invalid value", "overhead.limits[wheels]: Invalid value"}},
		{Name: "scheduling", Edit: func(c class) {
			c.Scheduling = &nodev1.Scheduling{
				NodeSelector: map[string]string{"a b": "c d"},
				Tolerations:  []*corev1.Toleration{{Key: "a"}, {Key: "b", Operator: "In"}, {Key: "a"}},
			}
		}, Want: []string{`scheduling.nodeSelector: Invalid value: "a b"`, `scheduling.nodeSelector: Invalid value: "c d"`,
			`scheduling.tolerations[1].operator: Unsupported value: "In"`, "scheduling.tolerations[2]: Duplicate value"}},
	})
	kindtest.Update(t, base, []kindtest.Edit[class]{
		{Name: "handler", Edit: func(c class) { c.Handler = "kata" }, Want: []string{`handler: Invalid value: "kata": field is immutable`}},
	})
	kindtest.ExpectCells(t, base(), kindtest.Now, map[string]string{"HANDLER": "runsc"})
}
