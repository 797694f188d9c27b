package kind_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kind"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

func TestConfigMap(t *testing.T) {
	testValidate(t, configMap, []badCase[*corev1.ConfigMap]{
		{"keys", func(m *corev1.ConfigMap) {
			m.Data, m.BinaryData = map[string]string{"a/b": "", "c": "", "..": ""}, map[string][]byte{"c": nil}
		}, []string{`data[..]: Invalid value: ".."`, `data[a/b]: Invalid value: "a/b": a valid config key must consist of`, `data[c]: Invalid value: "c": duplicate of key present in binaryData`}},
		{"1 MiB", func(m *corev1.ConfigMap) {
			m.Data, m.BinaryData = map[string]string{"a": strings.Repeat("x", 1<<19)}, map[string][]byte{"b": make([]byte, 1<<19)}
		}, nil},
		{"more", func(m *corev1.ConfigMap) {
			m.Data, m.BinaryData = map[string]string{"a": strings.Repeat("x", 1<<19)}, map[string][]byte{"b": make([]byte, 1<<19+1)}
		}, []string{"data: Too long: may not be more than 1048576 bytes, binaryData included"}},
	})
	fixed := func() *corev1.ConfigMap {
		m := configMap()
		m.Data, m.Immutable = map[string]string{"a": "b"}, proto.Bool(true)
		return m
	}
	testUpdate(t, fixed, []updateCase[*corev1.ConfigMap]{
		{"labels", func(m *corev1.ConfigMap) { m.Metadata.Labels = map[string]string{"a": "b"} }, nil},
		{"data", func(m *corev1.ConfigMap) { m.Data["a"] = "c" }, []string{"data: Forbidden: field is immutable when `immutable` is set"}},
		{"unlocked", func(m *corev1.ConfigMap) { m.Immutable = nil }, []string{"immutable: Forbidden"}},
	})
	expectCells(t, fixed(), now, map[string]string{"DATA": "1"})
}

func TestSecret(t *testing.T) {
	secret := func() *corev1.Secret { return &corev1.Secret{Metadata: meta("key")} }
	of := func(typ string, keys ...string) func(*corev1.Secret) {
		return func(s *corev1.Secret) {
			s.Type, s.Data = typ, map[string][]byte{}
			for _, k := range keys {
				s.Data[k] = []byte("x")
			}
		}
	}
	testValidate(t, secret, []badCase[*corev1.Secret]{
		{"key", of("", "a b"), []string{`data[a b]: Invalid value: "a b"`}},
		{"too long", func(s *corev1.Secret) { s.Data = map[string][]byte{"a": make([]byte, 1<<20+1)} }, []string{"data: Too long: may not be more than 1048576 bytes"}},
		{"TLS", of("kubernetes.io/tls", "tls.crt"), []string{"data[tls.key]: Required value"}},
		{"whole TLS", of("kubernetes.io/tls", "tls.crt", "tls.key"), nil},
		{"basic", of("kubernetes.io/basic-auth"), []string{"data[username]: Required value", "data[password]: Required value"}},
		{"basic with a name", of("kubernetes.io/basic-auth", "username"), nil},
		{"SSH", of("kubernetes.io/ssh-auth"), []string{"data[ssh-privatekey]: Required value"}},
		{"docker", of("kubernetes.io/dockerconfigjson"), []string{"data[.dockerconfigjson]: Required value"}},
		{"docker, no JSON", of("kubernetes.io/dockerconfigjson", ".dockerconfigjson"), []string{`data[.dockerconfigjson]: Invalid value: "<secret contents redacted>"`}},
		{"old docker", of("kubernetes.io/dockercfg"), []string{"data[.dockercfg]: Required value"}},
		{"token", of("kubernetes.io/service-account-token"), []string{"metadata.annotations[kubernetes.io/service-account.name]: Required value"}},
		{"own type", of("example.com/own"), nil},
	})
	s := secret()
	s.Data, s.StringData = map[string][]byte{"a": []byte("old"), "b": []byte("kept")}, map[string]string{"a": "new"}
	kind.Of(s).Default(s)
	if s.GetType() != "Opaque" || string(s.GetData()["a"]) != "new" || string(s.GetData()["b"]) != "kept" || s.GetStringData() != nil {
		t.Errorf("defaults give %v", s)
	}
	testUpdate(t, secret, []updateCase[*corev1.Secret]{
		{"type", func(s *corev1.Secret) { s.Type = "x/y" }, []string{`type: Invalid value: "x/y": field is immutable`}},
		{"data", func(s *corev1.Secret) { s.Data = map[string][]byte{"a": nil} }, nil},
	})
	testUpdate(t, func() *corev1.Secret {
		s := secret()
		s.Immutable = proto.Bool(true)
		return s
	}, []updateCase[*corev1.Secret]{
		{"locked", func(s *corev1.Secret) { s.StringData = map[string]string{"a": ""} }, []string{"data: Forbidden"}},
	})
	expectCells(t, s, now, map[string]string{"TYPE": "Opaque", "DATA": "2"})
}

