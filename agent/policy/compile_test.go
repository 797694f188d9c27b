package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/agent/policy"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/manifest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// cluster is built by the tests from few words.
type cluster struct {
	t testing.TB
	*policy.Cluster
	pods map[string]*corev1.Pod
}

func newCluster(t testing.TB) *cluster {
	return &cluster{t: t, Cluster: policy.NewCluster(), pods: map[string]*corev1.Pod{}}
}

func pairs(text string) map[string]string {
	out := map[string]string{}
	for word := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(word, "=")
		out[key] = value
	}
	return out
}

func (c *cluster) namespace(name, labels string) {
	c.OnNamespace(nil, &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: name, Labels: pairs(labels)}})
}

// pod adds a pod, named namespace/name, with its labels and its ports, such as
// "web=8080".
func (c *cluster) pod(name, ip, labels, ports string) *corev1.Pod {
	namespace, short, _ := strings.Cut(name, "/")
	p := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: short, Uid: "uid-" + strings.ReplaceAll(name, "/", "-"), Labels: pairs(labels)},
		Spec:     &corev1.PodSpec{Containers: []*corev1.Container{{}}},
		Status:   &corev1.PodStatus{PodIp: ip, Phase: "Running"},
	}
	for portName, number := range pairs(ports) {
		port := &corev1.ContainerPort{Name: portName, Protocol: "TCP"}
		if text, ok := strings.CutSuffix(number, "/UDP"); ok {
			number, port.Protocol = text, "UDP"
		}
		fmt.Sscan(number, &port.ContainerPort)
		p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, port)
	}
	c.OnPod(c.pods[name], p)
	c.pods[name] = p
	return p
}

// policies adds NetworkPolicies from a manifest, as the API would store them.
func (c *cluster) policies(text string) []*networkingv1.NetworkPolicy {
	c.t.Helper()
	var out []*networkingv1.NetworkPolicy
	for i, doc := range strings.Split(text, "---\n") {
		if !strings.Contains(doc, "kind:") {
			doc = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n" + doc
		}
		docs, err := manifest.Decode(fmt.Sprint("document ", i), strings.NewReader(doc))
		if err != nil {
			c.t.Fatal(err)
		}
		for _, d := range docs {
			np := d.Object.(*networkingv1.NetworkPolicy)
			if np.Metadata.Namespace == "" {
				np.Metadata.Namespace = "default"
			}
			k := kinds.Of(np)
			k.Default(np)
			if errs := k.Validate(np); len(errs) > 0 {
				c.t.Fatal(errs.ToAggregate())
			}
			if _, err := c.OnPolicy(nil, np); err != nil {
				c.t.Fatal(err)
			}
			out = append(out, np)
		}
	}
	return out
}

// compile returns what the kernel of a node with all pods would know.
func (c *cluster) compile() policy.Wanted {
	var local []*policy.Pod
	for _, p := range c.pods {
		local = append(local, policy.PodOf(p))
	}
	return policy.Compile(c.Cluster, local)
}

// find does what the programs do.
func find(w policy.Wanted, set string, peer netip.Addr, protocol policy.Protocol, port uint16) bool {
	if set == "" {
		return true
	}
	peer = netip.AddrFrom16(peer.As16())
	for bits := 128; bits >= 0; bits-- {
		if ports, ok := w.Sets[set].Peers[netip.PrefixFrom(peer, bits).Masked()]; ok {
			return ports.Contains(protocol, port)
		}
	}
	panic("a set without a prefix for all")
}

// allows tells what the programs at both ends would do.
func (c *cluster) allows(w policy.Wanted, from, to netip.Addr, protocol policy.Protocol, port uint16) bool {
	for _, p := range c.pods {
		if from == to || p.GetSpec().GetHostNetwork() {
			continue // it never gets to a program
		}
		sets := w.Pods[p.Metadata.Uid]
		if p.Status.PodIp == from.String() && !find(w, sets.Egress, to, protocol, port) || p.Status.PodIp == to.String() && !find(w, sets.Ingress, from, protocol, port) {
			return false
		}
	}
	return true
}

func (c *cluster) addr(name string) netip.Addr {
	if p := c.pods[name]; p != nil {
		return netip.MustParseAddr(p.Status.PodIp)
	}
	return netip.MustParseAddr(name)
}

