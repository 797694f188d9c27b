package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// fakeNetwork is what agents know of their network.
type fakeNetwork struct {
	connections map[string][]*nodev1.Connection // by node
	traced      []string                        // what was asked
	next        map[string]string               // who goes on answering, by node
	verdict     string
}

func (c *fakeCluster) ListConnections(_ context.Context, req *nodev1.ListConnectionsRequest) (*nodev1.ListConnectionsResponse, error) {
	list, ok := c.network.connections[req.GetTarget().GetNode()]
	if !ok {
		return nil, apierr.Unavailable("the agent is away")
	}
	resp := &nodev1.ListConnectionsResponse{}
	for _, c := range list {
		if req.GetService() == "" || strings.HasPrefix(c.GetService(), req.GetService()) {
			resp.Connections = append(resp.Connections, c)
		}
	}
	return resp, nil
}

func (c *fakeCluster) TraceConnection(_ context.Context, req *nodev1.TraceConnectionRequest) (*nodev1.TraceConnectionResponse, error) {
	node := req.GetTarget().GetNode()
	c.network.traced = append(c.network.traced, fmt.Sprintf("%s: %q outside=%v to %s/%s", node, req.GetSource(), req.GetOutside(), req.GetDestination(), req.GetProtocol()))
	if next := c.network.next[node]; next != "" {
		return &nodev1.TraceConnectionResponse{
			Steps: []*nodev1.TraceStep{{Stage: "address", Finding: "node " + next + " answers"}}, Verdict: "forwarded", Decides: "node " + next + " answers", NextNode: next,
		}, nil
	}
	return &nodev1.TraceConnectionResponse{
		Steps: []*nodev1.TraceStep{{Stage: "service", Finding: "default/web:http has 10.96.0.12:80/TCP in the maps, with 1 endpoint"}},
		Backends: []*nodev1.TraceBackend{{
			Address: "10.244.1.5:8080", Share: 1, Place: "a pod of this node, by xb1", Translation: "to the endpoint", Verdict: c.network.verdict, Reason: "selected at random",
		}},
		Verdict: c.network.verdict, Decides: "endpoint 10.244.1.5:8080: selected at random",
	}, nil
}

// startNetwork is a cluster of two nodes, with a pod and services.
func startNetwork(t *testing.T) *fakeCluster {
	c := startCluster(t)
	for i, ready := range []string{"Unknown", "True"} {
		clienttest.Seed(c.Server, &corev1.Node{
			Metadata: &metav1.ObjectMeta{Name: fmt.Sprint("node-", i+1)},
			Status: &corev1.NodeStatus{
				Addresses:  []*corev1.NodeAddress{{Type: "InternalIP", Address: fmt.Sprint("192.0.2.", i+1)}},
				Conditions: []*corev1.NodeCondition{{Type: "Ready", Status: ready}},
			},
		})
	}
	pod := func(namespace, name, ip string) *corev1.Pod {
		return &corev1.Pod{
			Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec:     &corev1.PodSpec{NodeName: "node-1", Containers: []*corev1.Container{{Name: "c", Ports: []*corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: "TCP"}}}}},
			Status:   &corev1.PodStatus{PodIp: ip, Phase: "Running"},
		}
	}
	clienttest.Seed(c.Server, pod("default", "client", "10.244.0.7"), pod("other", "client", "10.244.0.8"), pod("default", "new", ""))
	service := func(name string, change func(*corev1.Service)) *corev1.Service {
		s := &corev1.Service{
			Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec:     &corev1.ServiceSpec{Type: "ClusterIP", ClusterIp: "10.96.0.12", Ports: []*corev1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP"}}},
		}
		change(s)
		return s
	}
	clienttest.Seed(c.Server,
		service("web", func(*corev1.Service) {}),
		service("balanced", func(s *corev1.Service) {
			s.Spec.Type = "LoadBalancer"
			s.Spec.Ports = append(s.Spec.Ports, &corev1.ServicePort{Name: "dns", Port: 53, Protocol: "UDP"})
			s.Status = &corev1.ServiceStatus{LoadBalancer: &corev1.LoadBalancerStatus{Ingress: []*corev1.LoadBalancerIngress{{Ip: "198.51.100.7", IpMode: proto.String("VIP")}}}}
		}),
		service("opened", func(s *corev1.Service) { s.Spec.Type, s.Spec.Ports[0].NodePort = "NodePort", 30080 }),
		service("alias", func(s *corev1.Service) {
			s.Spec = &corev1.ServiceSpec{Type: "ExternalName", ExternalName: "db.example.com"}
		}),
		service("headless", func(s *corev1.Service) { s.Spec.ClusterIp = "None" }))
	c.network.verdict = "forwarded"
	return c
}

