package pods_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func amounts(cpu, memory string) map[string]*metav1.Quantity {
	return map[string]*metav1.Quantity{"cpu": {String_: cpu}, "memory": {String_: memory}}
}

func sized(cpu, memory string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Requests: amounts(cpu, memory), Limits: amounts(cpu, memory)}
	}
}

// bounds reads the memory limit and the CPU quota of a cgroup below the test's.
func (n *node) bounds(cgroup string) string {
	var out []string
	for _, file := range []string{"memory/%/memory.limit_in_bytes", "cpu/%/cpu.cfs_quota_us", "%/memory.max", "%/cpu.max"} {
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", strings.ReplaceAll(file, "%", n.daemon.CgroupParent+"/"+cgroup)))
		if err == nil {
			text, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
			out = append(out, text)
		}
	}
	return strings.Join(out, " ")
}

func (n *node) change(uid string, f func(*corev1.Pod)) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	p := proto.CloneOf(n.cluster.pods[uid])
	f(p)
	p.Metadata.Generation++
	n.cluster.put(p)
}

// TestResize changes the resources of running containers.
func TestResize(t *testing.T) {
	n := start(t, func(n *node) { n.allocatable = runtime.Resources{MilliCPURequest: 1000, MemoryRequest: 400 << 20} })
	uid := n.create(pod("app", "sleep 3600", sized("200m", "64Mi")))
	other := n.create(pod("other", "sleep 3600", sized("500m", "100Mi")))
	before := n.until(uid, "it runs", core.IsPodReady)
	n.until(other, "it runs", core.IsPodReady)
	ctr := "pod" + uid + "/" + runtime.ID(uid, "main", 0)
	if got := n.bounds(ctr); got != "67108864 20000" {
		t.Fatalf("bounds are %q", got)
	}
	if s := status(before); s.GetAllocatedResources()["memory"].GetString_() != "64Mi" || s.GetResources().GetLimits()["cpu"].GetString_() != "200m" {
		t.Errorf("status is %v", s)
	}
	is := func(cpu, memory string) func(*corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			s := status(p)
			return s.GetResources().GetLimits()["memory"].GetString_() == memory && s.GetResources().GetLimits()["cpu"].GetString_() == cpu &&
				s.GetAllocatedResources()["memory"].GetString_() == memory && core.PodCondition(p, "PodResizeInProgress") == nil && core.PodCondition(p, "PodResizePending") == nil
		}
	}
	n.change(uid, sized("300m", "128Mi"))
	after := n.until(uid, "it has grown", is("300m", "128Mi"))
	if got, pod := n.bounds(ctr), n.bounds("pod"+uid); got != "134217728 30000" || pod != got {
		t.Errorf("bounds are %q, the pod's %q", got, pod)
	}
	n.change(uid, sized("100m", "32Mi"))
	n.until(uid, "it has shrunk", is("100m", "32Mi"))
	containerdtest.Eventually(t, 60*time.Second, "the pod's own bounds have shrunk", func() bool { return n.bounds("pod"+uid) == "33554432 10000" })
	if got := n.bounds(ctr); got != "33554432 10000" {
		t.Errorf("bounds are %q", got)
	}
	if a, b := status(before), status(after); a.ContainerId != b.ContainerId || b.RestartCount != 0 || !proto.Equal(a.State, b.State) {
		t.Errorf("the container was %v and is %v", a, b)
	}

	// Too much for the node, and too much beside the other one.
	pending := func(reason string) func(*corev1.Pod) bool {
		return func(p *corev1.Pod) bool { return core.PodCondition(p, "PodResizePending").GetReason() == reason }
	}
	n.change(uid, sized("2", "32Mi"))
	n.until(uid, "no node would have room", pending("Infeasible"))
	n.change(uid, sized("100m", "350Mi"))
	p := n.until(uid, "there is no room now", pending("Deferred"))
	if got := n.bounds(ctr); got != "33554432 10000" || status(p).GetAllocatedResources()["memory"].GetString_() != "32Mi" {
		t.Errorf("bounds are %q, status %v", got, status(p))
	}

	// The agent dies meanwhile, and the other pod leaves.
	n.stop()
	n.agent()
	n.until(uid, "still no room", pending("Deferred"))
	if got := n.bounds(ctr); got != "33554432 10000" {
		t.Errorf("after the agent's restart bounds are %q", got)
	}
	n.delete(other)
	n.untilGone(other)
	n.until(uid, "there is room", is("100m", "350Mi"))
	if got := n.bounds(ctr); got != "367001600 10000" {
		t.Errorf("bounds are %q", got)
	}
	if s := status(n.cluster.get(uid)); s.GetRestartCount() != 0 {
		t.Errorf("the container is %v", s)
	}
	n.cluster.mu.Lock()
	if !slices.ContainsFunc(n.cluster.events, func(e string) bool { return strings.HasPrefix(e, "app Normal ResizeCompleted") }) {
		t.Errorf("events are %v", n.cluster.events)
	}
	n.cluster.mu.Unlock()
}

