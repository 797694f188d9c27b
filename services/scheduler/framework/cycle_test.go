package framework_test

import (
	"fmt"
	"testing"

	"github.com/xebec-project/xebec/services/scheduler/cache"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/framework/frameworktest"
	"github.com/xebec-project/xebec/services/scheduler/plugins/nodeaffinity"
)

// counting counts the nodes that it is asked about.
type counting struct{ looks *int }

func (counting) Name() string                            { return "Counting" }
func (counting) EventsToRegister() []framework.EventHint { return nil }
func (c counting) PreFilter(*framework.Snapshot, *framework.Pod) framework.NodeFilter {
	return c
}
func (counting) Explain(*framework.Node) string { return "" }
func (c counting) Filter(*framework.Node) []string {
	*c.looks++
	return nil
}

// TestNamedNodes schedules a pod of a DaemonSet, which names its node, among many nodes.
func TestNamedNodes(t *testing.T) {
	c := cache.New()
	for i := range 50 {
		if _, err := c.SetNode(frameworktest.Node(t, fmt.Sprint("n", i), frameworktest.Big)); err != nil {
			t.Fatal(err)
		}
	}
	looks := 0
	profile := framework.NewProfile(framework.Plugins{PreFilter: []framework.PreFilterPlugin{counting{&looks}, nodeaffinity.Plugin{}}})
	p := frameworktest.Pod(t, "p", "", frameworktest.Container("")+`,"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":
		{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n7"]}]}]}}}`)
	if node, err := profile.Schedule(c.Snapshot(), p); err != nil || node != "n7" || looks != 1 {
		t.Errorf("on %q after a look at %d nodes, %v", node, looks, err)
	}
}
