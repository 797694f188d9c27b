package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/agent"
	"github.com/xebec-project/xebec/agent/datapath"
	"github.com/xebec-project/xebec/agent/snapshot"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

// TestNode runs a whole node: the agent as a process in a network namespace of its own, containerd,
// eBPF and an API.
func TestNode(t *testing.T) {
	n := start(t)
	silent := false
	var registered *corev1.Node
	n.until("the node registers", func() bool {
		var err error
		registered, err = client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		return err == nil && len(registered.GetStatus().GetConditions()) > 0
	})
	if c := core.NodeCondition(registered, core.NodeReady); c.GetStatus() != "False" {
		t.Errorf("without a pod CIDR the node is %v", c)
	}
	info := registered.Status.NodeInfo
	if core.NodeAddress(registered, "InternalIP") != "10.99.0.2" || registered.Status.DaemonEndpoints.KubeletEndpoint.Port != 10250 ||
		!strings.HasPrefix(info.ContainerRuntimeVersion, "containerd://1.") || info.KernelVersion == "" || info.OperatingSystem != "linux" ||
		registered.Status.Capacity["pods"].GetString_() != "110" || registered.Status.Allocatable["memory"] == nil ||
		registered.Metadata.Labels["kubernetes.io/hostname"] != nodeName || registered.Metadata.Labels["disk"] != "fast" {
		t.Errorf("the node registered as %v", registered)
	}
	if h := registered.Status.RuntimeHandlers; len(h) != 2 || h[0].GetName() != "" || h[1].GetName() != "runc" || !h[0].GetFeatures().GetRecursiveReadOnlyMounts() {
		t.Errorf("the node's runtime can do %v", h)
	}
	registered = client.Clone(registered)
	registered.Spec.PodCidr = "10.244.7.0/24"
	registered.Metadata.ResourceVersion = ""
	if _, err := client.Update(t.Context(), n.client, registered); err != nil {
		t.Fatal(err)
	}
	n.until("the node is ready", func() bool {
		now, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		return err == nil && core.NodeCondition(now, core.NodeReady).GetStatus() == "True"
	})
	if l, err := client.Get[*coordinationv1.Lease](t.Context(), n.client, "kube-node-lease", nodeName); err != nil || l.Spec.GetLeaseDurationSeconds() != 10 {
		t.Errorf("the lease is %v, %v", l, err)
	}
	n.until("a node that was taken for silent says that it is not", func() bool {
		now, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		if err != nil || silent {
			return err == nil && core.NodeCondition(now, core.NodeReady).GetStatus() == "True"
		}
		now = client.Clone(now)
		core.NodeCondition(now, core.NodeReady).Status = "Unknown"
		_, err = client.UpdateStatus(t.Context(), n.client, now)
		silent = err == nil
		return false
	})
	n.importImage()
	n.until("the node tells its images", func() bool {
		now, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		return err == nil && len(now.Status.Images) == 1
	})

	// A pod whose readiness can only be seen over the network.
	n.pod("web", "echo serving; echo hello from web > /tmp/index.html; exec httpd -f -p 8080 -h /tmp", func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []*corev1.ContainerPort{{Name: "http", ContainerPort: 8080, HostPort: 8088}}
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, Handler: &corev1.ProbeHandler{
			HttpGet: &corev1.HTTPGetAction{Path: "/index.html", Port: &metav1.IntOrString{Type: 1, StrVal: "http"}},
		}}
	})
	web := n.podUntil("web", "the pod is ready", core.IsPodReady)
	if ip, err := netip.ParseAddr(web.Status.PodIp); err != nil || !netip.MustParsePrefix("10.244.7.0/24").Contains(ip) {
		t.Errorf("its address is %q", web.Status.PodIp)
	}
	t.Run("logs", n.in(testLogs))
	t.Run("exec", n.in(testExec))
	t.Run("attach", n.in(testAttach))
	t.Run("port", n.in(testPort))
	t.Run("stats", n.in(testStats))
	t.Run("memory", n.in(testMemory))
	t.Run("service", n.in(func(t *testing.T, n *node) { testService(t, n, web) }))
	t.Run("from outside", n.in(testFromOutside))
	t.Run("callers", n.in(testCallers))
	t.Run("agent killed", n.in(func(t *testing.T, one *node) {
		testAgentKilled(t, one, web)
		n.agent, n.exited = one.agent, one.exited
	}))
	t.Run("control plane away", n.in(func(t *testing.T, one *node) {
		testControlPlaneAway(t, one)
		n.agent, n.exited = one.agent, one.exited
	}))
	t.Run("forgotten", n.in(testForgotten))
	t.Run("delete", func(t *testing.T) {
		if _, err := client.Delete[*corev1.Pod](t.Context(), n.client, "default", "web"); err != nil {
			t.Fatal(err)
		}
		n.until("the pod is gone", func() bool {
			_, err := client.Get[*corev1.Pod](t.Context(), n.client, "default", "web")
			return apierr.IsNotFound(err)
		})
	})
	t.Run("events", n.in(func(t *testing.T, n *node) {
		reasons := map[string]bool{}
		defer func() { t.Logf("reasons: %v", reasons) }()
		n.until("events were recorded", func() bool {
			list, _, err := client.List[*corev1.Event](t.Context(), n.client, client.ListOptions{Namespace: "default"})
			for _, e := range list {
				reasons[e.Reason] = true
			}
			return err == nil && reasons["Pulled"] && reasons["Created"] && reasons["Started"] && reasons["Killing"]
		})
	}))
}

