package pods_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestWaitsAreReported brings pods into all kinds of trouble: each tells by its container's state,
// and by an event, what it waits for.
func TestWaitsAreReported(t *testing.T) {
	n := start(t)
	n.cluster.setConfigMap("settings", map[string]string{"a": "1", "b": "2"})
	file := filepath.Join(n.daemon.Dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	with := func(src *corev1.VolumeSource) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Volumes = []*corev1.Volume{volume("v", src)}
			p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
		}
	}
	for _, c := range []struct {
		name            string
		change          func(*corev1.Pod)
		reason, message string
		// event begins with its reason.
		event string
	}{
		{
			"paths-that-exclude-each-other", with(&corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: local("settings"), Items: []*corev1.KeyToPath{{Key: "a", Path: "x"}, {Key: "b", Path: "x/y"}},
			}}), "CreateContainerConfigError", `volume v: invalid container config: invalid path: "x" can't be both a file and the directory of "x/y"`,
			"FailedMount: MountVolume.SetUp failed for volume v: ",
		},
		{
			"no-config-map", with(&corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("absent")}}),
			"CreateContainerConfigError", `configmap "absent" not found`, "FailedMount: MountVolume.SetUp failed for volume v: ",
		},
		{
			"no-directory", with(&corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: file + "/x", Type: proto.String("DirectoryOrCreate")}}),
			"ContainerCreating", "volume v: open " + file + "/x: not a directory", "FailedMount: MountVolume.SetUp failed for volume v: ",
		},
		{
			"not-a-directory", with(&corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: file, Type: proto.String("Directory")}}),
			"CreateContainerConfigError", file + " is a file, want type Directory", "FailedMount: MountVolume.SetUp failed for volume v: ",
		},
		{
			"claim", with(&corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}),
			"ContainerCreating", `persistentVolumeClaim volumes are not mounted yet: claim "data"`, "FailedMount: MountVolume.SetUp failed for volume v: ",
		},
		{
			"sysctl", func(p *corev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []*corev1.Sysctl{{Name: "vm.swappiness", Value: "1"}}}
			}, "SysctlForbidden", `"vm.swappiness"`, `SysctlForbidden: forbidden sysctl: "vm.swappiness"`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := n.under(t)
			uid := n.create(pod(c.name, "sleep 3600", c.change))
			n.untilTold(c.name, uid, c.reason, c.message, c.event)
			n.delete(uid)
			n.untilGone(uid)
		})
	}

	n.wires.setCut(errors.New("no address is left"))
	cut := n.create(pod("cut", "sleep 3600"))
	n.untilTold("cut", cut, "ContainerCreating", "connecting the pod: no address is left", "FailedCreatePodSandBox: connecting the pod: no address is left")
	n.wires.setCut(nil)
	n.until(cut, "it is connected", core.IsPodReady)

	n.daemon.Kill()
	waits := n.create(pod("waits", "sleep 3600"))
	n.untilTold("waits", waits, "ContainerCreating", "containers", "FailedSync: ")
	if p := n.cluster.get(cut); !core.IsPodReady(p) {
		t.Errorf("the running pod without containerd has the status %v", p.Status)
	}
	n.daemon.Run()
	n.until(waits, "it runs", core.IsPodReady)
	for _, uid := range []string{cut, waits} {
		n.delete(uid)
		n.untilGone(uid)
	}
}

// under is the node for another test.
func (n *node) under(t *testing.T) *node {
	one := *n
	one.T = t
	return &one
}

// untilTold waits until a pod's container waits for a reason, and an event was recorded.
func (n *node) untilTold(name, uid, reason, message, event string) {
	n.Helper()
	n.until(uid, name+" tells what it waits for", func(p *corev1.Pod) bool {
		w := status(p).GetState().GetWaiting()
		return w.GetReason() == reason && strings.Contains(w.GetMessage(), message)
	})
	containerdtest.Eventually(n.T, 60*time.Second, name+" has an event", func() bool {
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		return strings.Contains(strings.Join(n.cluster.events, "\n"), name+" Warning "+event)
	})
}