func TestNamespace(t *testing.T) {
	n := &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "shop"}}
	k := kind.Of(n)
	k.PrepareCreate(n)
	k.Default(n)
	k.PrepareCreate(n)
	if errs := k.Validate(n); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
	if n.GetStatus().GetPhase() != "Active" || len(n.GetMetadata().GetFinalizers()) != 1 || n.GetMetadata().GetLabels()["kubernetes.io/metadata.name"] != "shop" {
		t.Errorf("namespace %v", n)
	}
	expectCells(t, n, now, map[string]string{"STATUS": "Active"})
	n.Metadata.DeletionTimestamp = ago(0)
	expectCells(t, n, now, map[string]string{"STATUS": "Terminating"})
	n.Metadata.Name = strings.Repeat("a", 64)
	n.Spec = &corev1.NamespaceSpec{Finalizers: []string{"mine"}}
	expect(t, k.Validate(n), []string{`metadata.name: Invalid value: "aaa`, `spec.finalizers[0]: Invalid value: "mine"`})
	old := &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "shop"}, Spec: &corev1.NamespaceSpec{Finalizers: []string{"kubernetes"}}}
	kind.Of(n).PrepareUpdate(n, old)
	if got := n.GetSpec().GetFinalizers(); !slices.Equal(got, []string{"kubernetes"}) {
		t.Errorf("an update changed the finalizers to %q", got)
	}
}

