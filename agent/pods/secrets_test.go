package pods_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// onDisk returns the files of the pods' state that hold a text and do not lie in memory of their
// own.
func (n *node) onDisk(text string) []string {
	n.Helper()
	top := filepath.Join(n.daemon.Dir, "pods")
	var root unix.Stat_t
	if err := unix.Stat(top, &root); err != nil {
		n.Fatal(err)
	}
	var found []string
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		if st.Dev != root.Dev && e.IsDir() {
			return fs.SkipDir
		}
		if !e.Type().IsRegular() || st.Dev != root.Dev {
			return nil
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte(text)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		n.Fatal(err)
	}
	return found
}

// TestSecretsStayInMemory looks for a secret and a token on the disk, also for those that an agent
// before left there, and runs the pod from what is in memory while no master is there, and after a
// restart of the machine once one is.
func TestSecretsStayInMemory(t *testing.T) {
	const secret = "of-all-secrets-the-most-secret"
	n := start(t)
	n.cluster.setSecret("keys", map[string][]byte{"key": []byte(secret)})
	uid := n.create(pod("knows", "echo $KEY; sleep 3600", func(p *corev1.Pod) {
		c := p.Spec.Containers[0]
		c.Env = []*corev1.EnvVar{{Name: "KEY", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("keys"), Key: "key"}}}}
		p.Spec.Volumes = []*corev1.Volume{
			volume("secret", &corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys"}}),
		}
		c.VolumeMounts = []*corev1.VolumeMount{{Name: "secret", MountPath: "/secret"}}
	}))
	p := n.until(uid, "it runs", func(p *corev1.Pod) bool { return core.IsPodReady(p) && strings.Contains(n.log(p, false), secret) })
	bears := n.create(pod("bears", "sleep 3600", func(p *corev1.Pod) {
		p.Spec.Volumes = []*corev1.Volume{volume("token", &corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []*corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
		}}})}
		p.Spec.Containers[0].VolumeMounts = []*corev1.VolumeMount{{Name: "token", MountPath: "/token"}}
	}))
	if b := n.until(bears, "it runs", core.IsPodReady); !strings.Contains(n.run(b, "cat /token/token"), "bears for ") {
		t.Error("it has no token")
	}
	// What the container says itself is not the agent's to keep secret.
	if err := os.Truncate(filepath.Join(n.daemon.Dir, "pods", uid, "logs", "main", "0.log"), 0); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{secret, "bears for "} {
		if found := n.onDisk(text); len(found) > 0 {
			t.Errorf("%q is on the disk: %v", text, found)
		}
	}

	n.delete(bears)
	n.untilGone(bears)

	// An agent of 0.1 kept copies on the disk. From them the next one goes on without a master.
	n.stop()
	memory := filepath.Join(n.daemon.Dir, "pods", ".secrets")
	old := filepath.Join(n.daemon.Dir, "pods", uid, "objects", "secret-keys.pb")
	content, err := proto.Marshal(&corev1.Secret{Metadata: &metav1.ObjectMeta{Name: "keys", Namespace: "default"}, Data: map[string][]byte{"key": []byte(secret)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(memory, uid)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(old), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(old, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(memory, "of-a-pod-that-is-gone"), 0o700); err != nil {
		t.Fatal(err)
	}
	n.agent()
	if found := n.onDisk(secret); len(found) > 0 {
		t.Errorf("what an agent left is still on the disk: %v", found)
	}
	if kept, err := os.ReadFile(filepath.Join(memory, uid, "secret-keys.pb")); err != nil || !bytes.Equal(kept, content) {
		t.Errorf("what an agent left is not in memory: %v", err)
	}
	if _, err := os.Stat(filepath.Join(memory, "of-a-pod-that-is-gone")); !os.IsNotExist(err) {
		t.Errorf("what was of a pod that is gone stays: %v", err)
	}

	// It runs when the agent knows: one that is stopped while it starts a container takes that back.
	runs := func(attempt int) bool {
		list, err := n.rt.List(t.Context(), uid)
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		started := strings.Count(strings.Join(n.cluster.events, "\n"), "knows Normal Started: ") > attempt
		return started && err == nil && len(list) == 1 && list[0].Attempt == attempt && list[0].State == runtime.Running
	}
	n.cluster.setAway(true)
	n.stop()
	n.agent()
	if err := n.rt.Kill(t.Context(), uid+"-main-0", 9); err != nil {
		t.Fatal(err)
	}
	containerdtest.Eventually(t, 60*time.Second, "it comes again without a master", func() bool { return runs(1) })

	// After a restart of the machine nothing is in memory any more.
	n.stop()
	if err := unix.Unmount(memory, 0); err != nil {
		t.Fatal(err)
	}
	n.agent()
	if err := n.rt.Kill(t.Context(), uid+"-main-1", 9); err != nil {
		t.Fatal(err)
	}
	containerdtest.Eventually(t, 60*time.Second, "it says that it waits for a master", func() bool {
		n.cluster.mu.Lock()
		defer n.cluster.mu.Unlock()
		return strings.Contains(strings.Join(n.cluster.events, "\n"), "reading secret keys: ")
	})
	n.cluster.setAway(false)
	containerdtest.Eventually(t, 60*time.Second, "it comes again with a master", func() bool { return runs(2) })
	p = n.until(uid, "it is ready", core.IsPodReady)
	containerdtest.Eventually(t, 60*time.Second, "it has the secret", func() bool { return strings.Contains(n.log(p, false), secret) })
	n.delete(uid)
	n.untilGone(uid)
	if left, err := os.ReadDir(memory); err != nil || len(left) > 0 {
		t.Errorf("secrets of pods that are gone stay: %v, %v", left, err)
	}
}