// in makes a subtest of a part, whose failures are its own.
func (n *node) in(f func(*testing.T, *node)) func(*testing.T) {
	return func(t *testing.T) {
		one := *n
		one.T = t
		f(t, &one)
	}
}

func testLogs(t *testing.T, n *node) {
	target := &nodev1.Target{Namespace: "default", Pod: "web"}
	if got, err := n.logs(&nodev1.LogsRequest{Target: target, TailLines: proto.Int64(5)}); err != nil || got != "serving\n" {
		t.Errorf("log is %q, %v", got, err)
	}
	if _, err := n.logs(&nodev1.LogsRequest{Target: target, Previous: true}); !apierr.IsNotFound(err) {
		t.Errorf("the log before the first: %v", err)
	}
	if _, err := n.logs(&nodev1.LogsRequest{Target: target, Container: "other"}); !apierr.IsNotFound(err) {
		t.Errorf("another container: %v", err)
	}
	n.pod("brief", "echo 1; until test -e /dev/shm/go; do sleep 0.05; done; echo 2; echo 3", func(p *corev1.Pod) { p.Spec.RestartPolicy = "Never" })
	n.podUntil("brief", "it has started", func(p *corev1.Pod) bool { return p.Status.GetPhase() == "Running" })
	stream, err := n.agentAPI.Logs(admin(t.Context()), &nodev1.LogsRequest{Target: &nodev1.Target{Namespace: "default", Pod: "brief"}, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	var followed strings.Builder
	for {
		resp, err := stream.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) || followed.String() != "1\n2\n3\n" {
				t.Errorf("followed %q, %v", &followed, err)
			}
			break
		}
		followed.Write(resp.Data)
		if followed.String() == "1\n" {
			if _, _, err := n.exec("brief", "", "touch", "/dev/shm/go"); err != nil {
				t.Fatal(err)
			}
		}
	}
	n.podUntil("brief", "it has succeeded", func(p *corev1.Pod) bool { return p.Status.GetPhase() == "Succeeded" })
	if _, _, err := n.exec("brief", "", "true"); apierr.Reason(err) != "CONTAINER_NOT_RUNNING" {
		t.Errorf("exec in what has ended: %v", err)
	}
}

func testExec(t *testing.T, n *node) {
	if out, code, err := n.exec("web", "some\ninput\n", "sh", "-c", "cat; echo bad >&2; exit 42"); err != nil || code != 42 || !strings.Contains(out, "some\ninput\n") || !strings.Contains(out, "bad\n") {
		t.Errorf("exec: %q, %d, %v", out, code, err)
	}
	if _, _, err := n.exec("web", "", "nonesuch"); apierr.Reason(err) != "EXEC_FAILED" {
		t.Errorf("a command that does not exist: %v", err)
	}
}

// request asks the service for a page.
const request = `printf 'GET /index.html HTTP/1.0\r\n\r\n' | nc 10.96.0.80 80`

