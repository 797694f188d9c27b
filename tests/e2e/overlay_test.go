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
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/lab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestSegments runs a service on nodes whose networks are joined by a router that lets no pod's
// packet through, by IPv4 and by IPv6.
func TestSegments(t *testing.T) {
	ownLabs.join(t)
	s := ownShip(t, lab.Options{Masters: 1, Nodes: 2, Segments: 2, DualStack: true})
	s.loadImages(t)
	p := s.inDefault()
	p.apply(t, sample(t, "echo.yaml")+"\n---\n"+strings.Replace(sample(t, "client.yaml"), "spec:\n", "spec:\n  nodeName: node-1\n", 1))
	p.spread(t, 3)
	pods := await(t, s.client, "default", "pods ready", waitLimit, func(pods []*corev1.Pod) bool {
		return allReady(pods, "echo", 3) && allReady(pods, "client", 1)
	})
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
	// On a busy machine a datagram may get lost.
	eventually(t, "a long datagram comes back", waitLimit, func() error {
		if o := p.try(t, "exec", "client", "--", "/client", "udp", strings.TrimPrefix(url, "http://")+":80", long); !strings.Contains(o.stdout, long) {
			return fmt.Errorf("%.300s", o)
		}
		return nil
	})
	for _, node := range []string{"node-1", "node-2"} {
		if out := p.do(t, "lab", "shell", "--name", s.Spec.Name, node, "--", "ip", "route"); !strings.Contains(out, "dev "+podnet.OverlayLink) {
			t.Errorf("no route of %s leads through the overlay:\n%s", node, out)
		}
	}

	p.checkDualStack(t)

	// Agents restart without an effect.
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

// checkDualStack asks for a second address for the service and calls it, by address and by name,
// across the networks.
func (p *person) checkDualStack(t *testing.T) {
	p.apply(t, strings.Replace(sample(t, "echo.yaml"), "  selector:\n    app: echo\n  ports:\n    - name: http\n      port: 80", "  ipFamilyPolicy: RequireDualStack\n  selector:\n    app: echo\n  ports:\n    - name: http\n      port: 80", 1))
	service, err := client.Get[*corev1.Service](t.Context(), p.client, "default", "echo")
	if err != nil {
		t.Fatal(err)
	}
	ips := service.GetSpec().GetClusterIps()
	if len(ips) != 2 || core.FamilyOf(ips[1]) != core.FamilyIPv6 {
		t.Fatalf("the service has the addresses %q", ips)
	}
	pods, _, err := client.List[*corev1.Pod](t.Context(), p.client, client.ListOptions{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	url := "http://[" + ips[1] + "]"
	for _, pod := range labelled(pods, "echo") {
		name, own := pod.GetMetadata().GetName(), pod.GetStatus().GetPodIps()
		if len(own) != 2 || core.FamilyOf(own[1].GetIp()) != core.FamilyIPv6 {
			t.Fatalf("%s has the addresses %v", name, own)
		}
		eventually(t, name+" answers for the service by IPv6", waitLimit, func() error { return p.reaches(t, url+"/name", name) })
		if err := p.reaches(t, "http://["+own[1].GetIp()+"]:8080/name", name); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "the service's name has both addresses", waitLimit, func() error {
		out := p.do(t, "exec", "client", "--", "/client", "dns", "echo")
		if !strings.Contains(out, ips[0]) || !strings.Contains(out, ips[1]) {
			return fmt.Errorf("echo is %s", out)
		}
		return nil
	})
	p.says(t, []string{"echo.default.svc.cluster.local"}, "exec", "client", "--", "/client", "dns", ips[1])
	p.says(t, []string{"six"}, "exec", "client", "--", "/client", "udp", "["+ips[1]+"]:80", "six")
	for _, node := range []string{"node-1", "node-2"} {
		if out := p.do(t, "lab", "shell", "--name", p.Spec.Name, node, "--", "ip", "-6", "route"); !strings.Contains(out, "dev "+podnet.OverlayLink) {
			t.Errorf("no IPv6 route of %s leads through the overlay:\n%s", node, out)
		}
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
