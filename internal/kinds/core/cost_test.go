package core_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestLongLists updates objects whose lists are as long as a stored object may have them. Each took
// most of a minute when elements were looked for one by one; they take less than a tenth of a
// second.
func TestLongLists(t *testing.T) {
	const length = 60000
	pod := &corev1.Pod{Metadata: kindtest.Meta("web"), Spec: &corev1.PodSpec{Containers: []*corev1.Container{{Name: "c", Image: "i"}}}}
	for name, add := range map[string]func(*corev1.Pod, string){
		"tolerations": func(p *corev1.Pod, s string) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, &corev1.Toleration{Key: s, Operator: "Exists"})
		},
		"scheduling gates": func(p *corev1.Pod, s string) {
			p.Spec.SchedulingGates = append(p.Spec.SchedulingGates, &corev1.PodSchedulingGate{Name: s})
		},
		"ephemeral containers": func(p *corev1.Pod, s string) {
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, &corev1.EphemeralContainer{EphemeralContainerCommon: &corev1.EphemeralContainerCommon{Name: s}})
		},
		"finalizers": func(p *corev1.Pod, s string) { p.Metadata.Finalizers = append(p.Metadata.Finalizers, s) },
	} {
		t.Run(name, func(t *testing.T) {
			o := proto.CloneOf(pod)
			o.Metadata.DeletionTimestamp = timestamppb.Now()
			for i := range length {
				add(o, fmt.Sprint("example.com/x", i))
			}
			began := time.Now()
			errs := kinds.Of(o).ValidateUpdate(o, proto.CloneOf(o))
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %s", took)
			}
			if len(errs) > 0 {
				t.Errorf("%d errors, the first is %v", len(errs), errs[0])
			}
		})
	}
}