// expect checks lines such as "default/web -> default/db TCP/80 yes", by what is
// compiled and by what Verdict says.
func (c *cluster) expect(lines string) {
	c.t.Helper()
	w := c.compile()
	for line := range strings.Lines(lines) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		name, number, _ := strings.Cut(f[3], "/")
		var port uint16
		fmt.Sscan(number, &port)
		protocol, ok := policy.ParseProtocol(name)
		if !ok {
			protocol = 1 // ICMP
		}
		from, to, want := c.addr(f[0]), c.addr(f[2]), f[4] == "yes"
		if got := c.allows(w, from, to, protocol, port); got != want {
			c.t.Errorf("%s -> %s %s: compiled to %v", f[0], f[2], f[3], got)
		}
		got, rule := c.Verdict(from, to, protocol, port)
		if got != want {
			c.t.Errorf("%s -> %s %s: judged as %v: %s", f[0], f[2], f[3], got, rule)
		}
		if said := strings.Join(f[5:], " "); !strings.Contains(rule, said) {
			c.t.Errorf("%s -> %s %s: the rule is %q, want %q", f[0], f[2], f[3], rule, said)
		}
	}
}

// The recipes of the documentation of Kubernetes, and what its words say of each
// field.
func TestRecipes(t *testing.T) {
	tests := []struct{ name, policies, want string }{
		{"none", "", `
			default/web -> default/db TCP/80 yes no policy selects default/db for ingress
			8.8.8.8 -> 9.9.9.9 TCP/80 yes neither end is a pod`},
		{"deny all ingress", "metadata: {name: deny}\nspec: {podSelector: {}, policyTypes: [Ingress]}", `
			default/web -> default/db TCP/80 no default/deny selects default/db for ingress; no rule of this policy allows it
			default/web -> default/web TCP/80 yes a pod always reaches itself
			default/web -> other/api TCP/80 yes
			other/api -> default/web ICMP no
			8.8.8.8 -> default/web TCP/80 no
			default/web -> 8.8.8.8 TCP/80 yes`},
		{"deny all egress", "metadata: {name: deny}\nspec: {podSelector: {}, policyTypes: [Egress]}", `
			default/web -> default/db TCP/80 no default/deny selects default/web for egress
			other/api -> default/web TCP/80 yes
			default/web -> 8.8.8.8 UDP/53 no`},
		{"deny all", "metadata: {name: deny}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}", `
			default/web -> default/db TCP/80 no
			other/api -> default/db TCP/80 no
			default/db -> other/api TCP/80 no
			other/api -> other/ui TCP/80 yes`},
		{"allow all ingress", "metadata: {name: deny}\nspec: {podSelector: {}}\n---\nmetadata: {name: all}\nspec: {podSelector: {}, ingress: [{}]}", `
			default/web -> default/db TCP/80 yes default/all allows it by its ingress rule 1
			8.8.8.8 -> default/db ICMP yes`},
		{"allow all egress", "metadata: {name: deny}\nspec: {podSelector: {}, policyTypes: [Egress]}\n---\nmetadata: {name: all}\nspec: {podSelector: {}, egress: [{}], policyTypes: [Egress]}", `
			default/web -> 8.8.8.8 TCP/80 yes`},
		{"policy types by default", "metadata: {name: p}\nspec: {podSelector: {}, egress: [{}]}", `
			default/web -> 8.8.8.8 TCP/80 yes
			8.8.8.8 -> default/web TCP/80 no`},
		{"the documentation's example", `
metadata: {name: test}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
    - namespaceSelector: {matchLabels: {team: b}}
    - podSelector: {matchLabels: {app: web}}
    ports: [{protocol: TCP, port: 6379}]
  egress:
  - to: [{ipBlock: {cidr: 10.0.0.0/24}}]
    ports: [{protocol: TCP, port: 5978}]`, `
			172.17.2.1 -> default/db TCP/6379 yes
			172.17.1.1 -> default/db TCP/6379 no
			172.18.0.1 -> default/db TCP/6379 no
			172.17.2.1 -> default/db TCP/6380 no
			172.17.2.1 -> default/db UDP/6379 no
			default/web -> default/db TCP/6379 yes
			default/batch -> default/db TCP/6379 no
			other/api -> default/db TCP/6379 yes
			third/web -> default/db TCP/6379 no
			default/db -> 10.0.0.9 TCP/5978 yes
			default/db -> 10.0.0.9 TCP/80 no
			default/db -> 10.0.1.9 TCP/5978 no
			default/web -> default/batch TCP/80 yes`},
		{"namespace and pod together", `
metadata: {name: p}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {team: b}}
      podSelector: {matchLabels: {app: api}}`, `
			other/api -> default/db TCP/1 yes
			other/ui -> default/db TCP/1 no
			default/api -> default/db TCP/1 no
			default/web -> default/db TCP/1 no`},
		{"namespace or pod", `
metadata: {name: p}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from:
    - namespaceSelector: {matchLabels: {team: b}}
    - podSelector: {matchLabels: {app: api}}`, `
			other/api -> default/db TCP/1 yes
			other/ui -> default/db TCP/1 yes
			default/api -> default/db TCP/1 yes
			default/web -> default/db TCP/1 no`},
		{"all namespaces", "metadata: {name: p}\nspec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {}}]}]}", `
			third/web -> default/db TCP/1 yes
			8.8.8.8 -> default/db TCP/1 no`},
		{"a namespace by its name", `
metadata: {name: p}
spec:
  podSelector: {}
  egress:
  - to: [{namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [other, none]}]}}]
  policyTypes: [Egress]`, `
			default/web -> other/api TCP/1 yes
			default/web -> third/web TCP/1 no`},
		{"port range", "metadata: {name: p}\nspec: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{port: 32000, endPort: 32768}]}], policyTypes: [Egress]}", `
			default/web -> 10.0.0.1 TCP/31999 no
			default/web -> 10.0.0.1 TCP/32000 yes
			default/web -> 10.0.0.1 TCP/32768 yes
			default/web -> 10.0.0.1 TCP/32769 no`},
		{"all ports of a protocol", "metadata: {name: p}\nspec: {podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}", `
			default/web -> default/db UDP/9 yes
			default/web -> default/db TCP/9 no
			default/web -> default/db ICMP no`},
		{"named ports of those selected", "metadata: {name: p}\nspec: {podSelector: {}, ingress: [{ports: [{port: http}]}]}", `
			default/db -> default/web TCP/8080 yes
			default/db -> default/web TCP/9090 no
			default/web -> default/api TCP/9090 yes
			default/web -> default/api TCP/8080 no
			default/web -> default/db TCP/8080 no`},
		{"named ports of peers", `
metadata: {name: p}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Egress]
  egress:
  - ports: [{port: http}]
  - to: [{podSelector: {matchLabels: {app: batch}}}]
    ports: [{port: dns, protocol: UDP}, {port: 7}]`, `
			default/db -> default/web TCP/8080 yes
			default/db -> default/api TCP/9090 yes
			default/db -> default/api TCP/8080 no
			default/db -> default/batch UDP/53 yes
			default/db -> default/batch TCP/53 no
			default/db -> default/batch TCP/7 yes
			default/db -> 8.8.8.8 TCP/8080 no`},
		{"policies add up", `
metadata: {name: a}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 1}]}]}
---
metadata: {name: b}
spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: 2, endPort: 3}]}, {from: [{ipBlock: {cidr: 10.244.0.0/16}}], ports: [{port: 4}]}]}`, `
			default/web -> default/db TCP/1 yes default/a allows it by its ingress rule 1
			default/web -> default/db TCP/2 yes default/b allows it by its ingress rule 1
			default/web -> default/db TCP/4 yes default/b allows it by its ingress rule 2
			other/api -> default/db TCP/4 yes
			other/api -> default/db TCP/3 no default/a, default/b select default/db for ingress; no rule of these policies allows it
			default/batch -> default/db TCP/1 no`},
		{"an exception that another rule allows", `
metadata: {name: p}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.168.0.0/16]}}]
  - to: [{ipBlock: {cidr: 10.9.0.0/16, except: [10.9.9.0/24]}}, {ipBlock: {cidr: 10.9.9.9/32}}]
    ports: [{port: 443}]`, `
			default/web -> 8.8.8.8 TCP/1 yes
			default/web -> 10.0.0.1 TCP/443 no
			default/web -> 10.9.1.1 TCP/443 yes
			default/web -> 10.9.1.1 TCP/1 no
			default/web -> 10.9.9.1 TCP/443 no
			default/web -> 10.9.9.9 TCP/443 yes
			default/web -> 192.168.1.1 TCP/443 no
			default/web -> 2001:db8::1 TCP/443 no`},
		{"IPv6", "metadata: {name: p}\nspec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: '2001:db8::/32', except: ['2001:db8:1::/48']}}]}]}", `
			default/web -> 2001:db8::1 TCP/1 yes
			default/web -> 2001:db8:1::1 TCP/1 no
			default/web -> 8.8.8.8 TCP/1 no`},
		{"an expression", "metadata: {name: p}\nspec: {podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db, web]}]}}", `
			default/web -> default/db TCP/1 yes
			default/db -> default/batch TCP/1 no
			default/db -> default/api TCP/1 no`},
		{"pods in the node's network", "metadata: {name: p}\nspec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: host}}}]}]}", `
			default/web -> default/host TCP/1 yes
			default/host -> default/web TCP/1 no`},
		{"pods that have finished", "metadata: {name: p}\nspec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: done}}}]}]}", `
			10.244.9.9 -> default/web TCP/1 no`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			c.namespace("default", "kubernetes.io/metadata.name=default team=a")
			c.namespace("other", "kubernetes.io/metadata.name=other team=b")
			c.namespace("third", "kubernetes.io/metadata.name=third")
			c.pod("default/web", "10.244.0.1", "app=web", "http=8080")
			c.pod("default/db", "10.244.0.2", "app=db", "")
			c.pod("default/batch", "10.244.0.3", "app=batch", "dns=53/UDP")
			c.pod("default/api", "10.244.0.4", "app=api", "http=9090")
			c.pod("other/api", "10.244.1.1", "app=api", "http=9090")
			c.pod("other/ui", "10.244.1.2", "app=ui", "")
			c.pod("third/web", "10.244.2.1", "app=web", "")
			c.pod("default/host", "192.0.2.1", "app=host", "").Spec.HostNetwork = true
			c.OnPod(nil, c.pods["default/host"])
			c.pod("default/done", "10.244.9.9", "app=done", "").Status.Phase = "Succeeded"
			c.OnPod(nil, c.pods["default/done"])
			if tt.policies != "" {
				c.policies(tt.policies)
			}
			c.expect(tt.want)
		})
	}
}