func TestNetTraceAsksTheRightNode(t *testing.T) {
	for args, want := range map[string]string{
		"client web":                              `node-1: "10.244.0.7" outside=false to 10.96.0.12:80/TCP`,
		"client web:http":                         `node-1: "10.244.0.7" outside=false to 10.96.0.12:80/TCP`,
		"other/client web.default:80":             `node-1: "10.244.0.8" outside=false to 10.96.0.12:80/TCP`,
		"10.244.0.8 web.default.svc":              `node-1: "10.244.0.8" outside=false to 10.96.0.12:80/TCP`,
		"client web.default.svc.cluster.local.":   `node-1: "10.244.0.7" outside=false to 10.96.0.12:80/TCP`,
		"node-2 service/balanced:53":              `node-2: "" outside=false to 10.96.0.12:53/UDP`,
		"192.0.2.1 pod/client":                    `node-1: "" outside=false to 10.244.0.7:8080/TCP`,
		"client pod/client:9000 --protocol udp":   `node-1: "10.244.0.7" outside=false to 10.244.0.7:9000/UDP`,
		"203.0.113.5 balanced:http":               `node-2: "203.0.113.5" outside=true to 198.51.100.7:80/TCP`,
		"203.0.113.5 opened":                      `node-1: "203.0.113.5" outside=true to 192.0.2.1:30080/TCP`,
		"203.0.113.5 192.0.2.2:30080":             `node-2: "203.0.113.5" outside=true to 192.0.2.2:30080/TCP`,
		"203.0.113.5 10.244.0.8:80":               `node-1: "203.0.113.5" outside=true to 10.244.0.8:80/TCP`,
		"203.0.113.5 203.0.113.9:1 --node node-1": `node-1: "203.0.113.5" outside=true to 203.0.113.9:1/TCP`,
	} {
		c := startNetwork(t)
		r := c.run(t, append([]string{"net", "trace"}, strings.Fields(args)...)...)
		if got := strings.Join(c.network.traced, "; "); r.code != exit.OK || got != want {
			t.Errorf("%s: asked %s, want %s (%d %s)", args, got, want, r.code, r.err)
		}
	}
}

func TestNetTraceRefusals(t *testing.T) {
	c := startNetwork(t)
	for args, want := range map[string]string{
		"absent web":              "no pod default/absent and no node absent",
		"new web":                 "pod default/new has no address",
		"client nothing":          "no service default/nothing and no pod",
		"client web:81":           "service default/web has no port 81: want one of http (80/TCP)",
		"client balanced":         "has several ports: want one of http (80/TCP), dns (53/UDP)",
		"client alias":            "is an ExternalName for db.example.com",
		"client headless":         "is headless",
		"203.0.113.5 web":         "has no IPv4 address for external clients",
		"client 10.96.0.12":       "requires a port number",
		"client www.example.com":  "not a name in the cluster domain",
		"client web --protocol x": "want TCP or UDP",
		"node/node-9 web":         "node \"node-9\" not found",
	} {
		r := c.run(t, append([]string{"net", "trace"}, strings.Fields(args)...)...)
		if r.code == exit.OK || !strings.Contains(r.err, want) {
			t.Errorf("%s: %d %s, want %q", args, r.code, r.err, want)
		}
	}
}

// Both ends are of one family: that of the address that is named, or of the first that a service
// has.
func TestNetTraceByIPv6(t *testing.T) {
	for args, want := range map[string]string{
		"six both":                         `node-3: "10.244.2.7" outside=false to 10.96.0.13:80/TCP`,
		"six [fd00:10:96::13]:80":          `node-3: "fd00:10:244::7" outside=false to [fd00:10:96::13]:80/TCP`,
		"fd00:10:244::7 both:http":         `node-3: "fd00:10:244::7" outside=false to [fd00:10:96::13]:80/TCP`,
		"fd00:10:244::7 pod/six":           `node-3: "fd00:10:244::7" outside=false to [fd00:10:244::7]:8080/TCP`,
		"2001:db8::3 both":                 `node-3: "" outside=false to [fd00:10:96::13]:80/TCP`,
		"2001:db8::99 both":                `node-2: "2001:db8::99" outside=true to [2001:db8::101]:80/TCP`,
		"203.0.113.5 both":                 `node-2: "203.0.113.5" outside=true to 198.51.100.8:80/TCP`,
		"2001:db8::99 opened":              `node-3: "2001:db8::99" outside=true to [2001:db8::3]:30080/TCP`,
		"2001:db8::99 [2001:db8::3]:30080": `node-3: "2001:db8::99" outside=true to [2001:db8::3]:30080/TCP`,
		"2001:db8::99 [fd00:10:244::7]:1":  `node-3: "2001:db8::99" outside=true to [fd00:10:244::7]:1/TCP`,
		"fd00:10:244::7 web":               "service default/web has no IPv6 address",
		"2001:db8::99 balanced:80":         "service default/balanced has no IPv6 address for external clients",
		"client [fd00:10:96::13]:80":       "pod default/client has no IPv6 address from which to reach fd00:10:96::13",
		"2001:db8::99 10.244.2.7:80":       "external client 2001:db8::99 has no IPv4 address",
		"fd00:10:244::7 pod/client":        "pod default/client has no IPv6 address",
		"six fd00:10:96::13":               "as in [fd00:10:96::13]:80",
		"six [fd00:10:96::13]":             "as in [fd00:10:96::13]:80",
		"six [fd00:10:96::13]:0":           "as in [fd00:10:96::13]:80",
	} {
		c := startNetwork(t)
		clienttest.Seed(c.Server, &corev1.Node{
			Metadata: &metav1.ObjectMeta{Name: "node-3"},
			Status:   &corev1.NodeStatus{Addresses: []*corev1.NodeAddress{{Type: "InternalIP", Address: "192.0.2.3"}, {Type: "InternalIP", Address: "2001:db8::3"}}},
		})
		clienttest.Seed(c.Server, &corev1.Pod{
			Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "six"},
			Spec:     &corev1.PodSpec{NodeName: "node-3", Containers: []*corev1.Container{{Name: "c", Ports: []*corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: "TCP"}}}}},
			Status:   &corev1.PodStatus{PodIp: "10.244.2.7", PodIps: []*corev1.PodIP{{Ip: "10.244.2.7"}, {Ip: "fd00:10:244::7"}}, Phase: "Running"},
		})
		clienttest.Seed(c.Server, &corev1.Service{
			Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "both"},
			Spec: &corev1.ServiceSpec{
				Type: "LoadBalancer", ClusterIp: "10.96.0.13", ClusterIps: []string{"10.96.0.13", "fd00:10:96::13"}, Ports: []*corev1.ServicePort{{Name: "http", Port: 80, Protocol: "TCP"}},
			},
			Status: &corev1.ServiceStatus{LoadBalancer: &corev1.LoadBalancerStatus{Ingress: []*corev1.LoadBalancerIngress{{Ip: "198.51.100.8"}, {Ip: "2001:db8::101"}}}},
		})
		r := c.run(t, append([]string{"net", "trace"}, strings.Fields(args)...)...)
		if got := strings.Join(c.network.traced, "; "); got != want && (r.code == exit.OK || !strings.Contains(r.err, want)) {
			t.Errorf("%s: asked %s, want %s (%d %s)", args, got, want, r.code, r.err)
		}
	}
}