func TestNode(t *testing.T) {
	node := func() *corev1.Node { return &corev1.Node{Metadata: &metav1.ObjectMeta{Name: "node-1"}} }
	testValidate(t, node, []badCase[*corev1.Node]{
		{"taints", func(n *corev1.Node) {
			n.Spec = &corev1.NodeSpec{Taints: []*corev1.Taint{
				{Key: "a", Effect: "NoSchedule"}, {Key: "a", Effect: "NoExecute"}, {Key: "a", Effect: "NoSchedule"}, {Effect: "NoSchedule"}, {Key: "b", Effect: "Never"}, {Key: "c"},
			}}
		}, []string{`spec.taints[2]: Duplicate value: "a/NoSchedule"`, `spec.taints[3].key: Invalid value: ""`, `spec.taints[3].key: Invalid value: ""`, `spec.taints[4].effect: Unsupported value: "Never"`, "spec.taints[5].effect: Required value"}},
		{"pod CIDR", func(n *corev1.Node) { n.Spec = &corev1.NodeSpec{PodCidr: "10.244.0.0/33"} }, []string{`spec.podCIDRs[0]: Invalid value: "10.244.0.0/33"`}},
		{"two of a family", func(n *corev1.Node) { n.Spec = &corev1.NodeSpec{PodCidrs: []string{"10.244.0.0/24", "10.244.1.0/24"}} }, []string{"spec.podCIDRs: Invalid value"}},
		{"capacity", func(n *corev1.Node) { n.Status = &corev1.NodeStatus{Capacity: amounts("cpu", "-1")} },
			[]string{`status.capacity[cpu]: Invalid value: "-1"`, `status.allocatable[cpu]: Invalid value: "-1"`}},
	})
	testUpdate(t, func() *corev1.Node {
		n := node()
		n.Spec = &corev1.NodeSpec{PodCidr: "10.244.0.0/24"}
		return n
	}, []updateCase[*corev1.Node]{
		{"cordon", func(n *corev1.Node) { n.Spec.Unschedulable = true }, nil},
		{"other CIDR", func(n *corev1.Node) { n.Spec.PodCidr, n.Spec.PodCidrs = "10.244.1.0/24", nil }, []string{"spec.podCIDRs: Forbidden"}},
		{"no CIDR", func(n *corev1.Node) { n.Spec = nil }, []string{"spec.podCIDRs: Forbidden"}},
		{"external ID", func(n *corev1.Node) { n.Spec.ExternalId = "a" }, []string{"spec.externalID: Forbidden: may not be updated"}},
		{"empty configuration source", func(n *corev1.Node) { n.Spec.ConfigSource = &corev1.NodeConfigSource{} }, []string{"spec.configSource: Invalid value"}},
		{"configuration source", func(n *corev1.Node) {
			n.Spec.ConfigSource = &corev1.NodeConfigSource{ConfigMap: &corev1.ConfigMapNodeConfigSource{Namespace: "default", Uid: "1", KubeletConfigKey: "a b"}}
		}, []string{
			"spec.configSource.configMap.uid: Forbidden", "spec.configSource.configMap.name: Required value", "spec.configSource.configMap.kubeletConfigKey: Invalid value",
		}},
	})

	n := node()
	n.Status = &corev1.NodeStatus{Capacity: amounts("cpu", "4")}
	k := kind.Of(n)
	k.PrepareCreate(n)
	k.Default(n)
	if n.GetStatus().GetAllocatable()["cpu"].GetString_() != "4" {
		t.Error("a node that registers itself loses its status")
	}
	expectCells(t, n, now, map[string]string{"STATUS": "Unknown", "ROLES": "<none>", "INTERNAL-IP": "<none>", "OS-IMAGE": "<unknown>"})
	n.Metadata.Labels = map[string]string{"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/edge": "", "kubernetes.io/role": "worker"}
	n.Spec = &corev1.NodeSpec{Unschedulable: true}
	n.Status.Conditions = []*corev1.NodeCondition{{Type: "Ready", Status: "True"}}
	n.Status.Addresses = []*corev1.NodeAddress{{Type: "Hostname", Address: "node-1"}, {Type: "InternalIP", Address: "192.0.2.1"}}
	n.Status.NodeInfo = &corev1.NodeSystemInfo{KubeletVersion: "v0.1.0", ContainerRuntimeVersion: "containerd://1.7.0"}
	expectCells(t, n, now, map[string]string{
		"STATUS": "Ready,SchedulingDisabled", "ROLES": "edge,worker", "VERSION": "v0.1.0", "INTERNAL-IP": "192.0.2.1", "CONTAINER-RUNTIME": "containerd://1.7.0",
	})
	n.Status.Conditions[0].Status = "Unknown"
	expectCells(t, n, now, map[string]string{"STATUS": "NotReady,SchedulingDisabled"})
}

func TestEvent(t *testing.T) {
	event := func() *corev1.Event {
		return &corev1.Event{
			Metadata: meta("web.1"), Reason: "Started", Message: "Started container web\n",
			InvolvedObject: &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "web"},
		}
	}
	testValidate(t, event, []badCase[*corev1.Event]{
		{"other namespace", func(e *corev1.Event) { e.InvolvedObject.Namespace = "shop" }, []string{`involvedObject.namespace: Invalid value: "shop": does not match event.namespace`}},
		{"a node's", func(e *corev1.Event) { e.InvolvedObject = &corev1.ObjectReference{Kind: "Node", Name: "n"} }, nil},
		{"a node's elsewhere", func(e *corev1.Event) {
			e.InvolvedObject, e.Metadata.Namespace = &corev1.ObjectReference{Kind: "Node", Name: "n"}, "shop"
		}, []string{"involvedObject.namespace: Invalid value"}},
		{"old form with any type", func(e *corev1.Event) { e.Type = "Loud" }, nil},
	})
	dated := func() *corev1.Event {
		e := event()
		e.EventTime, e.Action, e.ReportingComponent, e.ReportingInstance = ago(time.Hour), "Start", "example.com/agent", "node-1"
		return e
	}
	testValidate(t, dated, []badCase[*corev1.Event]{
		{"too long", func(e *corev1.Event) { e.Reason, e.Message = strings.Repeat("x", 129), strings.Repeat("x", 1025) },
			[]string{"reason: Invalid value: \"\": can have at most 128 characters", "message: Invalid value: \"\": can have at most 1024 characters"}},
		{"missing", func(e *corev1.Event) { e.Action, e.ReportingInstance, e.ReportingComponent = "", "", "a b" },
			[]string{"reportingComponent: Invalid value: \"a b\"", "reportingInstance: Required value", "action: Required value"}},
	})
	e := event()
	e.FirstTimestamp, e.LastTimestamp, e.Count, e.Type = ago(time.Hour), ago(time.Minute), 3, "Normal"
	e.Source = &corev1.EventSource{Component: "agent", Host: "node-1"}
	expectCells(t, e, now, map[string]string{
		"LAST SEEN": "60s", "FIRST SEEN": "60m", "TYPE": "Normal", "REASON": "Started", "OBJECT": "pod/web", "MESSAGE": "Started container web",
		"SOURCE": "agent, node-1", "COUNT": "3",
	})
	e.Series = &corev1.EventSeries{Count: 9, LastObservedTime: ago(time.Second)}
	expectCells(t, e, now, map[string]string{"LAST SEEN": "1s", "COUNT": "9"})
}

