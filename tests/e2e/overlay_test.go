package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/lab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestSegments runs a service on nodes whose networks are joined by a router that lets no pod's packet through.
func TestSegments(t *testing.T) {
	s := ownShip(t, lab.Options{Masters: 1, Nodes: 2, Segments: 2})
	s.loadImages(t)
	p := s.inDefault()
	p.apply(t, sample(t, "echo.yaml")+"\n---\n"+strings.Replace(sample(t, "client.yaml"), "spec:\n", "spec:\n  nodeName: node-1\n", 1))
	pods := await(t, s.client, "default", "pods ready", waitLimit, func(pods []*corev1.Pod) bool {
		return allReady(pods, "echo", 3) && allReady(pods, "client", 1)
	})
	if nodes := nodesOf(labelled(pods, "echo")); len(nodes) != 2 {
		t.Fatalf("the pods are on %v", nodes)
	}
	service, err := client.Get[*corev1.Service](t.Context(), s.client, "default", "echo")
	if err != nil {
		t.Fatal(err)
	}
	// By address: names have to wait for an agent that was killed.
	url := "http://" + service.GetSpec().GetClusterIp()
	for _, pod := range labelled(pods, "echo") {
		name := pod.GetMetadata().GetName()
		eventually(t, name+" answers for the service", waitLimit, func() error { return p.reaches(t, url+"/name", name) })
	}

	// The other side sees the pod's own address.
	own := labelled(pods, "client")[0].GetStatus().GetPodIp()
	for _, pod := range labelled(pods, "echo") {
		var seen struct{ Client string }
		out := p.do(t, "exec", "client", "--", "/client", "get", fmt.Sprintf("http://%s:8080/", pod.GetStatus().GetPodIp()))
		if err := json.Unmarshal([]byte(out), &seen); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if from, err := netip.ParseAddrPort(seen.Client); err != nil || from.Addr().String() != own {
			t.Errorf("a pod on %s saw %q, want %s", pod.GetSpec().GetNodeName(), seen.Client, own)
		}
	}
	// A datagram that takes several packets.
	long := strings.Repeat("x", 4000)
	if out := p.do(t, "exec", "client", "--", "/client", "udp", strings.TrimPrefix(url, "http://")+":80", long); !strings.Contains(out, long) {
		t.Errorf("a long datagram came back as %.100q", out)
	}
	for _, node := range []string{"node-1", "node-2"} {
		if out := p.do(t, "lab", "shell", "--name", s.Spec.Name, node, "--", "ip", "route"); !strings.Contains(out, "dev "+podnet.OverlayLink) {
			t.Errorf("no route of %s leads through the overlay:\n%s", node, out)
		}
	}

	// Agents come and go: nobody notices.
	p.apply(t, fmt.Sprintf(loader, url+"/name"))
	await(t, s.client, "default", "the load is on", waitLimit, func(pods []*corev1.Pod) bool {
		return slices.ContainsFunc(labelled(pods, "loader"), func(p *corev1.Pod) bool { return p.GetStatus().GetPhase() == "Running" })
	})
	for range 2 {
		for _, node := range []string{"node-1", "node-2"} {
			p.killDaemon(t, node+"/agent")
		}
	}
	await(t, s.client, "default", "the load is over", waitLimit, func(pods []*corev1.Pod) bool {
		return slices.ContainsFunc(labelled(pods, "loader"), over)
	})
	if out := p.do(t, "logs", "loader"); !strings.Contains(out, ", 0 failed") {
		t.Errorf("while agents were killed: %s", out)
	} else {
		t.Logf("while agents were killed: %s", out)
	}
}

func over(p *corev1.Pod) bool {
	return p.GetStatus().GetPhase() == "Succeeded" || p.GetStatus().GetPhase() == "Failed"
}

// loader calls a URL for a while and prints what came of it.
const loader = `
apiVersion: v1
kind: Pod
metadata: {name: loader, labels: {app: loader}}
spec:
  nodeName: node-1
  restartPolicy: Never
  containers:
  - name: loader
    image: xebec/client:1
    imagePullPolicy: IfNotPresent
    args: [load, %q, --for, 12s, --workers, "4"]
`