// TestPodLevelResources bounds a pod as a whole: its containers share what there is, and one that
// takes too much ends.
func TestPodLevelResources(t *testing.T) {
	n := start(t)
	uid := n.create(pod("whole", "until test -e /dev/shm/go; do sleep 0.02; done; x=0123456789abcdef; while true; do x=$x$x; done", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = "Never"
		p.Spec.Containers = append(p.Spec.Containers, container("small", "sleep 3600"))
		p.Spec.Containers[1].Resources = &corev1.ResourceRequirements{Limits: amounts("100m", "16Mi")}
		p.Spec.Resources = &corev1.ResourceRequirements{Limits: amounts("500m", "64Mi"), Requests: amounts("500m", "64Mi")}
	}))
	p := n.until(uid, "it runs", core.IsPodReady)
	if p.Status.QosClass != "Guaranteed" {
		t.Errorf("its class is %s", p.Status.QosClass)
	}
	for cgroup, want := range map[string]string{
		"": "67108864 50000", "/" + runtime.ID(uid, "main", 0): "67108864 50000", "/" + runtime.ID(uid, "small", 0): "16777216 10000",
	} {
		if got := n.bounds("pod" + uid + cgroup); got != want {
			t.Errorf("bounds of %q are %q, not %q", cgroup, got, want)
		}
	}
	if err := os.WriteFile(filepath.Join(n.daemon.Dir, "pods", uid, "ns/shm/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p = n.until(uid, "the container that took too much has ended", func(p *corev1.Pod) bool { return status(p).GetState().GetTerminated() != nil })
	if e := status(p).GetState().GetTerminated(); e.GetReason() != "OOMKilled" || p.Status.ContainerStatuses[1].GetState().GetRunning() == nil {
		t.Errorf("status is %v", p.Status)
	}
	n.delete(uid)
	n.untilGone(uid)
}

// whole bounds a pod as a whole.
func whole(cpu, memory string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Resources = &corev1.ResourceRequirements{Limits: amounts(cpu, memory), Requests: amounts(cpu, memory)}
	}
}

