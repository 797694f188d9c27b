package pods_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent/runtime"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

func class(name, handler string) *nodev1.RuntimeClass {
	return &nodev1.RuntimeClass{Metadata: &metav1.ObjectMeta{Name: name}, Handler: handler}
}

// TestRuntimeHandler runs pods of classes with the default handler and with a second one: a program
// that notes how it is called and runs runc.
func TestRuntimeHandler(t *testing.T) {
	containerdtest.Need(t)
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	calls, binary := filepath.Join(dir, "calls"), filepath.Join(dir, "noting-runc")
	script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >> %s\nexec %s \"$@\"\n", calls, runc)
	if err := os.WriteFile(binary, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	n := start(t, func(n *node) {
		n.handlers = map[string]runtime.Handler{"noting": {Shim: "io.containerd.runc.v2", Binary: binary}}
		n.cluster.classes = map[string]*nodev1.RuntimeClass{
			"usual": class("usual", "runc"), "noted": class("noted", "noting"), "unknown": class("unknown", "none"),
		}
	})
	of := func(class string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.RuntimeClassName = proto.String(class) }
	}
	noted := func(uid string) bool {
		b, err := os.ReadFile(calls)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Contains(string(b), "create") && strings.Contains(string(b), runtime.ID(uid, "main", 0))
	}
	plain, usual := n.create(pod("plain", "sleep 3600")), n.create(pod("usual", "sleep 3600", of("usual")))
	for _, uid := range []string{plain, usual} {
		n.until(uid, "it runs", core.IsPodReady)
		if noted(uid) {
			t.Error("a pod of the default handler was run by the other one")
		}
	}
	uid := n.create(pod("noted", "sleep 3600", of("noted")))
	n.until(uid, "it runs", core.IsPodReady)
	if !noted(uid) {
		t.Error("the class's handler did not run the pod")
	}

	// The class goes; the pod goes on, and the next agent starts its container again by the handler.
	n.cluster.mu.Lock()
	delete(n.cluster.classes, "noted")
	n.cluster.mu.Unlock()
	n.stop()
	n.agent()
	if err := n.kill(uid, "main"); err != nil {
		t.Fatal(err)
	}
	n.until(uid, "it runs again", func(p *corev1.Pod) bool { return core.IsPodReady(p) && status(p).GetRestartCount() == 1 })
	if b, err := os.ReadFile(calls); err != nil || !strings.Contains(string(b), runtime.ID(uid, "main", 1)) {
		t.Errorf("another handler started the container again: %v", err)
	}
	for _, uid := range []string{plain, usual, uid} {
		n.delete(uid)
		n.untilGone(uid)
	}

	unknown := n.create(pod("unknown", "true", of("unknown")))
	n.untilTold("unknown", unknown, "ContainerCreating", `no runtime for "none" is configured`,
		`FailedCreatePodSandBox: failed to create pod sandbox: failed to get sandbox runtime: no runtime for "none" is configured`)
	gone := n.create(pod("classless", "true", of("gone")))
	n.untilTold("classless", gone, "ContainerCreating", `runtimeclasses.node.k8s.io "gone" not found`,
		`FailedCreatePodSandBox: failed to create pod sandbox: `)
	users := n.create(pod("users", "true", func(p *corev1.Pod) { p.Spec.HostUsers = proto.Bool(false) }))
	n.untilTold("users", users, "ContainerCreating", "runtime does not support user namespaces",
		"FailedCreatePodSandBox: failed to create pod sandbox: can't set `spec.hostUsers: false`, runtime does not support user namespaces")
}
