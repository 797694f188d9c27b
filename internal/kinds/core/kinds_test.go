package core_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func TestConfigMap(t *testing.T) {
	kindtest.Validate(t, kindtest.ConfigMap, []kindtest.Bad[*corev1.ConfigMap]{
		{Name: "keys", Edit: func(m *corev1.ConfigMap) {
			m.Data, m.BinaryData = map[string]string{"a/b": "", "c": "", "..": ""}, map[string][]byte{"c": nil}
		}, Want: []string{`data[..]: Invalid value: ".."`, `data[a/b]: Invalid value: "a/b": a valid config key must consist of`, `data[c]: Invalid value: "c": duplicate of key present in binaryData`}},
		{Name: "1 MiB", Edit: func(m *corev1.ConfigMap) {
			m.Data, m.BinaryData = map[string]string{"a": strings.Repeat("x", 1<<19)}, map[string][]byte{"b": make([]byte, 1<<19)}
		}, Want: nil},
		{Name: "more", Edit: func(m *corev1.ConfigMap) {
			m.Data, m.BinaryData = map[string]string{"a": strings.Repeat("x", 1<<19)}, map[string][]byte{"b": make([]byte, 1<<19+1)}
		}, Want: []string{"data: Too long: may not be more than 1048576 bytes, binaryData included"}},
	})
	fixed := func() *corev1.ConfigMap {
		m := kindtest.ConfigMap()
		m.Data, m.Immutable = map[string]string{"a": "b"}, proto.Bool(true)
		return m
	}
	kindtest.Update(t, fixed, []kindtest.Edit[*corev1.ConfigMap]{
		{Name: "labels", Edit: func(m *corev1.ConfigMap) { m.Metadata.Labels = map[string]string{"a": "b"} }, Want: nil},
		{Name: "data", Edit: func(m *corev1.ConfigMap) { m.Data["a"] = "c" }, Want: []string{"data: Forbidden: field is immutable when `immutable` is set"}},
		{Name: "unlocked", Edit: func(m *corev1.ConfigMap) { m.Immutable = nil }, Want: []string{"immutable: Forbidden"}},
	})
	kindtest.ExpectCells(t, fixed(), kindtest.Now, map[string]string{"DATA": "1"})
}

func TestSecret(t *testing.T) {
	secret := func() *corev1.Secret { return &corev1.Secret{Metadata: kindtest.Meta("key")} }
	of := func(typ string, keys ...string) func(*corev1.Secret) {
		return func(s *corev1.Secret) {
			s.Type, s.Data = typ, map[string][]byte{}
			for _, k := range keys {
				s.Data[k] = []byte("x")
			}
		}
	}
	kindtest.Validate(t, secret, []kindtest.Bad[*corev1.Secret]{
		{Name: "key", Edit: of("", "a b"), Want: []string{`data[a b]: Invalid value: "a b"`}},
		{Name: "too long", Edit: func(s *corev1.Secret) { s.Data = map[string][]byte{"a": make([]byte, 1<<20+1)} }, Want: []string{"data: Too long: may not be more than 1048576 bytes"}},
		{Name: "TLS", Edit: of("kubernetes.io/tls", "tls.crt"), Want: []string{"data[tls.key]: Required value"}},
		{Name: "whole TLS", Edit: of("kubernetes.io/tls", "tls.crt", "tls.key"), Want: nil},
		{Name: "basic", Edit: of("kubernetes.io/basic-auth"), Want: []string{"data[username]: Required value", "data[password]: Required value"}},
		{Name: "basic with a name", Edit: of("kubernetes.io/basic-auth", "username"), Want: nil},
		{Name: "SSH", Edit: of("kubernetes.io/ssh-auth"), Want: []string{"data[ssh-privatekey]: Required value"}},
		{Name: "docker", Edit: of("kubernetes.io/dockerconfigjson"), Want: []string{"data[.dockerconfigjson]: Required value"}},
		{Name: "docker, no JSON", Edit: of("kubernetes.io/dockerconfigjson", ".dockerconfigjson"), Want: []string{`data[.dockerconfigjson]: Invalid value: "<secret contents redacted>"`}},
		{Name: "old docker", Edit: of("kubernetes.io/dockercfg"), Want: []string{"data[.dockercfg]: Required value"}},
		{Name: "token", Edit: of("kubernetes.io/service-account-token"), Want: []string{"metadata.annotations[kubernetes.io/service-account.name]: Required value"}},
		{Name: "own type", Edit: of("example.com/own"), Want: nil},
	})
	s := secret()
	s.Data, s.StringData = map[string][]byte{"a": []byte("old"), "b": []byte("kept")}, map[string]string{"a": "new"}
	kinds.Of(s).Default(s)
	if s.GetType() != "Opaque" || string(s.GetData()["a"]) != "new" || string(s.GetData()["b"]) != "kept" || s.GetStringData() != nil {
		t.Errorf("defaults give %v", s)
	}
	kindtest.Update(t, secret, []kindtest.Edit[*corev1.Secret]{
		{Name: "type", Edit: func(s *corev1.Secret) { s.Type = "x/y" }, Want: []string{`type: Invalid value: "x/y": field is immutable`}},
		{Name: "data", Edit: func(s *corev1.Secret) { s.Data = map[string][]byte{"a": nil} }, Want: nil},
	})
	kindtest.Update(t, func() *corev1.Secret {
		s := secret()
		s.Immutable = proto.Bool(true)
		return s
	}, []kindtest.Edit[*corev1.Secret]{
		{Name: "locked", Edit: func(s *corev1.Secret) { s.StringData = map[string]string{"a": ""} }, Want: []string{"data: Forbidden"}},
	})
	kindtest.ExpectCells(t, s, kindtest.Now, map[string]string{"TYPE": "Opaque", "DATA": "2"})
}

