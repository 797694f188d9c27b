package cache

import (
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/framework/frameworktest"
)

func setNode(t *testing.T, c *Cache, name, fields string) framework.Event {
	t.Helper()
	e, err := c.SetNode(frameworktest.Node(t, name, fields))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// requesting returns a pod that requests cpu; on a node unless that is empty.
func requesting(t *testing.T, name, node, cpu string) *framework.Pod {
	t.Helper()
	return frameworktest.Pod(t, name, node, frameworktest.Container(`"cpu":"`+cpu+`"`))
}

// used returns the cpu and the number of pods that are taken of a node that exists.
func used(t *testing.T, c *Cache, name string) (cpu, pods int64) {
	t.Helper()
	at, ok := c.snapshot.Find(name)
	if !ok {
		t.Fatalf("there is no node %s", name)
	}
	n := c.Snapshot().Nodes[at]
	return n.Used[framework.CPU], n.Used[framework.Pods]
}

func expectUsed(t *testing.T, c *Cache, name string, cpu, pods int64) {
	t.Helper()
	if gotCPU, gotPods := used(t, c, name); gotCPU != cpu || gotPods != pods {
		t.Errorf("%s: %dm cpu and %d pods are used, want %dm and %d", name, gotCPU, gotPods, cpu, pods)
	}
}

func TestNodeEvents(t *testing.T) {
	const withGPU = `"status":{"allocatable":{"cpu":"4","memory":"8Gi","pods":"110","example.com/gpu":"1"}}`
	c := New()
	for _, step := range []struct {
		fields string
		want   framework.EventKind
	}{
		{frameworktest.Small, framework.NodeAdded},
		{frameworktest.Small, 0},
		{frameworktest.Big, framework.NodeAllocatableChanged},
		{`"spec":{"unschedulable":true},` + frameworktest.Big, framework.NodeUnschedulableChanged},
		{
			`"spec":{"taints":[{"key":"k","effect":"NoSchedule"}]},` + frameworktest.Big,
			framework.NodeUnschedulableChanged | framework.NodeTaintsChanged,
		},
		{withGPU, framework.NodeTaintsChanged | framework.NodeAllocatableChanged},
	} {
		if e := setNode(t, c, "a", step.fields); e.Kind != step.want || e.Node != c.Snapshot().Nodes[0] {
			t.Errorf("%s: event %b about %v, want %b", step.fields, e.Kind, e.Node, step.want)
		}
	}
	labelled := frameworktest.Node(t, "a", withGPU)
	labelled.Metadata.Labels["disk"] = "ssd"
	if e, err := c.SetNode(labelled); err != nil || e.Kind != framework.NodeLabelsChanged {
		t.Errorf("event %b, %v, want a change of labels", e.Kind, err)
	}
	c.DeleteNode("a")
	c.DeleteNode("a")
	if len(c.Snapshot().Nodes) != 0 || len(c.nodes) != 0 {
		t.Error("the node is still there")
	}
	if e := setNode(t, c, "a", frameworktest.Small); e.Kind != framework.NodeAdded {
		t.Errorf("event %b, want a node to be added", e.Kind)
	}
}

func TestInvalidNodeChangesNothing(t *testing.T) {
	c := New()
	setNode(t, c, "a", frameworktest.Small)
	broken := frameworktest.Node(t, "a", frameworktest.Big)
	broken.Status.Allocatable["memory"] = &metav1.Quantity{String_: "much"}
	const want = `node a: allocatable: resource memory: `
	if _, err := c.SetNode(broken); err == nil || len(err.Error()) < len(want) || err.Error()[:len(want)] != want {
		t.Errorf("got %v, want %s...", err, want)
	}
	if got := c.Snapshot().Nodes[0].Allocatable[framework.CPU]; got != 1000 {
		t.Errorf("the node offers %dm cpu, want 1000m", got)
	}
}

func TestNodesAreSorted(t *testing.T) {
	c := New()
	for _, name := range []string{"b", "c", "a"} {
		setNode(t, c, name, frameworktest.Small)
	}
	c.DeleteNode("b")
	setNode(t, c, "aa", frameworktest.Small)
	var names string
	for _, n := range c.Snapshot().Nodes {
		names += n.Name + " "
	}
	if names != "a aa c " {
		t.Errorf("nodes %s", names)
	}
}

func TestPodsAreCountedOnce(t *testing.T) {
	c := New()
	setNode(t, c, "a", frameworktest.Small)
	setNode(t, c, "b", frameworktest.Small)
	c.SetPod(requesting(t, "x", "a", "1"))
	c.SetPod(requesting(t, "x", "a", "1"))
	expectUsed(t, c, "a", 1000, 1)
	if e := c.SetPod(requesting(t, "x", "b", "1")); e.Kind != framework.PodRemoved || e.Node.Name != "a" {
		t.Errorf("a pod that moved gives event %b about %v", e.Kind, e.Node)
	}
	expectUsed(t, c, "a", 0, 0)
	expectUsed(t, c, "b", 1000, 1)
	if e := c.DeletePod("x"); e.Kind != framework.PodRemoved || e.Node.Name != "b" {
		t.Errorf("a deleted pod gives event %b about %v", e.Kind, e.Node)
	}
	if e := c.DeletePod("x"); e.Kind != 0 {
		t.Errorf("a pod that is not there gives event %b", e.Kind)
	}
	expectUsed(t, c, "b", 0, 0)
}

// TestPodsOfAbsentNodes counts pods of a node before it exists and after it was deleted.
func TestPodsOfAbsentNodes(t *testing.T) {
	c := New()
	c.SetPod(requesting(t, "x", "a", "1"))
	if len(c.Snapshot().Nodes) != 0 {
		t.Error("a pod made a node")
	}
	setNode(t, c, "a", frameworktest.Small)
	expectUsed(t, c, "a", 1000, 1)
	c.DeleteNode("a")
	setNode(t, c, "a", frameworktest.Small)
	expectUsed(t, c, "a", 1000, 1)
	c.DeleteNode("a")
	if e := c.DeletePod("x"); e.Kind != framework.PodRemoved || e.Node != nil {
		t.Errorf("event %b about %v, want one without a node", e.Kind, e.Node)
	}
	if len(c.nodes) != 0 {
		t.Error("a node without pods is kept after its deletion")
	}
}

func TestResizedPods(t *testing.T) {
	c := New()
	setNode(t, c, "n", frameworktest.Small)
	for _, step := range []struct {
		cpu  string
		used int64
		want framework.EventKind
	}{{"600m", 600, framework.PodAdded}, {"900m", 900, 0}, {"900m", 900, 0}, {"200m", 200, framework.PodShrunk}} {
		if e := c.SetPod(requesting(t, "a", "n", step.cpu)); e.Kind != step.want {
			t.Errorf("%s: event %b, want %b", step.cpu, e.Kind, step.want)
		}
		expectUsed(t, c, "n", step.used, 1)
	}
}

// TestNewResource has pods that request a resource before a node offers it.
func TestNewResource(t *testing.T) {
	c := New()
	setNode(t, c, "a", frameworktest.Small)
	c.SetPod(frameworktest.Pod(t, "x", "a", frameworktest.Container(`"example.com/gpu":"2"`)))
	if _, known := c.Snapshot().Resources.ID("example.com/gpu"); known {
		t.Error("a pod's request alone gave a resource an id")
	}
	setNode(t, c, "b", `"status":{"allocatable":{"cpu":"1","example.com/gpu":"4"}}`)
	id, known := c.Snapshot().Resources.ID("example.com/gpu")
	if !known {
		t.Fatal("the resource has no id")
	}
	a, b := c.Snapshot().Nodes[0], c.Snapshot().Nodes[1]
	if a.Used[id] != 2 || a.Allocatable[id] != 0 || b.Used[id] != 0 || b.Allocatable[id] != 4 {
		t.Errorf("a uses %d of %d, b %d of %d", a.Used[id], a.Allocatable[id], b.Used[id], b.Allocatable[id])
	}
	c.DeletePod("x")
	if a.Used[id] != 0 {
		t.Errorf("a uses %d after the pod was deleted", a.Used[id])
	}
}

func TestReservations(t *testing.T) {
	c := New()
	setNode(t, c, "a", frameworktest.Small)
	x := framework.Assignment{Pod: requesting(t, "x", "", "1"), Node: "a"}
	if err := c.Reserve(framework.Assignment{Pod: x.Pod, Node: "gone"}); err == nil {
		t.Error("reserved a node that does not exist")
	}
	for range 2 {
		if err := c.Reserve(x); err != nil || !c.Reserved(x) {
			t.Fatalf("reserved %v, %v", c.Reserved(x), err)
		}
		expectUsed(t, c, "a", 1000, 1)
		c.Unreserve(x)
		c.Unreserve(x)
		expectUsed(t, c, "a", 0, 0)
	}
	// A pod that is known to be bound is not reserved any more.
	if err := c.Reserve(x); err != nil {
		t.Fatal(err)
	}
	c.SetPod(requesting(t, "x", "a", "1"))
	c.Unreserve(x)
	expectUsed(t, c, "a", 1000, 1)
}

var _ framework.ReservePlugin = (*Cache)(nil)

// BenchmarkSetNode updates one node of 5,000, as a heartbeat with a new status does.
func BenchmarkSetNode(b *testing.B) {
	c := New()
	var n *corev1.Node
	for i := range 5000 {
		n = frameworktest.Node(b, "n"+string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676)), frameworktest.Big)
		if _, err := c.SetNode(n); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if _, err := c.SetNode(n); err != nil {
			b.Fatal(err)
		}
	}
}