func testService(t *testing.T, n *node, web *corev1.Pod) {
	clienttest.Seed(n.api, &corev1.Service{
		Metadata: &metav1.ObjectMeta{Name: "web", Namespace: "default"},
		Spec:     &corev1.ServiceSpec{ClusterIp: "10.96.0.80", ClusterIps: []string{"10.96.0.80"}, Type: "NodePort", Ports: []*corev1.ServicePort{{Port: 80, NodePort: 30080, Protocol: "TCP", TargetPort: &metav1.IntOrString{IntVal: 8080}}}},
	})
	clienttest.Seed(n.api, &discoveryv1.EndpointSlice{
		Metadata:    &metav1.ObjectMeta{Name: "web-1", Namespace: "default", Labels: map[string]string{"kubernetes.io/service-name": "web"}},
		AddressType: "IPv4",
		Endpoints:   []*discoveryv1.Endpoint{{Addresses: []string{web.Status.PodIp}, Conditions: &discoveryv1.EndpointConditions{Ready: proto.Bool(true)}}},
		Ports:       []*discoveryv1.EndpointPort{{Name: proto.String(""), Port: proto.Int32(8080), Protocol: proto.String("TCP")}},
	})
	n.pod("client", "sleep 3600")
	n.podUntil("client", "it runs", core.IsPodReady)
	last := ""
	defer func() {
		if t.Failed() {
			t.Logf("the last answer was %s", last)
			resp, err := n.agentAPI.ListServices(admin(context.Background()), &nodev1.ListServicesRequest{})
			t.Logf("services: %v, %v", resp, err)
			b, _ := exec.Command("sh", "-c", "find /sys/fs/cgroup/unified"+n.daemon.CgroupParent+" -name cgroup.procs | xargs -n1 sh -c 'echo $0; cat $0'").CombinedOutput()
			t.Logf("%s", b)
		}
	}()
	n.until("the service answers by its cluster IP", func() bool {
		out, code, err := n.exec("client", "", "sh", "-c", request)
		last = fmt.Sprintf("%q, %d, %v", out, code, err)
		return err == nil && code == 0 && strings.HasSuffix(out, "hello from web\n")
	})
	resp, err := n.agentAPI.ListServices(admin(t.Context()), &nodev1.ListServicesRequest{Target: &nodev1.Target{Node: nodeName}})
	i := slices.IndexFunc(resp.GetServices(), func(s *nodev1.ServiceEntry) bool { return s.Frontend == "10.96.0.80:80" })
	if err != nil || i < 0 {
		t.Fatalf("services are %v, %v", resp, err)
	}
	backend := web.Status.PodIp + ":8080"
	if s := resp.Services[i]; s.Service != "default/web" || s.Frontend != "10.96.0.80:80" || s.Protocol != "TCP" ||
		!slices.Equal(s.WantedBackends, []string{backend}) || !slices.Equal(s.ActualBackends, []string{backend}) {
		t.Errorf("the service is %v", s)
	}
	if len(resp.GetFeatures()) != 3 {
		t.Errorf("features that depend on the kernel: %v, want 3", resp.GetFeatures())
	}
	for _, f := range resp.GetFeatures() {
		if f.GetMethod() == "none" || f.GetMissing() != "" {
			t.Errorf("the node's network lacks %v", f)
		}
	}
	condition := &corev1.NodeCondition{}
	n.until("the node says that its kernel has what the datapath needs", func() bool {
		now, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		condition = core.NodeCondition(now, "KernelFeaturesAvailable")
		return err == nil && condition.GetStatus() == "True"
	})
	if !strings.Contains(condition.GetMessage(), "stale_sockets by ") {
		t.Errorf("the condition says %q, want the methods", condition.GetMessage())
	}
}