// TestNamespacePhase checks that the phase is what the metadata says.
func TestNamespacePhase(t *testing.T) {
	old := &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "shop"}, Status: &corev1.NamespaceStatus{Phase: "Active"}}
	k, updated := kinds.Of(old), proto.CloneOf(old)
	kindtest.Expect(t, k.ValidateStatusUpdate(updated, old), nil)
	updated.Status.Phase = "Terminating"
	kindtest.Expect(t, k.ValidateStatusUpdate(updated, old), []string{`status.Phase: Invalid value: "Terminating": may only be 'Active'`})
	old.Metadata.DeletionTimestamp, updated.Metadata.DeletionTimestamp = kindtest.Ago(0), kindtest.Ago(0)
	kindtest.Expect(t, k.ValidateStatusUpdate(updated, old), nil)
}

func TestNamespace(t *testing.T) {
	n := &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "shop"}}
	k := kinds.Of(n)
	k.PrepareCreate(n)
	k.Default(n)
	k.PrepareCreate(n)
	if errs := k.Validate(n); len(errs) > 0 {
		t.Error(errs.ToAggregate())
	}
	if n.GetStatus().GetPhase() != "Active" || len(n.GetMetadata().GetFinalizers()) != 1 || n.GetMetadata().GetLabels()["kubernetes.io/metadata.name"] != "shop" {
		t.Errorf("namespace %v", n)
	}
	kindtest.ExpectCells(t, n, kindtest.Now, map[string]string{"STATUS": "Active"})
	n.Metadata.DeletionTimestamp = kindtest.Ago(0)
	kindtest.ExpectCells(t, n, kindtest.Now, map[string]string{"STATUS": "Terminating"})
	n.Metadata.Name = strings.Repeat("a", 64)
	n.Spec = &corev1.NamespaceSpec{Finalizers: []string{"mine"}}
	kindtest.Expect(t, k.Validate(n), []string{`metadata.name: Invalid value: "aaa`, `spec.finalizers[0]: Invalid value: "mine"`})
	old := &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: "shop"}, Spec: &corev1.NamespaceSpec{Finalizers: []string{"kubernetes"}}}
	kinds.Of(n).PrepareUpdate(n, old)
	if got := n.GetSpec().GetFinalizers(); !slices.Equal(got, []string{"kubernetes"}) {
		t.Errorf("an update changed the finalizers to %q", got)
	}
}

