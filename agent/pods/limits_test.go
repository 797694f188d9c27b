package pods_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xebec-project/xebec/agent/eviction"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/metrics/metricstest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestDiskLimits ends pods that use more of the disk than they may, and no others, and counts why.
func TestDiskLimits(t *testing.T) {
	registry := prometheus.NewRegistry()
	n := start(t, func(n *node) { n.evictions = eviction.NewMetrics(registry) })
	limited := func(c *corev1.Container, limit string) *corev1.Container {
		c.Resources = &corev1.ResourceRequirements{Limits: map[string]*metav1.Quantity{"ephemeral-storage": {String_: limit}}}
		return c
	}
	writes := func(kib, to string) string {
		return "dd if=/dev/zero bs=1K count=" + kib + " 2>/dev/null >" + to + "; "
	}
	// Lines, for the log is kept by lines.
	logs := "yes 0123456789abcdef | head -n 100000; "
	const stays = "trap 'exit 0' TERM; sleep 3600 & wait"
	made := func(name string, containers ...*corev1.Container) string {
		return n.create(pod(name, "", func(p *corev1.Pod) {
			p.Spec.Containers = containers
			scratch(p)
		}))
	}
	modest := made("modest", limited(container("main", writes("1024", "/file")+writes("512", "/data/file")+stays), "8Mi"))
	// It writes less than its limit to its file system and to its log, and more to both together.
	container1 := made("container", limited(container("main", writes("1536", "/file")+logs+stays), "2Mi"), limited(container("other", "sleep 3600"), "64Mi"))
	whole := made("whole", limited(container("main", writes("4096", "/data/file")+stays), "2Mi"), container("other", "sleep 3600"))
	volume := n.create(pod("volume", writes("4096", "/data/file")+stays, scratch, func(p *corev1.Pod) {
		p.Spec.Volumes[0].VolumeSource.EmptyDir.SizeLimit = &metav1.Quantity{String_: "2Mi"}
	}))
	for uid, want := range map[string]string{
		container1: `Container main exceeded its local ephemeral storage limit "2Mi".`,
		whole:      "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi.",
		volume:     `Usage of EmptyDir volume "data" exceeds the limit "2Mi".`,
	} {
		p := n.until(uid, "it is evicted", func(p *corev1.Pod) bool { return p.Status.Phase == "Failed" })
		if p.Status.Reason != "Evicted" || p.Status.Message != want {
			t.Errorf("%s: status is %v", p.Metadata.Name, p.Status)
		}
		if c := core.PodCondition(p, "DisruptionTarget"); c.GetStatus() != "True" {
			t.Errorf("%s: the condition is %v", p.Metadata.Name, c)
		}
	}
	for why, got := range metricstest.Values(t, registry, metrics.Evictions) {
		if limit := strings.HasSuffix(why, ".limit"); limit != (got == 1) || !limit && got != 0 {
			t.Errorf("%v were counted as %s", got, why)
		}
	}
	if p := n.until(modest, "it runs", core.IsPodReady); status(p).GetRestartCount() != 0 {
		t.Errorf("the pod within its limits is %v", p.Status)
	}
	for _, uid := range []string{modest, container1, whole, volume} {
		n.delete(uid)
		n.untilGone(uid)
	}
}
