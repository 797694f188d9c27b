package policy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/agent/podnet"
	"github.com/xebec-project/xebec/agent/policy"
	"github.com/xebec-project/xebec/internal/netlab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// node is a node with pods, and a machine outside, on one wire.
type node struct {
	t testing.TB
	*cluster
	lab      *netlab.Lab
	host     *netlab.Namespace
	outside  *netlab.Namespace
	pods     *podnet.Network
	cfg      policy.KernelConfig
	kernel   *policy.Kernel
	enforcer *policy.Enforcer
	stop     func()
	places   map[string]*netlab.Namespace
}

const (
	nodeIP    = "192.0.2.1"
	outsideIP = "192.0.2.100"
)

func newNode(t testing.TB, change ...func(*policy.KernelConfig)) *node {
	n := &node{t: t, cluster: newCluster(t), lab: netlab.New(t), places: map[string]*netlab.Namespace{}}
	n.host = n.lab.Host(netip.MustParsePrefix(nodeIP + "/24"))
	n.outside = n.lab.Host(netip.MustParsePrefix(outsideIP + "/24"))
	n.must(n.outside.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4(10, 244, 0, 0), Mask: net.CIDRMask(24, 32)}, Gw: net.ParseIP(nodeIP)})
	}))
	n.cfg = policy.KernelConfig{PinPath: filepath.Join(netlab.BPFFS(t), "policy")}
	for _, f := range change {
		f(&n.cfg)
	}
	n.must(n.host.Do(func() (err error) {
		n.pods, err = podnet.New(podnet.Config{
			PodCIDR: netip.MustParsePrefix("10.244.0.0/24"), ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"),
			NodeIP: netip.MustParseAddr(nodeIP), StateDir: t.TempDir(),
		})
		return err
	}))
	t.Cleanup(func() { n.pods.Close() })
	n.start()
	t.Cleanup(func() {
		n.stop()
		n.must(n.host.Do(func() error { return policy.Remove(n.cfg.PinPath) }))
	})
	n.namespace("default", "team=a")
	return n
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// start is an agent that starts: it knows nothing of the cluster yet.
func (n *node) start() {
	n.t.Helper()
	n.must(n.host.Do(func() (err error) { n.kernel, err = policy.Load(n.cfg); return err }))
	n.enforcer = policy.NewEnforcer(n.kernel, nil, zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.enforcer.Run(ctx) }()
	n.stop = func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			n.t.Errorf("the enforcer ended: %v", err)
		}
		n.must(n.kernel.Close())
	}
}

// namespace, running and policy tell the enforcer what they tell the cluster.
func (n *node) namespace(name, labels string) {
	n.cluster.namespace(name, labels)
	n.enforcer.OnNamespace(nil, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: name, Labels: pairs(labels)}})
}

// running connects a pod and has it admitted, as its worker does before anything
// in it runs.
func (n *node) running(name, labels, ports string) *netlab.Namespace {
	n.t.Helper()
	if n.places[name] == nil {
		n.places[name] = n.lab.Namespace()
	}
	pod := n.pod(name, "", labels, ports)
	result, err := n.pods.Setup(n.t.Context(), pod.Metadata.Uid, n.places[name].Path())
	n.must(err)
	n.must(n.enforcer.Admit(n.t.Context(), pod, []netip.Addr{result.IP}, policy.Endpoint{Index: result.Index, Netns: n.places[name].Path()}))
	pod.Status.PodIp = result.IP.String()
	n.OnPod(nil, pod)
	n.enforcer.OnPod(nil, pod)
	return n.places[name]
}

func (n *node) policy(text string) []*networkingv1.NetworkPolicy {
	n.t.Helper()
	out := n.policies(text)
	for _, np := range out {
		n.enforcer.OnPolicy(nil, np)
	}
	n.settle()
	return out
}

// settle waits until the kernel has what is known.
func (n *node) settle() {
	n.t.Helper()
	n.await("the policies to be enforced", func() bool { return n.enforcer.Settled() })
}