// Pods that the same policies select have the same sets, unless names of ports
// stand for something else in them.
func TestSetsAreShared(t *testing.T) {
	c := newCluster(t)
	c.namespace("default", "")
	for i := range 20 {
		c.pod(fmt.Sprint("default/web-", i), fmt.Sprint("10.244.0.", i+1), "app=web", fmt.Sprint("http=", 8080+i%2))
	}
	c.policies("metadata: {name: p}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}], egress: [{}]}")
	if w := c.compile(); len(w.Pods) != 20 || len(w.Sets) != 2 {
		t.Errorf("%d pods have %d sets", len(w.Pods), len(w.Sets))
	}
	c.policies("metadata: {name: q}\nspec: {podSelector: {}, ingress: [{ports: [{port: http}]}]}")
	if w := c.compile(); len(w.Sets) != 3 {
		t.Errorf("with names of two meanings, %d sets", len(w.Sets))
	}
}

// An address that was passed on is the younger pod's.
func TestReusedAddress(t *testing.T) {
	c := newCluster(t)
	c.namespace("default", "")
	c.pod("default/db", "10.244.0.1", "app=db", "")
	old := c.pod("default/old", "10.244.0.2", "app=web", "")
	old.Metadata.CreationTimestamp = nil
	young := c.pod("default/young", "10.244.0.2", "app=batch", "")
	young.Metadata.Uid = "zzz"
	c.OnPod(nil, young)
	c.policies("metadata: {name: p}\nspec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}")
	c.expect("default/young -> default/db TCP/1 no")
	c.OnPod(young, nil)
	delete(c.pods, "default/young")
	c.expect("default/old -> default/db TCP/1 yes")
}