func TestLease(t *testing.T) {
	lease := func() *coordinationv1.Lease {
		return &coordinationv1.Lease{Metadata: meta("scheduler"), Spec: &coordinationv1.LeaseSpec{HolderIdentity: proto.String("scheduler@m1")}}
	}
	testValidate(t, lease, []badCase[*coordinationv1.Lease]{
		{"no spec", func(l *coordinationv1.Lease) { l.Spec = nil }, nil},
		{"numbers", func(l *coordinationv1.Lease) {
			l.Spec.LeaseDurationSeconds, l.Spec.LeaseTransitions = proto.Int32(0), proto.Int32(-1)
		}, []string{"spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0", "spec.leaseTransitions: Invalid value: -1"}},
	})
	expectCells(t, lease(), now, map[string]string{"HOLDER": "scheduler@m1"})
}

func TestServiceAccount(t *testing.T) {
	a := &corev1.ServiceAccount{Metadata: meta("default"), Secrets: []*corev1.ObjectReference{{}}}
	expect(t, kind.Of(a).Validate(a), nil)
	expectCells(t, a, now, map[string]string{"SECRETS": "1"})
}

func TestEndpointSlice(t *testing.T) {
	slice := func() *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			Metadata: meta("web-1"), AddressType: "IPv4", Endpoints: []*discoveryv1.Endpoint{{Addresses: []string{"10.244.1.7"}}},
			Ports: []*discoveryv1.EndpointPort{{Port: proto.Int32(80)}},
		}
	}
	testValidate(t, slice, []badCase[*discoveryv1.EndpointSlice]{
		{"type", func(s *discoveryv1.EndpointSlice) { s.AddressType, s.Endpoints = "", nil }, []string{"addressType: Required value"}},
		{"other type", func(s *discoveryv1.EndpointSlice) { s.AddressType, s.Endpoints = "IPX", nil }, []string{`addressType: Unsupported value: "IPX"`}},
		{"addresses", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints = []*discoveryv1.Endpoint{{}, {Addresses: []string{"x", "fd00::1", "127.0.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1"}}}
		}, []string{
			"endpoints[0].addresses: Required value", `endpoints[1].addresses[0]: Invalid value: "x"`, `endpoints[1].addresses[1]: Invalid value: "fd00::1": must be an IPv4 address`,
			`endpoints[1].addresses[2]: Invalid value`, `endpoints[1].addresses[3]: Invalid value`, `endpoints[1].addresses[4]: Invalid value`, `endpoints[1].addresses[5]: Invalid value`,
		}},
		{"too many endpoints", func(s *discoveryv1.EndpointSlice) {
			for i := range 1000 {
				s.Endpoints = append(s.Endpoints, &discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.0.%d.%d", i/250, i%250+1)}})
			}
		}, []string{"endpoints: Too many: 1001: must have at most 1000 items"}},
		{"too many ports", func(s *discoveryv1.EndpointSlice) {
			for i := range 100 {
				s.Ports = append(s.Ports, &discoveryv1.EndpointPort{Name: proto.String(fmt.Sprintf("p%d", i)), Port: proto.Int32(80)})
			}
		}, []string{"ports: Too many: 101: must have at most 100 items"}},
		{"ports", func(s *discoveryv1.EndpointSlice) {
			s.Ports = append(s.Ports, &discoveryv1.EndpointPort{Port: proto.Int32(0), Protocol: proto.String("ICMP")})
		}, []string{`ports[1].name: Duplicate value: ""`, `ports[1].protocol: Unsupported value: "ICMP"`, "ports[1].port: Invalid value: 0"}},
		{"names", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints[0].Hostname, s.Endpoints[0].NodeName = proto.String("a.b"), proto.String("N")
		}, []string{`endpoints[0].hostname: Invalid value: "a.b"`, `endpoints[0].nodeName: Invalid value: "N"`}},
	})
	testUpdate(t, slice, []updateCase[*discoveryv1.EndpointSlice]{
		{"type", func(s *discoveryv1.EndpointSlice) { s.AddressType = "IPv6" }, []string{`addressType: Invalid value: "IPv6": field is immutable`}},
	})
	s := slice()
	expectCells(t, s, now, map[string]string{"ADDRESSTYPE": "IPv4", "PORTS": "80", "ENDPOINTS": "10.244.1.7"})
	s.Endpoints[0].Addresses = []string{"a", "b", "c", "d", "e"}
	s.Ports = nil
	expectCells(t, s, now, map[string]string{"PORTS": "<unset>", "ENDPOINTS": "a,b,c + 2 more..."})
}