func (n *node) await(what string, done func() bool) {
	n.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			n.t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (n *node) ip(name string) string { return n.cluster.pods[name].Status.PodIp }

// serve answers at TCP and UDP ports of a namespace, to each line with the same.
func serve(t testing.TB, ns *netlab.Namespace, ports ...int) {
	t.Helper()
	for _, port := range ports {
		var l net.Listener
		var conn net.PacketConn
		err := ns.Do(func() (err error) {
			if l, err = net.Listen("tcp4", fmt.Sprint(":", port)); err != nil {
				return err
			}
			conn, err = net.ListenPacket("udp4", fmt.Sprint(":", port))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		t.Cleanup(func() { l.Close(); conn.Close(); serving.Wait() })
		serving.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				serving.Go(func() {
					defer c.Close()
					c.SetDeadline(time.Now().Add(time.Minute))
					io.Copy(c, c)
				})
			}
		})
		serving.Go(func() {
			buf := make([]byte, 1<<16)
			for {
				size, from, err := conn.ReadFrom(buf)
				if err != nil {
					return
				}
				conn.WriteTo(buf[:size], from)
			}
		})
	}
}

// What is allowed is waited for patiently, as a machine that has much else to do may take long;
// what is not, briefly: it is dropped.
const patience, brief = 20 * time.Second, 300 * time.Millisecond

// dial connects from a namespace.
func dial(from *netlab.Namespace, network, addr string) (net.Conn, error) {
	return dialFor(from, network, addr, patience)
}

func dialFor(from *netlab.Namespace, network, addr string, limit time.Duration) (c net.Conn, err error) {
	d := net.Dialer{Timeout: limit}
	d.SetMultipathTCP(false)
	err2 := from.Do(func() error { c, err = d.Dial(network, addr); return nil })
	return c, errors.Join(err, err2)
}

func ask(c net.Conn, question string, limit time.Duration) error {
	c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, question); err != nil {
		return err
	}
	buf := make([]byte, len(question))
	if _, err := io.ReadFull(c, buf); err != nil {
		return err
	}
	if string(buf) != question {
		return fmt.Errorf("sent %.20q, received %.20q", question, buf)
	}
	return nil
}

// reaches reports whether a question is answered in time.
func reaches(from *netlab.Namespace, network, addr string, limit time.Duration) bool {
	c, err := dialFor(from, network, addr, limit)
	if err != nil {
		return false
	}
	defer c.Close()
	return ask(c, "hello", limit) == nil
}

func (n *node) check(from *netlab.Namespace, network, addr string, want bool) {
	n.t.Helper()
	limit := brief
	if want {
		limit = patience
	}
	if got := reaches(from, network, addr, limit); got != want {
		n.t.Errorf("%s %s is answered: %v, want %v", network, addr, got, want)
	}
}

func TestPolicies(t *testing.T) {
	t.Run("tcx", func(t *testing.T) { testPolicies(t) })
	t.Run("clsact", func(t *testing.T) { testPolicies(t, func(c *policy.KernelConfig) { c.ClassicTC = true }) })
}

func testPolicies(t *testing.T, change ...func(*policy.KernelConfig)) {
	n := newNode(t, change...)
	n.enforcer.Know(policy.Everything)
	n.namespace("other", "team=b")
	web := n.running("default/web", "app=web", "")
	db := n.running("default/db", "app=db", "redis=6379")
	api := n.running("other/api", "app=api", "")
	serve(t, db, 6379, 6380, 53)
	serve(t, web, 80)
	serve(t, n.outside, 443, 444)
	serve(t, n.host, 8053)
	at := func(name string, port int) string { return fmt.Sprint(n.ip(name), ":", port) }

	n.check(web, "tcp4", at("default/db", 6379), true)
	n.check(n.outside, "tcp4", at("default/db", 6379), true)

	n.policy(`
metadata: {name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: redis}, {port: 53, protocol: UDP}]
  - from: [{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: api}}}]
    ports: [{port: 6380, endPort: 6390}]
  egress:
  - to: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]
    ports: [{port: 443}]`)
	n.check(web, "tcp4", at("default/db", 6379), true)
	n.check(web, "tcp4", at("default/db", 6380), false)
	n.check(web, "udp4", at("default/db", 53), true)
	n.check(web, "udp4", at("default/db", 6379), false)
	n.check(api, "tcp4", at("default/db", 6380), true)
	n.check(api, "tcp4", at("default/db", 6379), false)
	n.check(n.outside, "tcp4", at("default/db", 6379), false)
	n.check(n.host, "tcp4", at("default/db", 6379), true) // the node reaches its pods
	n.check(n.host, "udp4", at("default/db", 6380), true)
	n.check(db, "tcp4", outsideIP+":443", true)
	n.check(db, "tcp4", outsideIP+":444", false)
	n.check(db, "tcp4", at("default/web", 80), false)
	n.check(db, "tcp4", nodeIP+":8053", true) // and they reach it
	n.check(db, "udp4", nodeIP+":8053", true)
	n.check(db, "tcp4", at("default/db", 6380), true) // itself

	// Large datagrams come in fragments, of which only the first has ports.
	c, err := dial(web, "udp4", at("default/db", 53))
	n.must(err)
	defer c.Close()
	for range 5 { // A busy machine may lose one of them.
		if err = ask(c, strings.Repeat("x", 9000), 2*time.Second); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("a datagram in fragments: %v", err)
	}

	// A label more or less is enforced with the next packet.
	n.relabel("other/api", "app=other")
	n.check(api, "tcp4", at("default/db", 6380), false)
	n.relabel("other/api", "app=api")
	n.check(api, "tcp4", at("default/db", 6380), true)

	// Drops are reported.
	last, _, stop := n.enforcer.Drops()
	stop()
	found := false
	for _, d := range last {
		found = found || d.Pod == "default/db" && d.Direction == policy.Ingress && d.Peer == "default/web" && d.To().String() == at("default/db", 6380) &&
			d.Protocol == policy.TCP && d.Rule == "default/db selects default/db for ingress; no rule of this policy allows it"
	}
	if !found {
		t.Errorf("web's attempts at 6380 are not among the drops: %v", last)
	}
}