func TestNetTraceShowsAll(t *testing.T) {
	c := startNetwork(t)
	c.network.next = map[string]string{"node-2": "node-1"}
	c.network.verdict = "dropped"
	c.run(t, "net", "trace", "203.0.113.5", "balanced:http").golden(t, "net-trace")
	if r := c.run(t, "net", "trace", "203.0.113.5", "balanced:http", "--check"); r.code != exit.Failed {
		t.Errorf("exit code %d of a check of what is dropped", r.code)
	}
	r := c.run(t, "net", "trace", "203.0.113.5", "balanced:http", "-o", "json")
	var got struct {
		Verdict, Decides, Destination string
		Nodes                         []struct {
			Node     string
			Steps    []struct{ Stage, Finding string }
			Backends []struct{ Address, Verdict string }
		}
	}
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatalf("%v: %s", err, r.out)
	}
	if got.Verdict != "dropped" || got.Destination != "198.51.100.7:80" || len(got.Nodes) != 2 || got.Nodes[1].Node != "node-1" || got.Nodes[1].Backends[0].Verdict != "dropped" {
		t.Errorf("%+v", got)
	}
}

func TestNetConnections(t *testing.T) {
	c := startNetwork(t)
	c.network.connections = map[string][]*nodev1.Connection{"node-1": {
		{Way: "in", Protocol: "TCP", Source: "203.0.113.5:4000", Destination: "198.51.100.7:80", TranslatedSource: "192.0.2.1:4000", TranslatedDestination: "10.244.1.5:8080", Service: "default/balanced:http", State: "open", IdleSeconds: 75},
		{Way: "out", Protocol: "UDP", Source: "10.244.0.7:5353", Destination: "203.0.113.9:53", TranslatedSource: "192.0.2.1:5353", TranslatedDestination: "203.0.113.9:53", State: "unanswered"},
		{Way: "socket", Protocol: "UDP", Source: "socket 17", Destination: "10.96.0.12:53", TranslatedDestination: "10.244.1.9:53", Service: "default/dns"},
	}}
	r := c.run(t, "net", "connections")
	r.golden(t, "net-connections")
	if !strings.Contains(r.err, "node-2") {
		t.Errorf("nothing is said of the node that is away: %s", r.err)
	}
	if r := c.run(t, "net", "connections", "--service", "dns"); strings.Count(r.out, "\n") != 2 || !strings.Contains(r.out, "socket 17") {
		t.Errorf("of one service:\n%s", r.out)
	}
	if r := c.run(t, "net", "connections", "--node", "node-2"); r.code == exit.OK {
		t.Errorf("the only node that was asked for is away, and the command succeeded:\n%s", r.out)
	}
	if r := c.run(t, "net", "connections", "--node", "node-1", "-o", "jsonpath={.connections[0].service}"); r.out != "default/balanced:http" {
		t.Errorf("jsonpath gives %q", r.out)
	}
	c.run(t, "net", "connections", "-w", "-o", "json").want(t, exit.Usage, "", "--watch requires table output")
}
