package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/osthread"
	"github.com/xebec-project/xebec/lab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// bystander is a machine on the lab's wire that is no node: no program of ours is about its
// sockets.
const bystander = "master-1"

// onHost runs f in the network namespace of one of the lab's machines.
func (s *ship) onHost(name string, f func() error) error {
	return osthread.Do(func() error {
		for _, h := range s.Spec.Hosts() {
			if h.Name != name {
				continue
			}
			ns, err := os.Open(filepath.Join("/run/netns", h.Namespace))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return os.NewSyscallError("setns", err)
			}
			return f()
		}
		return fmt.Errorf("no host %s", name)
	})
}

// wireAddr is a machine's address on the wire.
func (s *ship) wireAddr(name string) netip.Addr {
	for _, h := range s.Spec.Hosts() {
		if h.Name == name {
			return h.Addr
		}
	}
	return netip.Addr{}
}

// fetch gets a URL from the bystander, on a connection of its own, and returns the status and the
// body.
func (s *ship) fetch(url string) (status int, body string, err error) {
	// Connections are made where the namespace is, and not on whatever thread the transport chooses.
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = s.onHost(bystander, func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: 3 * time.Second}).Get(url)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// answering returns the node whose hardware address the bystander knows for an address.
func (s *ship) answering(addr netip.Addr) (string, error) {
	var mac string
	err := s.onHost(bystander, func() error {
		neighbours, err := netlink.NeighList(0, netlink.FAMILY_ALL)
		for _, n := range neighbours {
			if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == addr && n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) == 0 {
				mac = n.HardwareAddr.String()
			}
		}
		return err
	})
	if err != nil {
		return "", err
	}
	for _, h := range s.Spec.Hosts() {
		found := false
		_ = s.onHost(h.Name, func() error { // a machine that was killed has none
			links, err := netlink.LinkList()
			for _, l := range links {
				found = found || l.Attrs().HardwareAddr.String() == mac
			}
			return err
		})
		if found {
			return h.Name, nil
		}
	}
	return "", fmt.Errorf("no host has the hardware address %q that %s knows for %v", mac, bystander, addr)
}

// echoOn runs one of the sample's pods on this node and no other.
func (p *person) echoOn(t *testing.T, node string) {
	t.Helper()
	p.apply(t, strings.ReplaceAll(`apiVersion: v1
kind: Pod
metadata: {name: echo-NODE, labels: {app: echo}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 1
  containers:
  - name: echo
    image: xebec/echo:1
    imagePullPolicy: IfNotPresent
    ports: [{name: http, containerPort: 8080}, {name: udp, containerPort: 8080, protocol: UDP}]
    readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}
`, "NODE", node))
}

// balancer is a service of type LoadBalancer in front of the sample's pods.
func (p *person) balancer(t *testing.T, name, spec string) *corev1.Service {
	t.Helper()
	p.apply(t, `apiVersion: v1
kind: Service
metadata: {name: `+name+`}
spec:
  type: LoadBalancer
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: http}]
`+spec)
	services := await(t, p.client, p.namespace, "an address for "+name, waitLimit, func(services []*corev1.Service) bool {
		for _, s := range services {
			if s.GetMetadata().GetName() == name && len(s.GetStatus().GetLoadBalancer().GetIngress()) == 1 {
				return true
			}
		}
		return false
	})
	for _, s := range services {
		if s.GetMetadata().GetName() == name {
			return s
		}
	}
	return nil
}

