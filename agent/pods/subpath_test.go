package pods_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

const (
	// raceStarts is how many containers have to start at least while their paths change, of
	// raceContainers, and raceTime how long the others may go on.
	raceStarts, raceContainers = 50, 80
	raceTime                   = 30 * time.Second
	// escaped is the exit code of a container that sees the node's root.
	escaped = 42
)

// TestSubPathRace starts containers with a subPath that another container of their pod, which has
// no capabilities, keeps exchanging for a link to the root. None may see the node's.
func TestSubPathRace(t *testing.T) {
	n := start(t, func(n *node) { n.configRetry = 100 * time.Millisecond })
	tool := filepath.Join(n.daemon.Dir, "exchange")
	build := exec.Command("go", "build", "-trimpath", "-o", tool, "./testdata/exchange")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	marker := filepath.Join(n.daemon.Dir, "marker")
	if err := os.WriteFile(marker, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	uid := n.create(pod("race", "", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = "Never"
		p.Spec.Volumes = []*corev1.Volume{
			volume("shared", &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
			volume("tool", &corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: tool, Type: proto.String("File")}}),
		}
		attacker := container("attacker", "")
		attacker.Command, attacker.RestartPolicy = []string{"/exchange", "/shared"}, proto.String("Always")
		attacker.SecurityContext = &corev1.SecurityContext{RunAsUser: proto.Int64(1000), Capabilities: &corev1.Capabilities{Drop: []string{"ALL"}}}
		// With the least share of a busy processor it would hardly ever exchange anything.
		attacker.Resources = &corev1.ResourceRequirements{Requests: map[string]*metav1.Quantity{"cpu": {String_: "2"}}}
		attacker.VolumeMounts = []*corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}, {Name: "tool", MountPath: "/exchange", ReadOnly: true}}
		p.Spec.InitContainers = []*corev1.Container{attacker}
		p.Spec.Containers = nil
		for i := range raceContainers {
			c := container(fmt.Sprintf("c%d", i), fmt.Sprintf("test -e /sub%s && exit %d; exit 0", marker, escaped))
			c.VolumeMounts = []*corev1.VolumeMount{{Name: "shared", MountPath: "/sub", SubPath: "d"}}
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
	}))
	began, starts := time.Now(), 0
	containerdtest.Eventually(t, 3*time.Minute, "containers have started while their path changed", func() bool {
		starts = 0
		for _, s := range n.cluster.get(uid).GetStatus().GetContainerStatuses() {
			end := s.GetState().GetTerminated()
			if end == nil {
				continue
			}
			starts++
			if end.GetExitCode() == escaped {
				t.Fatalf("%s sees the node's root, after %d that did not", s.GetName(), starts-1)
			}
			if end.GetExitCode() != 0 {
				t.Fatalf("%s ended: %v", s.GetName(), end)
			}
		}
		return starts == raceContainers || starts >= raceStarts && time.Since(began) >= raceTime
	})
	if a := n.cluster.get(uid).GetStatus().GetInitContainerStatuses(); len(a) != 1 || a[0].GetState().GetRunning() == nil || a[0].GetRestartCount() > 0 {
		t.Errorf("the container that exchanges the path does not run: %v", a)
	}
	n.delete(uid)
	n.untilGone(uid)
	n.cluster.mu.Lock()
	refused := strings.Count(strings.Join(n.cluster.events, "\n"), "leads outside of the volume by a link")
	n.cluster.mu.Unlock()
	t.Logf("%d containers started, %d times the path led out of the volume", starts, refused)
	if refused == 0 {
		t.Error("the path never led out of the volume: nothing was shown")
	}
	n.noBindsLeft()
}

// noBindsLeft fails the test if something of what containers' files were bound to is left.
func (n *node) noBindsLeft() {
	n.Helper()
	dir := filepath.Join(n.daemon.Dir, "mounts")
	containerdtest.Eventually(n.T, 60*time.Second, "no binds are left", func() bool {
		entries, err := os.ReadDir(dir)
		mounts, merr := os.ReadFile("/proc/self/mountinfo")
		return (err == nil || os.IsNotExist(err)) && merr == nil && len(entries) == 0 && !bytes.Contains(mounts, []byte(dir+"/"))
	})
}

// TestSubPaths mounts paths in volumes of several kinds, and finds what an agent left that died
// while it had them bound.
func TestSubPaths(t *testing.T) {
	n := start(t)
	host := filepath.Join(n.daemon.Dir, "host")
	if err := os.MkdirAll(filepath.Join(host, "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(host, "deep", "file"), []byte("of the node"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("deep", filepath.Join(host, "link")); err != nil {
		t.Fatal(err)
	}
	n.cluster.setConfigMap("settings", map[string]string{"mode": "of the map"})
	change := func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: proto.Int64(1000)}
		p.Spec.Volumes = []*corev1.Volume{
			volume("host", &corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host, Type: proto.String("Directory")}}),
			volume("config", &corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("settings")}}),
			volume("empty", &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
		}
		c := p.Spec.Containers[0]
		c.Env = []*corev1.EnvVar{{Name: "WHERE", Value: "a/b"}, {Name: "NONE"}}
		c.VolumeMounts = []*corev1.VolumeMount{
			{Name: "host", MountPath: "/file", SubPath: "link/file"}, {Name: "host", MountPath: "/host"},
			{Name: "config", MountPath: "/mode", SubPath: "mode"}, {Name: "empty", MountPath: "/sub", SubPathExpr: "$(WHERE)/c"},
			{Name: "empty", MountPath: "/empty"},
		}
	}
	uid := n.create(pod("paths", "touch /sub/mine; sleep 3600", change))
	p := n.until(uid, "it runs", core.IsPodReady)
	var got string
	containerdtest.Eventually(t, 60*time.Second, "all is mounted", func() bool {
		got = n.run(p, "cat /file /host/deep/file /mode; ls /empty/a/b/c")
		return got == "of the nodeof the nodeof the mapmine\n"
	})
	n.noBindsLeft()
	n.delete(uid)
	n.untilGone(uid)

	lost := n.create(pod("lost", "sleep 3600", func(p *corev1.Pod) {
		change(p)
		p.Spec.Containers[0].VolumeMounts[3].SubPathExpr = "$(NONE)/$(OTHER)"
	}))
	n.until(lost, "a variable without a value is reported", func(p *corev1.Pod) bool {
		return strings.Contains(status(p).GetState().GetWaiting().GetMessage(), `"$(NONE)/$(OTHER)" of volume empty: the container has no environment variable NONE, OTHER`)
	})
	n.delete(lost)
	n.untilGone(lost)
}