func TestNominations(t *testing.T) {
	c := New()
	p := frameworktest.Pod(t, "p", "", frameworktest.Container(`"cpu":"1"`))
	// The node of a leader before may be known only later.
	if e := c.Nominate(p, "a"); e.Kind != 0 {
		t.Errorf("event %+v", e)
	}
	if _, err := c.SetNode(frameworktest.Node(t, "a", frameworktest.Small)); err != nil {
		t.Fatal(err)
	}
	if n := c.Snapshot().Node("a"); c.Snapshot().NominatedNode("p") != n || len(n.Nominated) != 1 {
		t.Errorf("nominated for %v", c.Snapshot().NominatedNode("p"))
	}
	if e := c.Nominate(p, "b"); e.Kind != framework.PodRemoved || e.Node == nil || e.Node.Name != "a" || e.WasPod != p {
		t.Errorf("event of another node %+v", e)
	}
	if e := c.EndNomination("p"); e.Kind != framework.PodRemoved || e.Node != nil {
		t.Errorf("event of a node that does not exist %+v", e)
	}
	if len(c.nodes) != 1 {
		t.Errorf("%d nodes are left", len(c.nodes))
	}
	// A pod that is reserved is counted on its node alone.
	c.Nominate(p, "a")
	if err := c.Reserve(framework.Assignment{Pod: p, Node: "a"}); err != nil {
		t.Fatal(err)
	}
	c.Nominate(p, "a")
	if n := c.Snapshot().Node("a"); len(n.Nominated) != 0 || len(n.Pods) != 1 {
		t.Errorf("%d nominated, %d pods", len(n.Nominated), len(n.Pods))
	}
}