// Random policies are compiled to what they say one by one.
func TestCompiledSetsMatchVerdicts(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 88))
		c := newCluster(t)
		pick := func(of ...string) string { return of[r.IntN(len(of))] }
		var addrs []netip.Addr
		for n := range 3 {
			c.namespace(fmt.Sprint("ns", n), "team="+pick("a", "b"))
			for p := range 4 {
				ip := fmt.Sprintf("10.0.%d.%d", n, p)
				c.pod(fmt.Sprintf("ns%d/pod%d", n, p), ip, "app="+pick("x", "y", "z"), "http="+pick("80", "81", "53/UDP"))
				addrs = append(addrs, netip.MustParseAddr(ip))
			}
		}
		for range 10 {
			addrs = append(addrs, netip.AddrFrom4([4]byte{10, byte(r.IntN(2)), byte(r.IntN(4)), byte(r.IntN(256))}))
		}
		for i := range 1 + r.IntN(6) {
			c.policies(randomPolicy(r, i))
		}
		w := c.compile()
		for _, from := range addrs {
			for _, to := range addrs {
				if from == to {
					continue
				}
				for _, port := range []uint16{53, 80, 81, 82, 90} {
					protocol := []policy.Protocol{policy.TCP, policy.UDP, 1}[r.IntN(3)]
					if protocol == 1 {
						port = 0
					}
					want, rule := c.Verdict(from, to, protocol, port)
					if got := c.allows(w, from, to, protocol, port); got != want {
						t.Fatalf("seed %d: %v -> %v %v/%d: compiled to %v, but %s", seed, from, to, protocol, port, got, rule)
					}
				}
			}
		}
	}
}