// pageFrom reads the page from a machine that is no node.
func (n *node) pageFrom(addr string) (string, error) {
	var page []byte
	err := n.master.Do(func() error {
		c, err := net.DialTimeout("tcp4", addr, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err := io.WriteString(c, "GET /index.html HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		page, err = io.ReadAll(c)
		return err
	})
	return string(page), err
}

// testFromOutside reaches the pod by the ports of its node.
func testFromOutside(t *testing.T, n *node) {
	for what, addr := range map[string]string{"the node port": "10.99.0.2:30080", "the host port": "10.99.0.2:8088"} {
		n.until(what+" answers", func() bool {
			page, err := n.pageFrom(addr)
			return err == nil && strings.HasSuffix(page, "hello from web\n")
		})
		n.until(what+" answers a pod", func() bool {
			host, port, _ := strings.Cut(addr, ":")
			out, code, err := n.exec("client", "", "sh", "-c", strings.Replace(request, "10.96.0.80 80", host+" "+port, 1))
			return err == nil && code == 0 && strings.HasSuffix(out, "hello from web\n")
		})
	}
}

func testCallers(t *testing.T, n *node) {
	// The gateway itself, and the gateway on behalf of a user who is not an administrator.
	if _, err := n.agentAPI.ListImages(t.Context(), &nodev1.ListImagesRequest{}); !apierr.IsForbidden(err) {
		t.Errorf("a call without a user: %v", err)
	}
	md := metadata.MD{}
	edge.Identity{User: "eve", Groups: []string{"guests"}}.Forward(edge.Headers(md))
	if _, err := n.agentAPI.ListImages(metadata.NewOutgoingContext(t.Context(), md), &nodev1.ListImagesRequest{}); !apierr.IsForbidden(err) {
		t.Errorf("a call for a guest: %v", err)
	}
	if _, err := n.agentAPI.ListImages(admin(t.Context()), &nodev1.ListImagesRequest{Target: &nodev1.Target{Node: "node-2"}}); !apierr.IsBadRequest(err) {
		t.Errorf("a call for another node: %v", err)
	}
}

func testAgentKilled(t *testing.T, n *node, web *corev1.Pod) {
	before := n.podUntil("web", "it is there", core.IsPodReady)
	lease, killed := n.lease(), time.Now()
	n.kill()
	// Without an agent the pods reach each other, and services, all the same; the next one disturbs
	// nothing.
	n.pod("meanwhile", "sleep 3600")
	n.run()
	n.podUntil("meanwhile", "a pod bound meanwhile runs", core.IsPodReady)
	after := n.podUntil("web", "it is still there", core.IsPodReady)
	if a, b := after.Status.ContainerStatuses[0], before.Status.ContainerStatuses[0]; !proto.Equal(a, b) || after.Status.PodIp != web.Status.PodIp {
		t.Errorf("the pod changed:\n%v\n%v", a, b)
	}
	n.until("the service answers", func() bool {
		out, code, err := n.exec("client", "", "sh", "-c", request)
		return err == nil && code == 0 && strings.HasSuffix(out, "hello from web\n")
	})
	// The node was there all the time: the next agent renews the lease of the one before, which it has
	// some six seconds for.
	if now := n.lease(); time.Since(killed) > 6*time.Second {
		t.Logf("it took %v until the next agent was there", time.Since(killed)) // a busy machine
	} else if now.Metadata.Uid != lease.Metadata.Uid || now.Metadata.ResourceVersion != lease.Metadata.ResourceVersion {
		t.Errorf("the node's lease object was replaced: it was\n%v\nand is\n%v", lease, now)
	}
}

func (n *node) lease() *coordinationv1.Lease {
	n.Helper()
	l, err := client.Get[*coordinationv1.Lease](n.Context(), n.client, "kube-node-lease", nodeName)
	if err != nil {
		n.Fatal(err)
	}
	return l
}

// An agent that starts while every master is away knows names and routes from the one before it,
// also when the kernel has forgotten all, as after a start of the machine.
func testControlPlaneAway(t *testing.T, n *node) {
	clienttest.Seed(n.api, &corev1.Node{
		Metadata: &metav1.ObjectMeta{Name: "node-2"}, Spec: &corev1.NodeSpec{PodCidr: "10.244.8.0/24"},
		Status: &corev1.NodeStatus{Addresses: []*corev1.NodeAddress{{Type: "InternalIP", Address: "10.99.0.1"}}},
	})
	kept := filepath.Join(n.daemon.Dir, "state", "cluster")
	n.until("the cluster is written down", func() bool {
		list, err := snapshot.Load(kept)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(list, func(o scheme.Object) bool { return o.GetMetadata().GetName() == "web" }) &&
			slices.ContainsFunc(list, func(o scheme.Object) bool { return o.GetMetadata().GetName() == "node-2" })
	})
	config, err := os.ReadFile(n.config)
	if err != nil {
		t.Fatal(err)
	}
	away := n.config + ".away"
	if err := os.WriteFile(away, bytes.ReplaceAll(config, []byte("10.99.0.1:6443"), []byte("10.99.0.9:6443")), 0o600); err != nil {
		t.Fatal(err)
	}
	usual := n.config
	for _, started := range []string{"agent", "machine"} {
		n.kill()
		if started == "machine" {
			if err := errors.Join(datapath.Remove(n.bpf), n.deleteRoute("10.244.8.0/24")); err != nil {
				t.Fatal(err)
			}
		}
		n.config = away
		n.run()
		n.until("names are answered", func() bool {
			addrs, err := n.lookup("web.default.svc.cluster.local.")
			return err == nil && slices.Equal(addrs, []string{"10.96.0.80"})
		})
		n.until("the service answers", func() bool {
			out, code, err := n.exec("client", "", "sh", "-c", request)
			return err == nil && code == 0 && strings.HasSuffix(out, "hello from web\n")
		})
		for _, addr := range []string{"10.99.0.2:30080", "10.99.0.2:8088"} {
			n.until(addr+" answers", func() bool {
				page, err := n.pageFrom(addr)
				return err == nil && strings.HasSuffix(page, "hello from web\n")
			})
		}
		n.until("there is a route to the other node", func() bool { return n.hasRoute("10.244.8.0/24") })
	}
	n.kill()
	n.config = usual
	n.run()
	n.until("the agent is back", func() bool {
		resp, err := n.agentAPI.ListServices(admin(t.Context()), &nodev1.ListServicesRequest{})
		return err == nil && len(resp.Services) > 0
	})
}

// A control plane that was restored from a backup of before the node joined gets to know it again,
// and is asked for the range that its pods have addresses of.
func testForgotten(t *testing.T, n *node) {
	clienttest.Remove(n.api, &corev1.Node{Metadata: &metav1.ObjectMeta{Name: nodeName}})
	n.until("the node asks for the range that it had", func() bool {
		now, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		if err != nil || now.GetMetadata().GetAnnotations()[core.AnnotationPodCIDRs] != "10.244.7.0/24" {
			return false
		}
		if now.GetSpec().GetPodCidr() != "" {
			t.Errorf("the node chose its range %s itself", now.GetSpec().GetPodCidr())
		}
		now = client.Clone(now)
		now.Spec = &corev1.NodeSpec{PodCidr: "10.244.7.0/24", PodCidrs: []string{"10.244.7.0/24"}}
		_, err = client.Update(t.Context(), n.client, now)
		return err == nil
	})
	n.until("the node registers again", func() bool {
		now, err := client.Get[*corev1.Node](t.Context(), n.client, "", nodeName)
		return err == nil && now.Spec.PodCidr == "10.244.7.0/24" && core.NodeCondition(now, core.NodeReady).GetStatus() == "True"
	})
	n.podUntil("web", "its pod runs on", core.IsPodReady)
}

// lookup asks the node's DNS server.
func (n *node) lookup(name string) ([]string, error) {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
		err = n.self.Do(func() (err error) {
			c, err = (&net.Dialer{}).DialContext(ctx, network, "10.96.0.10:53")
			return err
		})
		return c, err
	}}
	ctx, cancel := context.WithTimeout(n.Context(), time.Second)
	defer cancel()
	return r.LookupHost(ctx, name)
}

