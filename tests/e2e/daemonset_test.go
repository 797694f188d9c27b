package e2e

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const daemonSet = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: agent
          image: xebec/echo:1
          readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`

// TestDaemonSet runs an agent on every node, updates it and rolls the update back. The node
// selector of a patch takes it away from all nodes.
func TestDaemonSet(t *testing.T) {
	s := sharedShip(t)
	s.loadImages(t)
	p := s.person(t)
	p.do(t, "image", "load", filepath.Join(s.products.images, "echo-2.tar"))
	p.apply(t, daemonSet)
	onBoth := func(what, image string) {
		t.Helper()
		await(t, p.client, p.namespace, what, waitLimit, func(pods []*corev1.Pod) bool {
			return allReady(pods, "agent", 2) && slices.Equal(nodesOf(pods), []string{"node-1", "node-2"}) &&
				!slices.ContainsFunc(pods, func(pod *corev1.Pod) bool { return pod.GetSpec().GetContainers()[0].GetImage() != image })
		})
	}
	onBoth("an agent on each node", "xebec/echo:1")
	p.do(t, "set", "image", "daemonset/agent", "agent=xebec/echo:2")
	if out := p.do(t, "rollout", "status", "daemonset/agent", "--timeout=60s"); !strings.Contains(out, `daemon set "agent" successfully rolled out`) {
		t.Errorf("rollout status: %s", out)
	}
	onBoth("the new image on each node", "xebec/echo:2")
	p.do(t, "rollout", "undo", "daemonset/agent")
	p.do(t, "rollout", "status", "daemonset/agent", "--timeout=60s")
	onBoth("the first image on each node", "xebec/echo:1")
	if out := p.do(t, "rollout", "history", "daemonset/agent"); !strings.Contains(out, "\n3 ") {
		t.Errorf("rollout history: %s", out)
	}
	p.do(t, "patch", "daemonset/agent", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"nonesuch":"yes"}}}}}`)
	await(t, p.client, p.namespace, "no agent", waitLimit, func(pods []*corev1.Pod) bool { return len(pods) == 0 })
}
