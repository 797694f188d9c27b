package pods_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestShutdown ends the pods of a node that goes down in the order of their priorities, and lets
// files' pods come again.
func TestShutdown(t *testing.T) {
	n := start(t)
	script := "trap 'exit 0' TERM; while :; do sleep 0.05; done"
	plain := n.create(pod("plain", script))
	stubborn := n.create(pod("stubborn", "trap '' TERM; while :; do sleep 0.05; done", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = proto.Int64(600) }))
	critical := n.create(pod("critical", script, func(p *corev1.Pod) { p.Spec.Priority = proto.Int32(2_000_001_000) }))
	file := n.create(pod("file", script, func(p *corev1.Pod) {
		p.Metadata.Annotations = map[string]string{"kubernetes.io/config.source": "file"}
	}))
	for _, uid := range []string{plain, stubborn, critical, file} {
		n.until(uid, "it runs", core.IsPodReady)
	}
	began := time.Now()
	n.set.Shutdown(t.Context(), 3*time.Second, 2*time.Second)
	if took := time.Since(began); took > time.Minute { // and not the ten of who does not heed it
		t.Errorf("ending took %v", took)
	}
	for _, uid := range []string{plain, stubborn, critical} {
		p := n.cluster.get(uid)
		if s := p.GetStatus(); s.GetPhase() != "Failed" || s.GetReason() != "Terminated" || s.GetMessage() != "Pod was terminated in response to imminent node shutdown." {
			t.Errorf("pod %s is %v", p.GetMetadata().GetName(), s)
		}
	}
	if s := n.cluster.get(file).GetStatus(); s.GetPhase() == "Failed" {
		t.Errorf("the pod of a file is %v", s)
	}
	if left, err := n.rt.List(t.Context(), ""); err != nil {
		t.Error(err)
	} else {
		for _, c := range left {
			if c.State == 1 {
				t.Errorf("container %s still runs", c.ID)
			}
		}
	}
	n.cluster.mu.Lock()
	order := strings.Join(n.cluster.events, "\n")
	n.cluster.mu.Unlock()
	if a, b := strings.Index(order, "plain Normal Killing"), strings.Index(order, "critical Normal Killing"); a < 0 || b < a {
		t.Errorf("the critical pod did not end last:\n%s", order)
	}
	late := n.create(pod("late", script))
	n.stop()
	n.agent()
	n.until(late, "what came meanwhile begins with the next agent", core.IsPodReady)
	n.until(file, "so does the pod of a file", func(p *corev1.Pod) bool { return status(p).GetRestartCount() == 1 && core.IsPodReady(p) })
}
