package agent_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestPressure lets pods use up what a small node has, and checks that the right one has to go.
func TestPressure(t *testing.T) {
	n := start(t, func(n *node) {
		f, err := os.OpenFile(n.config, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, err = f.WriteString(`capacity: [memory=400Mi, pid=300, ephemeral-storage=200Mi]
systemReserved: [cpu=500m]
eviction: {hard: [memory.available<100Mi, pid.available<100, nodefs.available<100Mi], pressureTransitionPeriod: 8s}
`)
		if err != nil {
			t.Fatal(err)
		}
	})
	n.giveCIDR()
	n.importImage()
	condition := func(name string) string {
		node, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		if err != nil {
			t.Fatal(err)
		}
		return core.NodeCondition(node, name).GetStatus()
	}
	n.until("the node tells that it is well", func() bool {
		return condition("MemoryPressure") == "False" && condition("DiskPressure") == "False" && condition("PIDPressure") == "False"
	})
	node, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
	if err != nil {
		t.Fatal(err)
	}
	if c, a := node.Status.Capacity, node.Status.Allocatable; c["memory"].GetString_() != "409600Ki" || a["memory"].GetString_() != "307200Ki" || a["ephemeral-storage"].GetString_() != "102400Ki" {
		t.Errorf("capacity is %v, allocatable %v", c, a)
	}
	limits := map[string]string{"/sys/fs/cgroup/memory%s/xebec/memory.limit_in_bytes": "419430400", "/sys/fs/cgroup%s/xebec/memory.max": "419430400"}
	bounded := false
	for file, want := range limits {
		if b, err := os.ReadFile(fmt.Sprintf(file, n.daemon.CgroupParent)); err == nil {
			bounded = strings.TrimSpace(string(b)) == want
		}
	}
	if !bounded {
		t.Error("the memory of all pods is not bounded")
	}

	memory := func(p *corev1.Pod) {
		p.Spec.Volumes = []*corev1.Volume{{Name: "memory", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: "Memory"}}}}
		p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{{Name: "memory", MountPath: "/memory"}}
	}
	n.pod("modest", "dd if=/dev/zero of=/memory/x bs=1M count=80; sleep 3600", memory, func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Requests: map[string]*metav1.Quantity{"memory": {String_: "150Mi"}}}
	})
	n.podUntil("modest", "it runs", core.IsPodReady)
	evicted := func(name, resource, threshold string) {
		t.Helper()
		p := n.podUntil(name, "it is evicted", func(p *corev1.Pod) bool { return p.GetStatus().GetPhase() == "Failed" })
		s := p.GetStatus()
		if s.GetReason() != "Evicted" || !strings.Contains(s.GetMessage(), "low on resource: "+resource+".") || !strings.Contains(s.GetMessage(), "Threshold quantity: "+threshold+",") || core.PodCondition(p, "DisruptionTarget").GetStatus() != "True" {
			t.Errorf("%s failed as %q: %q", name, s.GetReason(), s.GetMessage())
		}
		t.Log(s.GetMessage())
	}
	n.pod("greedy", "dd if=/dev/zero of=/memory/x bs=1M count=250; sleep 3600", memory)
	n.until("memory is short", func() bool { return condition("MemoryPressure") == "True" })
	// At once: memory is short for some seconds only.
	n.pod("late", "sleep 3600")
	evicted("greedy", "memory", "100Mi")
	late := n.podUntil("late", "a pod without requests is refused", func(p *corev1.Pod) bool { return p.GetStatus().GetPhase() == "Failed" })
	if late.Status.GetReason() != "Evicted" || !strings.Contains(late.Status.GetMessage(), "MemoryPressure") {
		t.Errorf("it failed as %q: %q", late.Status.GetReason(), late.Status.GetMessage())
	}
	n.until("memory is no longer short", func() bool { return condition("MemoryPressure") == "False" })

	n.pod("writer", "dd if=/dev/zero of=/data/x bs=1M count=120; sleep 3600", func(p *corev1.Pod) {
		p.Spec.Volumes = []*corev1.Volume{{Name: "data", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	})
	evicted("writer", "ephemeral-storage", "100Mi")
	n.until("the disk is no longer short", func() bool { return condition("DiskPressure") == "False" })

	n.pod("forker", "i=0; while test $i -lt 230; do sleep 3600 & i=$((i+1)); done; wait")
	evicted("forker", "pids", "100")
	if p := n.podUntil("modest", "it runs on", core.IsPodReady); p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("its containers are %v", p.Status.ContainerStatuses)
	}
}