// relabel gives a pod other labels.
func (n *node) relabel(name, labels string) {
	n.t.Helper()
	old := n.cluster.pods[name]
	now := n.pod(name, old.Status.PodIp, labels, "")
	n.enforcer.OnPod(old, now)
	n.settle()
}

// Connections that policies allow outlive the agent, and its changes of other
// things; those that they no longer allow end.
func TestFlows(t *testing.T) {
	n := newNode(t)
	n.enforcer.Know(policy.Everything)
	web := n.running("default/web", "app=web", "")
	db := n.running("default/db", "app=db", "")
	serve(t, db, 80, 81)
	serve(t, web, 80)
	toDB := n.ip("default/db")

	// From before any policy: one in, and one out, whose peer speaks first.
	in, err := dial(web, "tcp4", toDB+":80")
	n.must(err)
	defer in.Close()
	n.must(ask(in, "hello", patience))
	var l net.Listener
	n.must(web.Do(func() (err error) { l, err = net.Listen("tcp4", ":9000"); return err }))
	defer l.Close()
	out, err := dial(db, "tcp4", n.ip("default/web")+":9000")
	n.must(err)
	defer out.Close()
	back, err := l.Accept()
	n.must(err)
	defer back.Close()

	deny := n.policy("metadata: {name: deny}\nspec: {podSelector: {matchLabels: {app: db}}}")
	if err := ask(in, "more", 500*time.Millisecond); err == nil {
		t.Error("a connection from before goes on, although nothing allows it any more")
	}
	if _, err := back.Write([]byte("push")); err != nil {
		t.Error(err)
	}
	out.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(out, make([]byte, 4)); err != nil {
		t.Errorf("the pod's own connection from before: %v", err)
	}

	n.policy("metadata: {name: allow}\nspec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}")
	kept, err := dial(web, "tcp4", toDB+":80")
	n.must(err)
	defer kept.Close()
	n.must(ask(kept, "hello", patience))

	// Without an agent, all goes on as it was.
	n.stop()
	n.must(ask(kept, "hello", patience))
	n.check(web, "tcp4", toDB+":80", true)
	n.check(web, "tcp4", toDB+":81", false)

	// An agent that has not heard of the cluster changes nothing either.
	n.start()
	n.running("default/web", "app=web", "")
	n.running("default/db", "app=db", "")
	n.must(ask(kept, "hello", patience))
	n.check(web, "tcp4", toDB+":80", true)
	n.check(web, "tcp4", toDB+":81", false)

	// One that has takes it from there.
	n.namespace("default", "team=a")
	for _, np := range deny {
		n.enforcer.OnPolicy(nil, np)
	}
	n.enforcer.OnPolicy(nil, n.policies("metadata: {name: allow}\nspec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}, {port: 81}]}]}")[0])
	n.enforcer.Know(policy.Everything)
	n.settle()
	n.must(ask(kept, "hello", patience))
	n.check(web, "tcp4", toDB+":81", true)

	// A pod that no policy selects any more is left alone.
	n.enforcer.OnPolicy(deny[0], nil)
	n.relabel("default/db", "app=free")
	n.check(n.outside, "tcp4", toDB+":81", true)
}

