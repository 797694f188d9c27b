package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestStaticPods runs a node with a pod of its own: it is shown by a mirror, survives agents, and
// comes again when the mirror is deleted.
func TestStaticPods(t *testing.T) {
	var dir string
	n := start(t, func(n *node) {
		dir = filepath.Join(n.daemon.Dir, "static")
		config, err := os.ReadFile(n.config)
		if err == nil {
			err = os.WriteFile(n.config, fmt.Appendf(config, "staticPods: %s\n", dir), 0o600)
		}
		if err == nil {
			err = os.Mkdir(dir, 0o755)
		}
		if err != nil {
			n.Fatal(err)
		}
	})
	write := func(text string) {
		t.Helper()
		path := filepath.Join(dir, "own.yaml")
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	manifest := func(color string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata:\n  name: own\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: busybox:test\n" +
			"    command: [sh, -c, 'echo " + color + "; exec sleep 3600']\n"
	}
	n.until("the node registers and has a pod CIDR", func() bool {
		node, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		if err != nil {
			return false
		}
		node = client.Clone(node)
		node.Spec.PodCidr, node.Metadata.ResourceVersion = "10.244.7.0/24", ""
		_, err = client.Update(t.Context(), n.client, node)
		return err == nil
	})
	n.until("the agent serves", func() bool {
		node, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		return err == nil && core.NodeCondition(node, core.NodeReady).GetStatus() == "True"
	})
	n.importImage()
	write(manifest("blue"))
	const name = "own-" + nodeName
	mirror := n.podUntil(name, "the static pod is shown and runs", core.IsPodReady)
	if !core.IsMirrorPod(mirror) {
		t.Errorf("the mirror is %v", mirror)
	}
	id := mirror.Status.ContainerStatuses[0].ContainerId

	// The mirror only shows; and the next agent finds both as they are.
	if _, err := client.Delete[*corev1.Pod](t.Context(), n.client, "default", name); err != nil {
		t.Fatal(err)
	}
	again := n.podUntil(name, "the mirror comes again", func(p *corev1.Pod) bool {
		return p.GetMetadata().GetUid() != mirror.GetMetadata().GetUid() && core.IsPodReady(p)
	})
	n.kill()
	n.run()
	write(strings.Replace(manifest("red"), "image:", "imgae:", 1))
	n.until("the node tells of the typo", func() bool {
		node, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		c := core.NodeCondition(node, "StaticPodsValid")
		return err == nil && c.GetStatus() == "False" && strings.Contains(c.GetMessage(), "own.yaml:9: spec.containers[0].imgae: unknown field, did you mean image?")
	})
	now := n.podUntil(name, "the pod goes on", core.IsPodReady)
	if now.Status.ContainerStatuses[0].ContainerId != id || now.GetMetadata().GetUid() != again.GetMetadata().GetUid() {
		t.Errorf("the pod was %v, is %v", mirror, now)
	}
	write(manifest("green"))
	n.podUntil(name, "the changed pod runs", func(p *corev1.Pod) bool {
		return core.IsPodReady(p) && p.Status.ContainerStatuses[0].ContainerId != id
	})
	n.until("the node is content", func() bool {
		node, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		return err == nil && core.NodeCondition(node, "StaticPodsValid").GetStatus() == "True"
	})
	if err := os.Remove(filepath.Join(dir, "own.yaml")); err != nil {
		t.Fatal(err)
	}
	n.until("the mirror is gone", func() bool {
		_, err := client.Get[*corev1.Pod](t.Context(), n.client, "default", name)
		return err != nil
	})
}
