package framework_test

import (
	"fmt"
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/cache"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/framework/frameworktest"
	"github.com/xebec-project/xebec/services/scheduler/plugins"
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

// TestCycleWithPodsRemoved asks whether a pod would fit if others were not there, as preemption
// does.
func TestCycleWithPodsRemoved(t *testing.T) {
	c := cache.New()
	for _, name := range []string{"a", "b"} {
		node := frameworktest.Node(t, name, frameworktest.Small)
		node.Metadata.Labels["zone"] = "z"
		if _, err := c.SetNode(node); err != nil {
			t.Fatal(err)
		}
	}
	labelled := func(name, node, spec string) *framework.Pod {
		return frameworktest.PodOf(t, name, node, "rs", spec, func(p *corev1.Pod) { p.Metadata.Labels = map[string]string{"app": "web"} })
	}
	hog, web := frameworktest.Pod(t, "hog", "a", frameworktest.Container(`"cpu":"1"`)), labelled("web", "b", frameworktest.Container(""))
	c.SetPod(hog)
	c.SetPod(web)
	p := labelled("p", "", frameworktest.Container(`"cpu":"500m"`)+`,"affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":
		[{"topologyKey":"zone","labelSelector":{"matchLabels":{"app":"web"}}}]}}`)
	s := c.Snapshot()
	cycle, a, b := framework.NewProfile(plugins.Default()).Begin(s, p), s.Node("a"), s.Node("b")
	for _, step := range []struct {
		change func()
		want   string // the plug-in that refuses node a
	}{
		{func() {}, "NodeResourcesFit"},
		{func() { cycle.RemovePod(a, hog) }, "InterPodAffinity"},
		{func() { cycle.RemovePod(b, web) }, ""},
		{func() { cycle.AddPod(a, hog) }, "NodeResourcesFit"},
		{func() { cycle.RemovePod(a, hog); cycle.AddPod(b, web) }, "InterPodAffinity"},
		{func() { cycle.AddPod(a, hog) }, "NodeResourcesFit"},
	} {
		step.change()
		if by, _ := cycle.Refusal(a); by != step.want {
			t.Errorf("refused by %q, want %q", by, step.want)
		}
	}
}
