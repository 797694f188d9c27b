package e2e

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// shellImage has a shell and the usual small tools.
const shellImage = "xebec/shell:1"

// loadShell loads shellImage onto all nodes.
func (s *ship) loadShell(t *testing.T) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "shell.tar")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, containerdtest.Archive(t, shellImage, containerdtest.Busybox(t))); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s.inDefault().do(t, "image", "load", archive)
}

// podIs waits until a pod meets the condition, and returns it.
func (p *person) podIs(t *testing.T, name, what string, cond func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	await(t, p.client, p.namespace, "pod "+name+": "+what, waitLimit, func(pods []*corev1.Pod) bool {
		at := slices.IndexFunc(pods, func(pod *corev1.Pod) bool { return pod.GetMetadata().GetName() == name })
		if at < 0 || !cond(pods[at]) {
			return false
		}
		found = pods[at]
		return true
	})
	return found
}