// TestResizePodLevel changes the resources of a pod as a whole, and with them those of its
// containers that have none of their own.
func TestResizePodLevel(t *testing.T) {
	n := start(t)
	uid := n.create(pod("whole", "trap 'exit 0' TERM; dd if=/dev/zero of=/dev/shm/held bs=1M count=24 2>/dev/null; touch /dev/shm/filled; sleep 3600 & wait", whole("500m", "64Mi"), func(p *corev1.Pod) {
		small, restarted := container("small", `trap "exit 0" TERM; sleep 3600 & wait`), container("restarted", `trap "exit 0" TERM; sleep 3600 & wait`)
		small.Resources = &corev1.ResourceRequirements{Limits: amounts("100m", "16Mi"), Requests: amounts("100m", "16Mi")}
		restarted.ResizePolicy = []*corev1.ContainerResizePolicy{{ResourceName: "memory", RestartPolicy: "RestartContainer"}}
		p.Spec.Containers = append(p.Spec.Containers, small, restarted)
	}))
	n.until(uid, "it runs", core.IsPodReady)
	shm := filepath.Join(n.daemon.Dir, "pods", uid, "ns/shm")
	containerdtest.Eventually(t, 60*time.Second, "it holds memory", func() bool { _, err := os.Stat(filepath.Join(shm, "filled")); return err == nil })
	bounds := func(attempt int) string {
		var out []string
		for _, c := range []string{"", "/" + runtime.ID(uid, "main", 0), "/" + runtime.ID(uid, "small", 0), "/" + runtime.ID(uid, "restarted", attempt)} {
			out = append(out, n.bounds("pod"+uid+c))
		}
		return strings.Join(out, ", ")
	}
	if got := bounds(0); got != "67108864 50000, 67108864 50000, 16777216 10000, 67108864 50000" {
		t.Fatalf("bounds are %s", got)
	}
	// is reports whether the change is in force, with the container restarted so many times.
	is := func(cpu, memory string, restarts int32) func(*corev1.Pod) bool {
		return func(p *corev1.Pod) bool {
			s := p.GetStatus()
			return s.GetResources().GetLimits()["memory"].GetString_() == memory && s.GetResources().GetRequests()["cpu"].GetString_() == cpu &&
				s.GetAllocatedResources()["memory"].GetString_() == memory && core.PodCondition(p, "PodResizeInProgress") == nil && core.PodCondition(p, "PodResizePending") == nil &&
				s.GetContainerStatuses()[0].GetRestartCount()+s.GetContainerStatuses()[1].GetRestartCount() == 0 && s.GetContainerStatuses()[2].GetRestartCount() == restarts && core.IsPodReady(p)
		}
	}
	n.change(uid, whole("800m", "64Mi"))
	n.until(uid, "it has more CPU", is("800m", "64Mi", 0))
	if got := bounds(0); got != "67108864 80000, 67108864 80000, 16777216 10000, 67108864 80000" {
		t.Errorf("bounds are %s", got)
	}
	n.change(uid, whole("800m", "128Mi"))
	n.until(uid, "it has more memory", is("800m", "128Mi", 1))
	if got := bounds(1); got != "134217728 80000, 134217728 80000, 16777216 10000, 134217728 80000" {
		t.Errorf("bounds are %s", got)
	}

	// Less than it holds is not to be had, whatever the agent does.
	n.change(uid, whole("300m", "16Mi"))
	stuck := func(p *corev1.Pod) bool {
		c := core.PodCondition(p, "PodResizeInProgress")
		return c.GetReason() == "Error" && strings.Contains(c.GetMessage(), "current usage is higher")
	}
	p := n.until(uid, "it can't shrink", stuck)
	if s := p.Status; s.GetResources().GetLimits()["memory"].GetString_() != "128Mi" || s.GetAllocatedResources()["memory"].GetString_() != "16Mi" {
		t.Errorf("status is %v", s)
	}
	n.stop()
	n.agent()
	n.change(uid, func(p *corev1.Pod) { p.Metadata.Annotations = map[string]string{"seen": "yes"} })
	n.until(uid, "it still can't shrink", func(p *corev1.Pod) bool { return stuck(p) && p.Status.ObservedGeneration == p.Metadata.Generation })
	if got := n.bounds("pod" + uid); got != "134217728 80000" {
		t.Errorf("the pod has shrunk before what is in it: %s", got)
	}
	if err := os.Remove(filepath.Join(shm, "held")); err != nil {
		t.Fatal(err)
	}
	n.change(uid, func(p *corev1.Pod) { p.Metadata.Annotations = nil })
	n.until(uid, "it has shrunk", is("300m", "16Mi", 2))
	containerdtest.Eventually(t, 60*time.Second, "the pod's own bounds have shrunk", func() bool {
		return bounds(2) == "16777216 30000, 16777216 30000, 16777216 10000, 16777216 30000"
	})
	n.delete(uid)
	n.untilGone(uid)
}

// TestResizeByRestart changes a resource for which the container wants to be restarted.
func TestResizeByRestart(t *testing.T) {
	n := start(t)
	uid := n.create(pod("app", `trap "exit 0" TERM; sleep 3600 & wait`, sized("200m", "64Mi"), func(p *corev1.Pod) {
		p.Spec.Containers[0].ResizePolicy = []*corev1.ContainerResizePolicy{{ResourceName: "memory", RestartPolicy: "RestartContainer"}, {ResourceName: "cpu", RestartPolicy: "NotRequired"}}
	}))
	n.until(uid, "it runs", core.IsPodReady)
	n.change(uid, sized("300m", "64Mi"))
	n.until(uid, "its CPU has changed", func(p *corev1.Pod) bool { return status(p).GetResources().GetLimits()["cpu"].GetString_() == "300m" })
	if s := status(n.cluster.get(uid)); s.GetRestartCount() != 0 {
		t.Errorf("restarted for CPU: %v", s)
	}
	n.change(uid, sized("300m", "128Mi"))
	n.until(uid, "it was restarted with more memory", func(p *corev1.Pod) bool {
		s := status(p)
		return s.GetRestartCount() == 1 && s.GetState().GetRunning() != nil && s.GetResources().GetLimits()["memory"].GetString_() == "128Mi" && core.PodCondition(p, "PodResizeInProgress") == nil
	})
	if got := n.bounds("pod" + uid + "/" + runtime.ID(uid, "main", 1)); got != "134217728 30000" {
		t.Errorf("bounds are %q", got)
	}
}