func TestNode(t *testing.T) {
	node := func() *corev1.Node { return &corev1.Node{Metadata: &metav1.ObjectMeta{Name: "node-1"}} }
	kindtest.Validate(t, node, []kindtest.Bad[*corev1.Node]{
		{Name: "taints", Edit: func(n *corev1.Node) {
			n.Spec = &corev1.NodeSpec{Taints: []*corev1.Taint{
				{Key: "a", Effect: "NoSchedule"}, {Key: "a", Effect: "NoExecute"}, {Key: "a", Effect: "NoSchedule"}, {Effect: "NoSchedule"}, {Key: "b", Effect: "Never"}, {Key: "c"},
			}}
		}, Want: []string{`spec.taints[2]: Duplicate value: "a/NoSchedule"`, `spec.taints[3].key: Invalid value: ""`, `spec.taints[3].key: Invalid value: ""`, `spec.taints[4].effect: Unsupported value: "Never"`, "spec.taints[5].effect: Required value"}},
		{Name: "pod CIDR", Edit: func(n *corev1.Node) { n.Spec = &corev1.NodeSpec{PodCidr: "10.244.0.0/33"} }, Want: []string{`spec.podCIDRs[0]: Invalid value: "10.244.0.0/33"`}},
		{Name: "two of a family", Edit: func(n *corev1.Node) { n.Spec = &corev1.NodeSpec{PodCidrs: []string{"10.244.0.0/24", "10.244.1.0/24"}} }, Want: []string{"spec.podCIDRs: Invalid value"}},
		{Name: "capacity", Edit: func(n *corev1.Node) { n.Status = &corev1.NodeStatus{Capacity: kindtest.Amounts("cpu", "-1")} },
			Want: []string{`status.capacity[cpu]: Invalid value: "-1"`, `status.allocatable[cpu]: Invalid value: "-1"`}},
	})
	kindtest.Update(t, func() *corev1.Node {
		n := node()
		n.Spec = &corev1.NodeSpec{PodCidr: "10.244.0.0/24"}
		return n
	}, []kindtest.Edit[*corev1.Node]{
		{Name: "cordon", Edit: func(n *corev1.Node) { n.Spec.Unschedulable = true }, Want: nil},
		{Name: "other CIDR", Edit: func(n *corev1.Node) { n.Spec.PodCidr, n.Spec.PodCidrs = "10.244.1.0/24", nil }, Want: []string{"spec.podCIDRs: Forbidden"}},
		{Name: "no CIDR", Edit: func(n *corev1.Node) { n.Spec = nil }, Want: []string{"spec.podCIDRs: Forbidden"}},
		{Name: "external ID", Edit: func(n *corev1.Node) { n.Spec.ExternalId = "a" }, Want: []string{"spec.externalID: Forbidden: may not be updated"}},
		{Name: "empty configuration source", Edit: func(n *corev1.Node) { n.Spec.ConfigSource = &corev1.NodeConfigSource{} }, Want: []string{"spec.configSource: Invalid value"}},
		{Name: "configuration source", Edit: func(n *corev1.Node) {
			n.Spec.ConfigSource = &corev1.NodeConfigSource{ConfigMap: &corev1.ConfigMapNodeConfigSource{Namespace: "default", Uid: "1", KubeletConfigKey: "a b"}}
		}, Want: []string{
			"spec.configSource.configMap.uid: Forbidden", "spec.configSource.configMap.name: Required value", "spec.configSource.configMap.kubeletConfigKey: Invalid value",
		}},
	})

	n := node()
	n.Status = &corev1.NodeStatus{Capacity: kindtest.Amounts("cpu", "4")}
	k := kinds.Of(n)
	k.PrepareCreate(n)
	k.Default(n)
	if n.GetStatus().GetAllocatable()["cpu"].GetString_() != "4" {
		t.Error("a node that registers itself loses its status")
	}
	kindtest.ExpectCells(t, n, kindtest.Now, map[string]string{"STATUS": "Unknown", "ROLES": "<none>", "INTERNAL-IP": "<none>", "OS-IMAGE": "<unknown>"})
	n.Metadata.Labels = map[string]string{"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/edge": "", "kubernetes.io/role": "worker"}
	n.Spec = &corev1.NodeSpec{Unschedulable: true}
	n.Status.Conditions = []*corev1.NodeCondition{{Type: "Ready", Status: "True"}}
	n.Status.Addresses = []*corev1.NodeAddress{{Type: "Hostname", Address: "node-1"}, {Type: "InternalIP", Address: "192.0.2.1"}}
	n.Status.NodeInfo = &corev1.NodeSystemInfo{KubeletVersion: "v0.1.0", ContainerRuntimeVersion: "containerd://1.7.0"}
	kindtest.ExpectCells(t, n, kindtest.Now, map[string]string{
		"STATUS": "Ready,SchedulingDisabled", "ROLES": "edge,worker", "VERSION": "v0.1.0", "INTERNAL-IP": "192.0.2.1", "CONTAINER-RUNTIME": "containerd://1.7.0",
	})
	n.Status.Conditions[0].Status = "Unknown"
	kindtest.ExpectCells(t, n, kindtest.Now, map[string]string{"STATUS": "NotReady,SchedulingDisabled"})
}