func ingressOf(t *testing.T, s *corev1.Service) netip.Addr {
	t.Helper()
	addr, err := netip.ParseAddr(s.GetStatus().GetLoadBalancer().GetIngress()[0].GetIp())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// A machine on the wire calls services by addresses that no machine has. One node answers for each;
// when that node dies, another one does.
func TestLoadBalancers(t *testing.T) {
	ownLabs.join(t)
	s := ownShip(t, lab.Options{Masters: 1, Nodes: 2})
	s.loadImages(t)
	p := s.inDefault()
	_, service, _ := strings.Cut(sample(t, "echo.yaml"), "\n---\n")
	p.apply(t, service)
	p.echoOn(t, "node-1")
	p.echoOn(t, "node-2")
	await(t, s.client, "default", "pods ready", waitLimit, func(pods []*corev1.Pod) bool { return allReady(pods, "echo", 2) })

	svc := p.balancer(t, "balanced", "  allocateLoadBalancerNodePorts: false\n")
	addr := ingressOf(t, svc)
	if !s.Spec.LoadBalancerPool().Contains(addr) {
		t.Errorf("%v is not in the lab's pool %v", addr, s.Spec.LoadBalancerPool())
	}
	if port := svc.GetSpec().GetPorts()[0].GetNodePort(); port != 0 {
		t.Errorf("node port %d, and none was wanted", port)
	}
	answers := func(path string) error {
		status, body, err := s.fetch(fmt.Sprintf("http://%v/%s", addr, path))
		if err == nil && (status != http.StatusOK || !strings.Contains(body, "echo-")) {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	}
	eventually(t, "the address answers", waitLimit, func() error { return answers("name") })
	node, err := s.answering(addr)
	if err != nil || !strings.HasPrefix(node, "node-") {
		t.Fatalf("%q answers for %v: %v", node, addr, err)
	}

	t.Run("its trace", func(t *testing.T) { p.traced(t, addr, node) })
	t.Run("clients in ranges only", func(t *testing.T) {
		p.do(t, "patch", "service", "balanced", "-p", `{"spec":{"loadBalancerSourceRanges":["192.0.2.0/24"]}}`)
		eventually(t, "a client in no range is kept out", waitLimit, func() error {
			if err := answers("name"); err == nil {
				return fmt.Errorf("it is answered")
			}
			return nil
		})
		p.do(t, "patch", "service", "balanced", "-p", `{"spec":{"loadBalancerSourceRanges":["192.0.2.0/24","`+s.Spec.Network().String()+`"]}}`)
		eventually(t, "a client in a range is let in", waitLimit, func() error { return answers("name") })
	})
	t.Run("traffic that stays on its node", func(t *testing.T) { p.localBalancer(t) })

	// The node goes without a word.
	if err := p.Kill(t.Context(), node, lab.KillOptions{}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "another node answers", waitLimit, func() error {
		if err := answers("name"); err != nil {
			return err
		}
		if now, err := s.answering(addr); err != nil || now == node {
			return cmp.Or(err, fmt.Errorf("%s, which was killed, answers", now))
		}
		return nil
	})
	t.Logf("%v was answered for again %.1f s after %s was killed", addr, time.Since(began).Seconds(), node)
	if err := p.Start(t.Context(), node); err != nil {
		t.Fatal(err)
	}

	p.do(t, "delete", "service", "balanced")
	if err := awaitGone[*networkingv1.IPAddress](t.Context(), s.client, "", addr.String()); err != nil {
		t.Errorf("the allocation of a service that was deleted: %v", err)
	}
	eventually(t, "the address of a service that was deleted is silent", waitLimit, func() error {
		if err := answers("name"); err == nil {
			return fmt.Errorf("it answers")
		}
		return nil
	})
}

// localBalancer keeps a service's traffic on the node that it reaches, which has to be one with a
// pod, and asks the nodes for their health as load balancers do.
func (p *person) localBalancer(t *testing.T) {
	svc := p.balancer(t, "local", "  externalTrafficPolicy: Local\n")
	addr := ingressOf(t, svc)
	port := svc.GetSpec().GetHealthCheckNodePort()
	eventually(t, "the pod sees the client's address", waitLimit, func() error {
		_, body, err := p.fetch(fmt.Sprintf("http://%v/", addr))
		if err == nil && !strings.Contains(body, `"`+p.wireAddr(bystander).String()+`:`) {
			err = fmt.Errorf("the pod, called from %v, saw %s", p.wireAddr(bystander), body)
		}
		return err
	})
	health := func(node string, status, endpoints int) error {
		got, body, err := p.fetch(fmt.Sprintf("http://%v:%d/healthz", p.wireAddr(node), port))
		if err != nil {
			return err
		}
		var answer struct{ LocalEndpoints int }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || got != status || answer.LocalEndpoints != endpoints {
			return fmt.Errorf("%s answers %d %s, want %d and %d endpoints", node, got, body, status, endpoints)
		}
		return nil
	}
	eventually(t, "node-1 is healthy", waitLimit, func() error { return health("node-1", 200, 1) })
	eventually(t, "node-2 is healthy", waitLimit, func() error { return health("node-2", 200, 1) })

	// With one pod left the address moves to its node, and the other one says that it has none.
	without, err := p.answering(addr)
	if err != nil {
		t.Fatal(err)
	}
	with := map[string]string{"node-1": "node-2", "node-2": "node-1"}[without]
	p.do(t, "delete", "pod", "echo-"+without)
	eventually(t, "the node without a pod says so", waitLimit, func() error { return health(without, 503, 0) })
	eventually(t, "the node with the pod answers", waitLimit, func() error {
		if _, _, err := p.fetch(fmt.Sprintf("http://%v/name", addr)); err != nil {
			return err
		}
		if node, err := p.answering(addr); err != nil || node != with {
			return fmt.Errorf("%s answers, the pod is on %s: %v", node, with, err)
		}
		return nil
	})
	p.echoOn(t, without)
	await(t, p.client, p.namespace, "pods ready", waitLimit, func(pods []*corev1.Pod) bool { return allReady(pods, "echo", 2) })
	if _, err := client.Delete[*corev1.Service](t.Context(), p.client, p.namespace, "local"); err != nil {
		t.Fatal(err)
	}
}

// traced asks what becomes of connections, and what connections there are.
func (p *person) traced(t *testing.T, addr netip.Addr, node string) {
	p.apply(t, sample(t, "client.yaml"))
	await(t, p.client, p.namespace, "the client is ready", waitLimit, func(pods []*corev1.Pod) bool { return allReady(pods, "client", 1) })
	for args, want := range map[string][]string{
		fmt.Sprintf("%v %v:80", p.wireAddr(bystander), addr): {"On node " + node, "this node announces it", "default/balanced:http has", "with 2 endpoints", "50.0%", "Forwarded"},
		fmt.Sprintf("%v %v:81", p.wireAddr(bystander), addr): {"no service has port 81", "Dropped"},
		"client echo:http":                                          {"default/echo:http has", "with 2 endpoints", "a pod of this node", "another machine, by", "Forwarded"},
		fmt.Sprintf("%s balanced", node):                            {"node " + node + " to service default/balanced", "Forwarded"},
		"client 203.0.113.1:80":                                     {"no service has 203.0.113.1:80/TCP", "outside the cluster"},
		"client " + p.Spec.Network().Addr().Next().String() + ":80": {"outside the cluster", "the source becomes the node's address", "Forwarded"},
	} {
		// Each end's node learns by itself of the endpoints.
		p.says(t, want, append([]string{"net", "trace"}, strings.Fields(args)...)...)
	}
	eventually(t, "the bystander's calls are listed", waitLimit, func() error {
		if _, _, err := p.fetch(fmt.Sprintf("http://%v/name", addr)); err != nil {
			return err
		}
		out := p.do(t, "net", "connections", "--node", node, "--service", "balanced")
		for _, words := range []string{p.wireAddr(bystander).String(), addr.String() + ":80", "default/balanced:http", "closed"} {
			if !strings.Contains(out, words) {
				return fmt.Errorf("%q is not in\n%s", words, out)
			}
		}
		return nil
	})
}
