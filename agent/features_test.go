package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/agent/datapath"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// The condition is false, and says what does not work, while a feature is missing.
func TestKernelFeaturesCondition(t *testing.T) {
	stale := datapath.Feature{Name: datapath.FeatureStaleSockets, Method: "sock_diag"}
	st := &corev1.NodeStatus{}
	for _, step := range []struct {
		missing, status, reason, message string
	}{
		{"", "True", "AllAvailable", "stale_sockets by sock_diag"},
		{"UDP sockets keep removed endpoints", "False", "SomeMissing", "UDP sockets keep removed endpoints (stale_sockets by sock_diag)"},
		{"", "True", "AllAvailable", "stale_sockets by sock_diag"},
	} {
		stale.Missing = step.missing
		setKernelFeatures(st, []datapath.Feature{stale}, time.Now())
		c := conditionOf(st, kernelFeatures)
		if len(st.Conditions) != 1 || c.GetStatus() != step.status || c.GetReason() != step.reason || c.GetMessage() != step.message {
			t.Errorf("missing %q: %v, want %+v", step.missing, st.Conditions, step)
		}
		if strings.Contains(c.GetType(), " ") {
			t.Errorf("type %q", c.GetType())
		}
	}
}
