package pods_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestUmask starts an agent that makes files which no other user may read, and expects of what it
// gives to containers that they may.
func TestUmask(t *testing.T) {
	n := start(t)
	defer unix.Umask(unix.Umask(0o077))
	n.cluster.setConfigMap("settings", map[string]string{"color": "blue"})
	uid := n.create(pod("masked", "exec sleep 3600", func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: proto.Int64(1234)}
		p.Spec.Volumes = []*corev1.Volume{
			{Name: "scratch", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "settings", VolumeSource: &corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: &corev1.LocalObjectReference{Name: "settings"}}}},
		}
		p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}, {Name: "settings", MountPath: "/settings"}}
	}))
	n.until(uid, "it runs", core.IsPodReady)
	out := n.in("masked", "main", "cat /etc/hosts /etc/resolv.conf /etc/hostname /settings/color 2>&1; echo x > /scratch/x && cat /scratch/x; echo bye > /dev/termination-log; touch /dev/shm/y && echo shared")
	for _, want := range []string{"localhost", "nameserver", "masked", "blue", "x", "shared"} {
		if !strings.Contains(out, want) {
			t.Errorf("user 1234 sees %q, want %q in it", out, want)
		}
	}
	for _, name := range []string{"hosts", "resolv.conf", "hostname"} {
		st, err := os.Stat(filepath.Join(n.daemon.Dir, "pods", uid, "etc", name))
		if err != nil || st.Mode().Perm() != 0o644 {
			t.Errorf("/etc/%s: %v, %v", name, st.Mode(), err)
		}
	}
}
