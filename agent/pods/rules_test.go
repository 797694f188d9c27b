package pods_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func scratch(p *corev1.Pod) {
	p.Spec.Volumes = []*corev1.Volume{{Name: "data", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	for _, c := range append(p.Spec.Containers, p.Spec.InitContainers...) {
		c.VolumeMounts = []*corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	}
}

func rules(c *corev1.Container, policy, operator string, codes ...int32) *corev1.Container {
	c.RestartPolicy = proto.String(policy)
	c.RestartPolicyRules = append(c.RestartPolicyRules, &corev1.ContainerRestartRule{
		Action: "Restart", ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: operator, Values: codes},
	})
	return c
}

// testRestartRules restarts containers of a pod that restarts none: by their exit codes, and by
// their own policy.
func testRestartRules(n *node) {
	uid := n.create(pod("ruled", "", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = "Never"
		p.Spec.Containers = []*corev1.Container{
			// It ends with 42, then 43, then 5, which no rule is about.
			rules(rules(container("main", "test -e /data/b && exit 5; test -e /data/a && { touch /data/b; exit 43; }; touch /data/a; exit 42"), "Never", "In", 42), "Never", "In", 43, 44),
			// Anything but 0 and 3.
			rules(container("other", "test -e /data/c && exit 3; touch /data/c; exit 9"), "Never", "NotIn", 0, 3),
			container("plain", "exit 1"),
		}
		tries := container("tries", "test -e /data/i && exit 0; touch /data/i; exit 6")
		tries.RestartPolicy = proto.String("OnFailure")
		p.Spec.InitContainers = []*corev1.Container{tries}
		scratch(p)
	}))
	p := n.until(uid, "it failed", func(p *corev1.Pod) bool { return p.Status.Phase == "Failed" })
	want := map[string]struct{ code, restarts int32 }{"main": {5, 2}, "other": {3, 1}, "plain": {1, 0}, "tries": {0, 1}}
	for _, cs := range append(p.Status.ContainerStatuses, p.Status.InitContainerStatuses...) {
		w := want[cs.Name]
		if cs.GetState().GetTerminated().GetExitCode() != w.code || cs.GetState().GetTerminated() == nil || cs.RestartCount != w.restarts {
			n.Errorf("%s: %v", cs.Name, cs)
		}
	}
	n.delete(uid)
	n.untilGone(uid)
}

// testInitOOM runs out of memory before the pod's work begins.
func testInitOOM(n *node) {
	uid := n.create(pod("greedy", "sleep 3600", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = "Never"
		hog := container("hog", "x=0123456789abcdef; while true; do x=$x$x; done")
		hog.Resources = &corev1.ResourceRequirements{Limits: map[string]*metav1.Quantity{"memory": {String_: "16Mi"}}}
		p.Spec.InitContainers = []*corev1.Container{hog}
	}))
	p := n.until(uid, "it failed", func(p *corev1.Pod) bool { return p.Status.Phase == "Failed" })
	if e := p.Status.InitContainerStatuses[0].GetState().GetTerminated(); e.GetReason() != "OOMKilled" || e.GetExitCode() != 137 {
		n.Errorf("status is %v", p.Status)
	}
	if got := core.PodStatus(p); got != "Init:OOMKilled" {
		n.Errorf("tables show %q", got)
	}
	n.delete(uid)
	n.untilGone(uid)
}

// TestGroupOfVolumes restarts the agent under pods whose files have got another group.
func TestGroupOfVolumes(t *testing.T) {
	n := start(t)
	uids := map[string]string{}
	for policy, name := range map[string]string{"Always": "always", "OnRootMismatch": "mismatch", "": "silent"} {
		uids[name] = n.create(pod(name, "echo x >/data/file; echo made; sleep 3600", scratch, func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{FsGroup: proto.Int64(2000)}
			if policy != "" {
				p.Spec.SecurityContext.FsGroupChangePolicy = proto.String(policy)
			}
		}))
	}
	file := func(name string) string { return filepath.Join(n.daemon.Dir, "pods", uids[name], "volumes/data/file") }
	group := func(name string) uint32 {
		info, err := os.Stat(file(name))
		if err != nil {
			return 0
		}
		return info.Sys().(*syscall.Stat_t).Gid
	}
	for name, uid := range uids {
		n.until(uid, "its file is the group's", func(p *corev1.Pod) bool {
			return core.IsPodReady(p) && strings.Contains(n.log(p, false), "made") && group(name) == 2000
		})
	}
	n.stop()
	for name := range uids {
		if err := os.Chown(file(name), -1, 7); err != nil {
			t.Fatal(err)
		}
	}
	n.agent()
	for name, uid := range uids {
		// A new container of the pod mounts its volumes.
		if err := n.rt.Kill(t.Context(), uid+"-main-0", syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		n.until(uid, "it was restarted", func(p *corev1.Pod) bool { return status(p).GetRestartCount() == 1 && core.IsPodReady(p) })
		if got, want := group(name), map[string]uint32{"always": 2000, "mismatch": 7, "silent": 7}[name]; got != want {
			t.Errorf("%s: the file is of group %d, not %d", name, got, want)
		}
	}
}