// Nothing passes between a pod's being connected and its policies' being known:
// it is not admitted before they are, and when it is they are enforced.
func TestFirstPacket(t *testing.T) {
	n := newNode(t)
	web := n.lab.Namespace()
	pod := n.pod("default/web", "", "app=web", "")
	serve(t, n.outside, 443)
	result, err := n.pods.Setup(t.Context(), pod.Metadata.Uid, web.Path())
	n.must(err)
	at := policy.Endpoint{Index: result.Index, Netns: web.Path()}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := n.enforcer.Admit(ctx, pod, []netip.Addr{result.IP}, at); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a pod is admitted before policies are known: %v", err)
	}
	n.enforcer.OnPolicy(nil, n.policies("metadata: {name: deny}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}")[0])
	admitted := make(chan error, 1)
	go func() { admitted <- n.enforcer.Admit(t.Context(), pod, []netip.Addr{result.IP}, at) }()
	n.enforcer.Know(policy.Remembered)
	n.must(<-admitted)
	// The very first packets.
	n.check(web, "tcp4", outsideIP+":443", false)
	n.check(web, "udp4", outsideIP+":443", false)
	n.check(web, "tcp4", nodeIP+":443", false) // without a listener: it is refused immediately
	if _, err := dial(web, "tcp4", nodeIP+":443"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the node itself: %v", err)
	}

	n.must(n.pods.Teardown(t.Context(), pod.Metadata.Uid))
	n.must(n.enforcer.Forget(pod.Metadata.Uid))
	if pods, peers, ports := n.kernel.Held(); pods != 0 || peers != 1 || ports != 1 {
		t.Errorf("after the last pod has gone, the maps hold %d pods, %d peers and %d ports", pods, peers, ports)
	}
}

// While policies and pods come and go, what is allowed all the time is never
// refused, and what never is never passes.
func TestChangesAreAtomic(t *testing.T) {
	n := newNode(t)
	n.enforcer.Know(policy.Everything)
	web := n.running("default/web", "app=web", "")
	db := n.running("default/db", "app=db", "")
	batch := n.running("default/batch", "app=batch", "")
	serve(t, db, 80, 81, 82)
	addr := n.ip("default/db")
	variants := []string{
		"{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}",
		"{from: [{podSelector: {}}], ports: [{port: 80}]}, {from: [{ipBlock: {cidr: 10.244.0.0/16}}], ports: [{port: 82}]}",
		"{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [192.0.2.0/24]}}], ports: [{port: 80, endPort: 80}, {port: 82}]}",
		"{from: [{ipBlock: {cidr: 10.244.0.0/24}}, {podSelector: {matchLabels: {app: web}}}], ports: [{port: 79, endPort: 80}]}",
	}
	policyOf := func(i int) string {
		return fmt.Sprintf("metadata: {name: db}\nspec: {podSelector: {matchLabels: {app: db}}, ingress: [%s]}", variants[i%len(variants)])
	}
	n.policy(policyOf(0))
	// A packet that is dropped is sent again, so that what passes late tells nothing; the drops do.
	_, drops, stop := n.enforcer.Drops()
	defer stop()

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var asking sync.WaitGroup
	kept, err := dial(web, "tcp4", addr+":80")
	n.must(err)
	defer kept.Close()
	asking.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if err := ask(kept, "kept", patience); err != nil {
				t.Errorf("a connection that is allowed all the time, asked %d times: %v", i, err)
				return
			}
			c, err := dial(web, "tcp4", addr+":80")
			if err != nil {
				t.Errorf("a new connection that is allowed all the time, the %dth: %v", i, err)
				return
			}
			c.Close()
		}
	})
	asking.Go(func() {
		for ctx.Err() == nil {
			if c, err := dialFor(batch, "tcp4", addr+":81", brief); err == nil {
				c.Close()
				t.Error("a connection that is never allowed passes")
				return
			}
		}
	})
	for i := 0; ctx.Err() == nil; i++ {
		n.policy(policyOf(i))
		n.relabel("default/batch", fmt.Sprint("app=batch n=", i))
	}
	asking.Wait()
	n.check(batch, "tcp4", addr+":83", false)
	for last := false; !last; {
		select {
		case d := <-drops:
			if from, to := d.From(), d.To(); to.String() == addr+":80" && from.Addr().String() == n.ip("default/web") || from.String() == addr+":80" {
				t.Errorf("dropped though allowed all the time: %+v", d)
			}
			last = d.To().String() == addr+":83"
		case <-time.After(patience):
			t.Fatal("the last drop is not reported")
		}
	}
}