func randomPolicy(r *rand.Rand, i int) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	selector := func() string {
		return pick("{}", "{matchLabels: {app: x}}", "{matchExpressions: [{key: app, operator: NotIn, values: [y]}]}")
	}
	peer := func() string {
		switch r.IntN(4) {
		case 0:
			return "{podSelector: " + selector() + "}"
		case 1:
			return "{namespaceSelector: " + pick("{}", "{matchLabels: {team: a}}") + "}"
		case 2:
			return "{namespaceSelector: " + pick("{}", "{matchLabels: {team: b}}") + ", podSelector: " + selector() + "}"
		}
		bits := r.IntN(9)
		except := ""
		if bits < 8 {
			addr := netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(4)), 0})
			except = fmt.Sprintf(", except: [%s]", netip.PrefixFrom(addr, 16+bits+1+r.IntN(8-bits)).Masked())
		}
		if !strings.Contains(except, "/") {
			return fmt.Sprintf("{ipBlock: {cidr: 10.0.%d.%d/32}}", r.IntN(4), r.IntN(8))
		}
		return fmt.Sprintf("{ipBlock: {cidr: 10.0.0.0/%d%s}}", 8+r.IntN(9), except)
	}
	list := func(n int, f func() string) string {
		var out []string
		for range n {
			out = append(out, f())
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	port := func() string {
		return pick("{port: 80}", "{port: http}", "{port: 80, endPort: 82}", "{protocol: UDP}", "{port: 53, protocol: UDP}", "{port: 81, endPort: 90}", "{port: http, protocol: UDP}")
	}
	rule := func(peers string) func() string {
		return func() string {
			var parts []string
			if r.IntN(4) > 0 {
				parts = append(parts, peers+": "+list(1+r.IntN(3), peer))
			}
			if r.IntN(4) > 0 {
				parts = append(parts, "ports: "+list(1+r.IntN(2), port))
			}
			return "{" + strings.Join(parts, ", ") + "}"
		}
	}
	return fmt.Sprintf("metadata: {name: p%d, namespace: ns%d}\nspec: {podSelector: %s, policyTypes: [%s], ingress: %s, egress: %s}",
		i, r.IntN(3), selector(), pick("Ingress", "Egress", "Ingress, Egress"), list(r.IntN(3), rule("from")), list(r.IntN(3), rule("to")))
}

func TestPortsAreWrittenOneWay(t *testing.T) {
	tests := []struct {
		ranges []policy.Range
		want   policy.Ports
	}{
		{nil, ""},
		{[]policy.Range{{policy.TCP, 80, 80}, {0, 0, 65535}}, "*"},
		{[]policy.Range{{policy.TCP, 80, 80}, {policy.TCP, 80, 80}}, "TCP/80"},
		{[]policy.Range{{policy.UDP, 53, 53}, {policy.TCP, 90, 100}, {policy.TCP, 80, 89}}, "TCP/80-100,UDP/53"},
		{[]policy.Range{{policy.TCP, 65535, 65535}, {policy.TCP, 0, 65534}}, "TCP/0-65535"},
		{[]policy.Range{{policy.TCP, 1, 100}, {policy.TCP, 50, 60}, {policy.TCP, 102, 103}}, "TCP/1-100,TCP/102-103"},
	}
	for _, tt := range tests {
		got := policy.PortsOf(tt.ranges)
		if got != tt.want {
			t.Errorf("%v is %q, want %q", tt.ranges, got, tt.want)
		}
		if back := policy.PortsOf(got.Ranges()); back != got {
			t.Errorf("%q comes back as %q", got, back)
		}
	}
}

func TestRangesAsPrefixes(t *testing.T) {
	for _, tt := range []struct{ first, last uint16 }{{0, 65535}, {80, 80}, {1, 65534}, {32000, 32768}, {65535, 65535}, {8000, 8999}, {0, 0}} {
		var seen []uint16
		for _, p := range policy.Prefixes(policy.Range{Protocol: policy.TCP, First: tt.first, Last: tt.last}) {
			for n := range uint32(1) << (16 - p.Bits) {
				seen = append(seen, p.Port+uint16(n))
			}
		}
		if len(seen) != int(tt.last)-int(tt.first)+1 || seen[0] != tt.first || seen[len(seen)-1] != tt.last || !slices.IsSorted(seen) {
			t.Errorf("%d-%d: %d ports", tt.first, tt.last, len(seen))
		}
	}
}