func (n *node) routes(cidr string) ([]netlink.Route, *netlink.Handle) {
	n.Helper()
	_, dst, err := net.ParseCIDR(cidr)
	if err != nil {
		n.Fatal(err)
	}
	h, err := n.self.Handle()
	if err != nil {
		n.Fatal(err)
	}
	list, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: dst}, netlink.RT_FILTER_DST)
	if err != nil {
		n.Fatal(err)
	}
	return list, h
}

func (n *node) hasRoute(cidr string) bool {
	list, h := n.routes(cidr)
	h.Close()
	return len(list) == 1
}

func (n *node) deleteRoute(cidr string) error {
	list, h := n.routes(cidr)
	defer h.Close()
	if len(list) != 1 {
		return fmt.Errorf("routes to %s: %v", cidr, list)
	}
	return h.RouteDel(&list[0])
}

// TestLabelsOfAdministrators refuses labels that the apiserver would refuse the node, with what to
// do instead.
func TestLabelsOfAdministrators(t *testing.T) {
	for label, ok := range map[string]bool{
		"disk=ssd": true, "example.com/disk=ssd": true, "topology.kubernetes.io/zone=a": true, "node.kubernetes.io/instance-type=small": true,
		"node-role.kubernetes.io/worker=": false, "node-restriction.kubernetes.io/tier=a": false, "kubernetes.io/role=db": false, "k8s.io/x=y": false,
	} {
		cfg := agent.DefaultConfig()
		cfg.Node, cfg.Labels = "node-1", []string{label}
		err := cfg.Validate()
		advised := err != nil && strings.Contains(err.Error(), "xebec label node node-1 "+label)
		if advised == ok || err != nil && strings.Contains(err.Error(), "labels:") == ok {
			t.Errorf("%s: %v", label, err)
		}
	}
}

func TestConfigProblemsAreAllNamed(t *testing.T) {
	cfg := agent.DefaultConfig()
	if cfg.PodPIDs != 4096 {
		t.Errorf("a pod may have %d processes by default, want 4096", cfg.PodPIDs)
	}
	cfg.Node, cfg.Address, cfg.ClusterCIDR, cfg.ClusterDNS, cfg.Labels = "No_Name", "nowhere", "10.96.0.0/12", "10.1.1.1", []string{"a b=c"}
	cfg.PodPIDs = 0
	err := cfg.Validate()
	if err == nil {
		t.Fatal("nonsense passes")
	}
	for _, want := range []string{"node:", "address:", "gateways: required", "tls.ca: required", "overlaps", "clusterDNS:", "labels:", "podPids: invalid value 0: want at least 1, or -1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
}