func TestEvent(t *testing.T) {
	event := func() *corev1.Event {
		return &corev1.Event{
			Metadata: kindtest.Meta("web.1"), Reason: "Started", Message: "Started container web\n",
			InvolvedObject: &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "web"},
		}
	}
	kindtest.Validate(t, event, []kindtest.Bad[*corev1.Event]{
		{Name: "other namespace", Edit: func(e *corev1.Event) { e.InvolvedObject.Namespace = "shop" }, Want: []string{`involvedObject.namespace: Invalid value: "shop": does not match event.namespace`}},
		{Name: "a node's", Edit: func(e *corev1.Event) { e.InvolvedObject = &corev1.ObjectReference{Kind: "Node", Name: "n"} }, Want: nil},
		{Name: "a node's elsewhere", Edit: func(e *corev1.Event) {
			e.InvolvedObject, e.Metadata.Namespace = &corev1.ObjectReference{Kind: "Node", Name: "n"}, "shop"
		}, Want: []string{"involvedObject.namespace: Invalid value"}},
		{Name: "old form with any type", Edit: func(e *corev1.Event) { e.Type = "Loud" }, Want: nil},
	})
	dated := func() *corev1.Event {
		e := event()
		e.EventTime, e.Action, e.ReportingComponent, e.ReportingInstance = kindtest.Ago(time.Hour), "Start", "example.com/agent", "node-1"
		return e
	}
	kindtest.Validate(t, dated, []kindtest.Bad[*corev1.Event]{
		{Name: "too long", Edit: func(e *corev1.Event) { e.Reason, e.Message = strings.Repeat("x", 129), strings.Repeat("x", 1025) },
			Want: []string{"reason: Invalid value: \"\": can have at most 128 characters", "message: Invalid value: \"\": can have at most 1024 characters"}},
		{Name: "missing", Edit: func(e *corev1.Event) { e.Action, e.ReportingInstance, e.ReportingComponent = "", "", "a b" },
			Want: []string{"reportingComponent: Invalid value: \"a b\"", "reportingInstance: Required value", "action: Required value"}},
	})
	e := event()
	e.FirstTimestamp, e.LastTimestamp, e.Count, e.Type = kindtest.Ago(time.Hour), kindtest.Ago(time.Minute), 3, "Normal"
	e.Source = &corev1.EventSource{Component: "agent", Host: "node-1"}
	kindtest.ExpectCells(t, e, kindtest.Now, map[string]string{
		"LAST SEEN": "60s", "FIRST SEEN": "60m", "TYPE": "Normal", "REASON": "Started", "OBJECT": "pod/web", "MESSAGE": "Started container web",
		"SOURCE": "agent, node-1", "COUNT": "3",
	})
	e.Series = &corev1.EventSeries{Count: 9, LastObservedTime: kindtest.Ago(time.Second)}
	kindtest.ExpectCells(t, e, kindtest.Now, map[string]string{"LAST SEEN": "1s", "COUNT": "9"})
}

func TestServiceAccount(t *testing.T) {
	a := &corev1.ServiceAccount{Metadata: kindtest.Meta("default"), Secrets: []*corev1.ObjectReference{{}}}
	kindtest.Expect(t, kinds.Of(a).Validate(a), nil)
	kindtest.ExpectCells(t, a, kindtest.Now, map[string]string{"SECRETS": "1"})
}
