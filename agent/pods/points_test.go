package pods_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestMountsBelowReadOnlyVolumes mounts volumes below those that show objects, and below a
// directory that is read-only. They stay where they are when the objects change.
func TestMountsBelowReadOnlyVolumes(t *testing.T) {
	n := start(t)
	n.cluster.setConfigMap("settings", map[string]string{"a": "1", "b": "2"})
	n.cluster.setSecret("keys", map[string][]byte{"key": []byte("k1")})
	items := []*corev1.KeyToPath{{Key: "a", Path: "a"}, {Key: "b", Path: "deep/b"}}
	script := "touch /cm/sub/x /cm/deep/er/x /secret/sub/x /empty/sub/x; sleep 3600"
	uid := n.create(pod("nests", script, func(p *corev1.Pod) {
		p.Spec.Volumes = []*corev1.Volume{
			volume("config", &corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("settings"), Items: items}}),
			volume("secret", &corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys"}}),
			volume("empty", &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
			volume("none", &corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "absent", Optional: proto.Bool(true)}}),
			volume("other", &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
			volume("file", &corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: filepath.Join(n.daemon.Dir, "file"), Type: proto.String("FileOrCreate")}}),
		}
		p.Spec.Containers[0].TerminationMessagePath = "/cm/message"
		p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{
			{Name: "other", MountPath: "/cm/deep/er/"}, {Name: "other", MountPath: "/cm/sub"}, {Name: "config", MountPath: "/cm"}, {Name: "none", MountPath: "/cm/none"},
			{Name: "file", MountPath: "/cm/file"}, {Name: "secret", MountPath: "/secret"}, {Name: "other", MountPath: "/secret/sub"},
			{Name: "empty", MountPath: "/empty", ReadOnly: true}, {Name: "other", MountPath: "/empty/sub"},
		}
		second := container("second", "sleep 3600")
		second.VolumeMounts = []*corev1.VolumeMount{{Name: "config", MountPath: "/cm"}}
		p.Spec.Containers = append(p.Spec.Containers, second)
	}))
	p := n.until(uid, "it runs", core.IsPodReady)
	want := func(what, command, text string) {
		n.Helper()
		var got string
		containerdtest.Eventually(t, 60*time.Second, what, func() bool {
			if got = n.run(p, command); got != text {
				t.Logf("%s: %q", what, got)
			}
			return got == text
		})
	}
	look := "ls /cm/sub /cm/deep/er /secret/sub /empty/sub | grep -c x; cat /cm/a /cm/deep/b /secret/key; echo m >/cm/message && echo h >/cm/file && ls /cm/none"
	want("volumes are mounted below others", look, "4\n12k1")
	for _, round := range []string{"3", "4"} {
		n.cluster.setConfigMap("settings", map[string]string{"a": round, "b": round})
		n.cluster.setSecret("keys", map[string][]byte{"key": []byte("k" + round)})
		want("they stay when objects change", look, "4\n"+round+round+"k"+round)
	}

	// The next agent leaves them alone too.
	n.stop()
	n.agent()
	n.cluster.setConfigMap("settings", map[string]string{"a": "5", "b": "5"})
	want("they stay when the agent changes", look, "4\n55k4")
	if got := n.run(p, "touch /cm/new 2>&1 || true"); !strings.Contains(got, "Read-only file system") {
		t.Errorf("the config map's volume can be written to: %q", got)
	}
	n.delete(uid)
	n.untilGone(uid)
}
