package e2e

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/lab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// A machine on the wire calls a service of both families by an address of each and by the nodes'
// ports. When the node that answers for the IPv6 address dies, another one does.
func TestDualStackBalancer(t *testing.T) {
	ownLabs.join(t)
	s := ownShip(t, lab.Options{Masters: 1, Nodes: 2, DualStack: true})
	s.loadImages(t)
	p := s.inDefault()
	p.echoOn(t, "node-1")
	p.echoOn(t, "node-2")
	p.apply(t, bothFamilies)
	await(t, s.client, "default", "pods ready", waitLimit, func(pods []*corev1.Pod) bool { return allReady(pods, "echo", 2) })
	both := p.balanced(t, "both", 2)
	four, six := ingressAt(t, both, 0), ingressAt(t, both, 1)
	if !s.Spec.LoadBalancerPool().Contains(four) || !s.Spec.LoadBalancerPool6().Contains(six) {
		t.Errorf("%v and %v are not in the lab's pools", four, six)
	}
	answers := func(addr netip.Addr, port uint16) error {
		status, body, err := s.fetch(fmt.Sprintf("http://%v/name", netip.AddrPortFrom(addr, port)))
		if err == nil && (status != http.StatusOK || !strings.Contains(body, "echo-")) {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	}
	for _, addr := range []netip.Addr{four, six} {
		eventually(t, fmt.Sprintf("%v answers", addr), waitLimit, func() error { return answers(addr, 80) })
	}
	for _, h := range s.Spec.Hosts()[1:] {
		port := uint16(both.GetSpec().GetPorts()[0].GetNodePort())
		eventually(t, h.Name+"'s port answers by IPv6", waitLimit, func() error { return answers(h.Addr6, port) })
	}
	client := s.Spec.Hosts()[0].Addr6
	near := ingressAt(t, p.balanced(t, "near", 1), 0)
	eventually(t, "the pod sees the client's address", waitLimit, func() error {
		_, body, err := s.fetch(fmt.Sprintf("http://%v/", netip.AddrPortFrom(near, 80)))
		if err == nil && !strings.Contains(body, fmt.Sprintf(`"[%v]:`, client)) {
			err = fmt.Errorf("the pod, called from %v, saw %s", client, body)
		}
		return err
	})

	p.expectDropped(t, client, netip.AddrPortFrom(six, 81))
	p.says(t, []string{"this node announces it", "default/both:http has", "with 2 endpoints", "50.0%", "Forwarded"},
		"net", "trace", client.String(), fmt.Sprintf("[%v]:80", six))

	// The node that answers goes without a word.
	var node string
	eventually(t, "a node answers for the address", waitLimit, func() (err error) {
		if err = answers(six, 80); err == nil {
			node, err = s.answering(six)
		}
		return err
	})
	if err := p.Kill(t.Context(), node, lab.KillOptions{}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "another node answers", waitLimit, func() error {
		if err := cmp.Or(answers(six, 80), answers(four, 80)); err != nil {
			return err
		}
		if now, err := s.answering(six); err != nil || now == node {
			return cmp.Or(err, fmt.Errorf("%s, which was killed, answers", now))
		}
		return nil
	})
	t.Logf("%v was answered for again %.1f s after %s was killed", six, time.Since(began).Seconds(), node)
}

// bothFamilies are load balancers of both families, and of IPv6 alone for pods that are to see
// their clients.
const bothFamilies = `apiVersion: v1
kind: Service
metadata: {name: both}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  ipFamilies: [IPv6]
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: http}]
`

// balanced waits until a service has so many addresses.
func (p *person) balanced(t *testing.T, name string, addresses int) *corev1.Service {
	t.Helper()
	var found *corev1.Service
	await(t, p.client, p.namespace, "addresses for "+name, waitLimit, func(services []*corev1.Service) bool {
		for _, s := range services {
			if s.GetMetadata().GetName() == name && len(s.GetStatus().GetLoadBalancer().GetIngress()) == addresses {
				found = s
			}
		}
		return found != nil
	})
	return found
}

func ingressAt(t *testing.T, s *corev1.Service, i int) netip.Addr {
	t.Helper()
	addr, err := netip.ParseAddr(s.GetStatus().GetLoadBalancer().GetIngress()[i].GetIp())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// expectDropped sends datagrams to where no service is until the command line tells of them.
func (p *person) expectDropped(t *testing.T, from netip.Addr, to netip.AddrPort) {
	t.Helper()
	eventually(t, "a drop is reported", waitLimit, func() error {
		err := p.onHost(bystander, func() error {
			c, err := net.Dial("udp", to.String())
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("unanswered"))
			return err
		})
		if err != nil {
			return err
		}
		drops := p.try(t, "net", "drops", "-A")
		for line := range strings.Lines(drops.stdout) {
			if strings.Contains(line, from.String()) && strings.Contains(line, to.String()) {
				return nil
			}
		}
		return fmt.Errorf("none from %v to %v in\n%s", from, to, drops)
	})
}