func TestIPAddress(t *testing.T) {
	address := func() *networkingv1.IPAddress {
		return &networkingv1.IPAddress{
			Metadata: &metav1.ObjectMeta{Name: "10.96.0.7"},
			Spec:     &networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "web"}},
		}
	}
	testValidate(t, address, []badCase[*networkingv1.IPAddress]{
		{"no address", func(a *networkingv1.IPAddress) { a.Metadata.Name = "web" }, []string{`metadata.name: Invalid value: "web": must be a valid IP address`}},
		{"another way to write it", func(a *networkingv1.IPAddress) { a.Metadata.Name = "FD00::0:1" }, []string{`metadata.name: Invalid value: "FD00::0:1": must be in canonical form: fd00::1`}},
		{"no parent", func(a *networkingv1.IPAddress) { a.Spec = nil }, []string{"spec.parentRef: Required value"}},
		{"empty parent", func(a *networkingv1.IPAddress) { a.Spec.ParentRef = &networkingv1.ParentReference{} },
			[]string{"spec.parentRef.resource: Required value", "spec.parentRef.name: Required value"}},
	})
	testUpdate(t, address, []updateCase[*networkingv1.IPAddress]{
		{"other parent", func(a *networkingv1.IPAddress) { a.Spec.ParentRef.Name = "db" }, []string{`spec.parentRef: Invalid value: "db": field is immutable`}},
	})
	expectCells(t, address(), now, map[string]string{"PARENTREF": "services/default/web"})
}

func TestNodePort(t *testing.T) {
	port := func() *networkingv1.NodePort {
		return &networkingv1.NodePort{
			Metadata: &metav1.ObjectMeta{Name: kind.NodePortName("", 30080)},
			Spec:     &networkingv1.NodePortSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "web"}},
		}
	}
	const want = "must be a protocol and a port, such as tcp-30080"
	var bad []badCase[*networkingv1.NodePort]
	for _, name := range []string{"30080", "tcp", "tcp-", "sctp-30080", "tcp-030080", "tcp-70000", "tcp-x"} {
		bad = append(bad, badCase[*networkingv1.NodePort]{
			name, func(n *networkingv1.NodePort) { n.Metadata.Name = name }, []string{fmt.Sprintf("metadata.name: Invalid value: %q: %s", name, want)},
		})
	}
	bad = append(bad, badCase[*networkingv1.NodePort]{"no parent", func(n *networkingv1.NodePort) { n.Spec = nil }, []string{"spec.parentRef: Required value"}})
	testValidate(t, port, bad)
	testUpdate(t, port, []updateCase[*networkingv1.NodePort]{
		{"other parent", func(n *networkingv1.NodePort) { n.Spec.ParentRef.Name = "db" }, []string{`spec.parentRef: Invalid value: "db": field is immutable`}},
	})
	expectCells(t, port(), now, map[string]string{"PARENTREF": "services/default/web"})
}
