package datapath_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/xebec-project/xebec/agent/datapath"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestTrace(t *testing.T) {
	w := newWire(t)
	_, here := w.pod(0, "here")
	_, there := w.pod(1, "there")
	n := w.nodes[0]
	const self = "192.0.2.1"
	restricted := outside(balancerIP+":81", datapath.TCP, here+":8080")
	restricted.Sources = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix(clientIP + "/32")}
	sticky := outside(self+":30082", datapath.TCP, here+":8080", there+":8080")
	sticky.Affinity = time.Hour
	maglev := outside(self+":30083", datapath.TCP, here+":8080", there+":8080")
	maglev.Maglev = true
	w.replace(0,
		service("10.96.0.1:80", datapath.TCP, here+":8080", there+":8080"), service("10.96.0.2:80", datapath.TCP),
		outside(self+":30080", datapath.TCP, here+":8080", there+":8080"), outside(self+":30081", datapath.TCP), restricted, sticky, maglev)
	w.announce(0, balancerIP)

	var syncer *datapath.Syncer
	if err := n.Do(func() error { syncer = datapath.NewSyncer("node-0", n.dp, zaptest.NewLogger(t)); return nil }); err != nil {
		t.Fatal(err)
	}
	syncer.AnnounceClass(datapath.DefaultClass)
	if _, err := ask(w.client, "tcp4", self+":30082"); err != nil { // the client is remembered
		t.Fatal(err)
	}
	judge := func(from, to netip.Addr, _ datapath.Protocol, port uint16) (bool, string) {
		return port != 9, fmt.Sprintf("a policy on what %v sends to %v", from, to)
	}
	for name, c := range map[string]struct {
		probe   datapath.Probe
		verdict string
		words   []string // of the trace, in this order
	}{
		"a pod to a cluster IP": {datapath.Probe{Source: addr(here), Destination: at("10.96.0.1:80")}, datapath.Forwarded,
			[]string{"has 10.96.0.1:80/TCP in the maps, with 2 endpoints", "at random", here + ":8080 50%", "a pod of this node", "the socket connects to the endpoint", there + ":8080 50%", "another machine"}},
		"a service without endpoints":    {datapath.Probe{Source: addr(here), Destination: at("10.96.0.2:80")}, datapath.Refused, []string{"no usable endpoint"}},
		"the node to a pod":              {datapath.Probe{Destination: at(there + ":8080")}, datapath.Forwarded, []string{"no service has", "another machine", "a policy on what 192.0.2.1 sends to " + there}},
		"a pod to what a policy forbids": {datapath.Probe{Source: addr(here), Destination: at(there + ":9")}, datapath.Dropped, []string{"a policy on what " + here}},
		"a pod to the outside":           {datapath.Probe{Source: addr(here), Destination: at(clientIP + ":80")}, datapath.Forwarded, []string{"outside the cluster", "the node's address 192.0.2.1"}},
		"a pod to another node":          {datapath.Probe{Source: addr(here), Destination: at("192.0.2.2:80")}, datapath.Forwarded, []string{"source and destination are kept"}},
		"a pod to its loopback":          {datapath.Probe{Source: addr(here), Destination: at("127.0.0.1:30080")}, datapath.Forwarded, []string{"an address of the pod itself"}},
		"a client to a node port": {datapath.Probe{Source: addr(clientIP), Outside: true, Destination: at(self + ":30080")}, datapath.Forwarded,
			[]string{"2 endpoints", "a pod of this node", "the client's address kept", there + ":8080 50%", "from the node's address 192.0.2.1", "a policy on what 192.0.2.1 sends to " + there}},
		"a client to a node port without endpoints": {datapath.Probe{Source: addr(clientIP), Outside: true, Destination: at(self + ":30081")}, datapath.Refused, []string{"no usable endpoint"}},
		"a client in a range":                       {datapath.Probe{Source: addr(clientIP), Outside: true, Destination: at(balancerIP + ":81")}, datapath.Forwarded, []string{"is in " + clientIP + "/32"}},
		"a client in none":                          {datapath.Probe{Source: addr("192.0.2.9"), Outside: true, Destination: at(balancerIP + ":81")}, datapath.Dropped, []string{"in none of the service's loadBalancerSourceRanges", "10.0.0.0/8, " + clientIP + "/32"}},
		"a port that no service has":                {datapath.Probe{Source: addr(clientIP), Outside: true, Destination: at(balancerIP + ":82")}, datapath.Dropped, []string{"no service has port 82"}},
		"a client that is remembered":               {datapath.Probe{Source: addr(clientIP), Outside: true, Destination: at(self + ":30082")}, datapath.Forwarded, []string{"by sessionAffinity ClientIP", "100%"}},
		"a client that is not":                      {datapath.Probe{Source: addr("192.0.2.9"), Outside: true, Destination: at(self + ":30082")}, datapath.Forwarded, []string{"at random", "50%"}},
		"by table":                                  {datapath.Probe{Source: addr(clientIP), Outside: true, Destination: at(self + ":30083")}, datapath.Forwarded, []string{"the Maglev table", "50%"}},
	} {
		c.probe.Protocol = datapath.TCP
		var got *datapath.Trace
		err := n.Do(func() (err error) { got, err = syncer.Trace(n.dp, c.probe, judge); return err })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var reported []string
		for _, s := range got.Steps {
			reported = append(reported, s.Stage+": "+s.Finding)
		}
		for _, b := range got.Backends {
			reported = append(reported, fmt.Sprintf("%v %.0f%% %s; %s; %s; %s", b.Address, 100*b.Share, b.Place, b.Translation, b.Verdict, b.Reason))
		}
		rest := strings.Join(reported, "\n")
		for _, words := range c.words {
			_, after, found := strings.Cut(rest, words)
			if !found {
				t.Errorf("%s: %q is missing, or not in its place:\n%s", name, words, strings.Join(reported, "\n"))
				break
			}
			rest = after
		}
		if got.Verdict != c.verdict || got.Decides == "" {
			t.Errorf("%s: %s by %q, want %s", name, got.Verdict, got.Decides, c.verdict)
		}
	}

	// An address that another node answers for, and what is known of endpoints that are not used.
	node, no := "node-9", false
	svc := &corev1.Service{
		Metadata: &metav1.ObjectMeta{Namespace: "ns", Name: "lb"},
		Spec:     &corev1.ServiceSpec{Type: "LoadBalancer", ClusterIp: "10.96.0.2", Ports: []*corev1.ServicePort{{Port: 80, Protocol: "TCP"}}},
		Status:   &corev1.ServiceStatus{LoadBalancer: &corev1.LoadBalancerStatus{Ingress: []*corev1.LoadBalancerIngress{{Ip: "192.0.2.222"}}}},
	}
	syncer.OnService(nil, svc)
	syncer.OnEndpointSlice(nil, &discoveryv1.EndpointSlice{
		Metadata:    &metav1.ObjectMeta{Namespace: "ns", Name: "lb-1", Labels: map[string]string{"kubernetes.io/service-name": "lb"}},
		AddressType: "IPv4", Ports: []*discoveryv1.EndpointPort{{Name: new(string), Port: new(int32)}},
		Endpoints: []*discoveryv1.Endpoint{{Addresses: []string{"10.244.9.9"}, NodeName: &node, Conditions: &discoveryv1.EndpointConditions{Ready: &no}}},
	})
	syncer.SetAnnouncers(datapath.NewAnnouncers(slices.Values([]*corev1.Node{{Metadata: &metav1.ObjectMeta{Name: "node-9"}}})))
	syncer.Settle()
	var elsewhere, unready *datapath.Trace
	err := n.Do(func() (err error) {
		if elsewhere, err = syncer.Trace(n.dp, datapath.Probe{Source: addr(clientIP), Outside: true, Destination: at("192.0.2.222:80"), Protocol: datapath.TCP}, nil); err != nil {
			return err
		}
		unready, err = syncer.Trace(n.dp, datapath.Probe{Destination: at("10.96.0.2:80"), Protocol: datapath.TCP}, nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if elsewhere.NextNode != "node-9" {
		t.Errorf("an address that node-9 answers for is traced to %q: %+v", elsewhere.NextNode, elsewhere)
	}
	if !slices.ContainsFunc(unready.Steps, func(s datapath.Step) bool {
		return strings.Contains(s.Finding, "10.244.9.9 on node node-9 is not used: it is not ready")
	}) {
		t.Errorf("the endpoint that is not ready is missing: %+v", unready.Steps)
	}
}

// The same is reported for IPv6.
func TestTraceByIPv6(t *testing.T) {
	w := newWire(t, dualStack)
	_, here := w.pod6(0, "here")
	_, there := w.pod6(1, "there")
	n := w.nodes[0]
	const balancer = "2001:db8::200"
	w.replace(0,
		service("[fd00:10:96::1]:80", datapath.TCP, hostPort(here, 8080), hostPort(there, 8080)),
		outside(hostPort(ends6.self, 30080), datapath.TCP, hostPort(here, 8080), hostPort(there, 8080)), outside(hostPort(balancer, 80), datapath.TCP, hostPort(here, 8080)))
	w.announce(0, balancer)
	var syncer *datapath.Syncer
	if err := n.Do(func() error { syncer = datapath.NewSyncer("node-0", n.dp, zaptest.NewLogger(t)); return nil }); err != nil {
		t.Fatal(err)
	}
	client := addr(clientIP6)
	for name, c := range map[string]struct {
		probe   datapath.Probe
		verdict string
		words   []string
	}{
		"a pod to a cluster IP": {datapath.Probe{Source: addr(here), Destination: at("[fd00:10:96::1]:80")}, datapath.Forwarded, []string{"2 endpoints", "a pod of this node", "another machine"}},
		"a pod to the outside":  {datapath.Probe{Source: addr(here), Destination: at(hostPort(clientIP6, 80))}, datapath.Forwarded, []string{"the node's address " + ends6.self}},
		"a client to a node port": {datapath.Probe{Source: client, Outside: true, Destination: at(hostPort(ends6.self, 30080))}, datapath.Forwarded,
			[]string{"a pod of this node", "the client's address kept", "from the node's address " + ends6.self}},
		"a client to a load balancer": {datapath.Probe{Source: client, Outside: true, Destination: at(hostPort(balancer, 80))}, datapath.Forwarded, []string{"1 endpoint", "the client's address kept"}},
		"a port that no service has":  {datapath.Probe{Source: client, Outside: true, Destination: at(hostPort(balancer, 81))}, datapath.Dropped, []string{"no service has port 81"}},
	} {
		c.probe.Protocol = datapath.TCP
		var got *datapath.Trace
		err := n.Do(func() (err error) { got, err = syncer.Trace(n.dp, c.probe, nil); return err })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		reported := fmt.Sprintf("%+v", *got)
		for _, words := range c.words {
			if !strings.Contains(reported, words) {
				t.Errorf("%s: %q is missing: %s", name, words, reported)
			}
		}
		if got.Verdict != c.verdict {
			t.Errorf("%s: %s, want %s: %s", name, got.Verdict, c.verdict, reported)
		}
	}
}

func addr(s string) netip.Addr   { return netip.MustParseAddr(s) }
func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
