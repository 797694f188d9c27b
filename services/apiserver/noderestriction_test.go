package apiserver

import (
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/etcdtest"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// refused checks that a node was refused, and that the error says what for.
func refused(t *testing.T, err error, why string) {
	t.Helper()
	if !apierr.IsForbidden(err) || !strings.Contains(err.Error(), why) {
		t.Errorf("got %v, want a refusal with %q", err, why)
	}
}

func clone[T scheme.Object](o T, change func(T)) T {
	o = client.Clone(o)
	o.GetMetadata().ResourceVersion = ""
	change(o)
	return o
}

// TestNodeRestriction has what a node may write of itself, its pods and events, as an agent does,
// and what it may not.
func TestNodeRestriction(t *testing.T) {
	conn := start(t, etcdtest.New(t, 1))
	c, ctx := admin(conn), t.Context()
	waitNamespace(t, c)
	self := client.New(as{ClientConnInterface: conn, User: "system:node:node-1", Group: "system:nodes"})

	t.Run("registration", func(t *testing.T) {
		for name, tt := range map[string]struct {
			change func(*corev1.Node)
			why    string
		}{
			"a role":             {func(n *corev1.Node) { n.Metadata.Labels["node-role.kubernetes.io/control-plane"] = "" }, "node-role.kubernetes.io/control-plane: an administrator does, with xebec label node node-1"},
			"a restricted label": {func(n *corev1.Node) { n.Metadata.Labels["node-restriction.kubernetes.io/tier"] = "secret" }, "node-restriction.kubernetes.io/tier"},
			"a label of k8s.io":  {func(n *corev1.Node) { n.Metadata.Labels["sub.k8s.io/x"] = "" }, "sub.k8s.io/x"},
			"a taint":            {func(n *corev1.Node) { n.Spec.Taints = []*corev1.Taint{{Key: "a", Effect: "NoSchedule"}} }, "taints"},
			"a pod range":        {func(n *corev1.Node) { n.Spec.PodCidr = "10.244.7.0/24" }, "pod range"},
			"pod ranges":         {func(n *corev1.Node) { n.Spec.PodCidrs = []string{"10.244.7.0/24"} }, "pod range"},
			"an owner": {func(n *corev1.Node) {
				n.Metadata.OwnerReferences = []*metav1.OwnerReference{{ApiVersion: "v1", Kind: "Pod", Name: "p", Uid: "u"}}
			}, "owners"},
			"a service's address": {func(n *corev1.Node) { n.Status.Addresses[0].Address = "10.96.0.1" }, "10.96.0.0/16"},
			"a name as address":   {func(n *corev1.Node) { n.Status.Addresses[0].Address = "elsewhere" }, "IP addresses"},
		} {
			n := node("node-1", "192.0.2.1")
			tt.change(n)
			_, err := client.Create(ctx, self, n)
			t.Run(name, func(t *testing.T) { refused(t, err, tt.why) })
			_, _, err = client.Apply(ctx, self.WithFieldManager("agent"), n)
			t.Run(name+", applied", func(t *testing.T) { refused(t, err, tt.why) })
		}
		n := node("node-1", "192.0.2.1")
		n.Metadata.Labels["topology.kubernetes.io/zone"], n.Metadata.Labels["node.kubernetes.io/instance-type"] = "a", "small"
		n.Metadata.Labels["kubelet.kubernetes.io/x"], n.Metadata.Labels["disk"], n.Metadata.Labels["example.com/disk"] = "y", "ssd", "ssd"
		do[*corev1.Node](t)(client.Create(ctx, self, n))
	})
	// What administrators and services do.
	mine := do[*corev1.Node](t)(client.Get[*corev1.Node](ctx, c, "", "node-1"))
	mine = do[*corev1.Node](t)(client.Update(ctx, c, clone(mine, func(n *corev1.Node) {
		n.Spec.PodCidr, n.Spec.PodCidrs = "10.244.1.0/24", []string{"10.244.1.0/24"}
		n.Spec.Taints = []*corev1.Taint{{Key: "a", Effect: "NoSchedule"}}
		n.Metadata.Labels["node-role.kubernetes.io/worker"] = ""
	})))
	other := node("node-2", "192.0.2.2")
	other.Spec.PodCidr, other.Spec.PodCidrs = "10.244.2.0/24", []string{"10.244.2.0/24"}
	do[*corev1.Node](t)(client.Create(ctx, c, other))

	t.Run("its node", func(t *testing.T) {
		for name, tt := range map[string]struct {
			change func(*corev1.Node)
			why    string
		}{
			"a role":              {func(n *corev1.Node) { n.Metadata.Labels["node-role.kubernetes.io/db"] = "" }, "node-role.kubernetes.io/db"},
			"a role's removal":    {func(n *corev1.Node) { delete(n.Metadata.Labels, "node-role.kubernetes.io/worker") }, "node-role.kubernetes.io/worker"},
			"the taints' removal": {func(n *corev1.Node) { n.Spec.Taints = nil }, "taints"},
			"another pod range":   {func(n *corev1.Node) { n.Spec.PodCidrs = append(n.Spec.PodCidrs, "fd00::/64") }, "pod range"},
			"an owner": {func(n *corev1.Node) {
				n.Metadata.OwnerReferences = []*metav1.OwnerReference{{ApiVersion: "v1", Kind: "Pod", Name: "p", Uid: "u"}}
			}, "owners"},
		} {
			_, err := client.Update(ctx, self, clone(mine, tt.change))
			t.Run(name, func(t *testing.T) { refused(t, err, tt.why) })
		}
		_, err := client.Patch[*corev1.Node](ctx, self, "", "node-1", []byte(`{"metadata":{"labels":{"node-restriction.kubernetes.io/x":"y"}}}`))
		refused(t, err, "node-restriction.kubernetes.io/x")
		do[*corev1.Node](t)(client.Update(ctx, self, clone(mine, func(n *corev1.Node) { n.Metadata.Labels["disk"] = "hdd" })))
		for _, ip := range []string{"10.244.2.7", "10.244.1.7", "10.96.0.10"} {
			_, err := client.UpdateStatus(ctx, self, clone(mine, func(n *corev1.Node) {
				n.Status.Addresses = append(n.Status.Addresses, &corev1.NodeAddress{Type: core.NodeExternalIP, Address: ip})
			}))
			refused(t, err, ip)
		}
		do[*corev1.Node](t)(client.UpdateStatus(ctx, self, clone(mine, func(n *corev1.Node) {
			n.Status.Addresses = append(n.Status.Addresses, &corev1.NodeAddress{Type: core.NodeInternalIP, Address: "2001:db8::1"})
		})))
	})

	// A pod of each node, and one in the node's network.
	placed := func(name, node string, hostNetwork bool) *corev1.Pod {
		p := pod(name)
		p.Spec.NodeName, p.Spec.HostNetwork = node, hostNetwork
		return do[*corev1.Pod](t)(client.Create(ctx, c, p))
	}
	own, theirs, onHost := placed("own", "node-1", false), placed("theirs", "node-2", false), placed("host", "node-1", true)

	t.Run("addresses", func(t *testing.T) {
		with := func(p *corev1.Pod, host string, ips ...string) *corev1.Pod {
			return clone(p, func(p *corev1.Pod) {
				p.Status = &corev1.PodStatus{Phase: "Running", HostIp: host, PodIp: ips[0]}
				for _, ip := range ips {
					p.Status.PodIps = append(p.Status.PodIps, &corev1.PodIP{Ip: ip})
				}
			})
		}
		for name, tt := range map[string]struct {
			pod *corev1.Pod
			why string
		}{
			"another node's":            {with(own, "192.0.2.1", "10.244.2.7"), "10.244.2.7 is not in the pod range of node node-1, which is 10.244.1.0/24"},
			"a service's":               {with(own, "192.0.2.1", "10.96.0.1"), "10.96.0.1 is not in the pod range"},
			"outside the cluster":       {with(own, "192.0.2.1", "203.0.113.9"), "203.0.113.9"},
			"the node's":                {with(own, "192.0.2.1", "192.0.2.1"), "192.0.2.1"},
			"a second one elsewhere":    {with(own, "192.0.2.1", "10.244.1.7", "fd00::7"), "fd00::7"},
			"an IPv4 address in IPv6":   {with(own, "192.0.2.1", "::ffff:10.244.1.7"), "::ffff:10.244.1.7"},
			"none":                      {with(own, "192.0.2.1", "here"), "not an address"},
			"another host's":            {with(own, "192.0.2.2", "10.244.1.7"), "192.0.2.2"},
			"a host network's, wrong":   {with(onHost, "192.0.2.1", "192.0.2.2"), "is not an address of node node-1"},
			"a host network's, a pod's": {with(onHost, "192.0.2.1", "10.244.1.7"), "is not an address of node node-1"},
		} {
			_, err := client.UpdateStatus(ctx, self, tt.pod)
			t.Run(name, func(t *testing.T) { refused(t, err, tt.why) })
		}
		do[*corev1.Pod](t)(client.UpdateStatus(ctx, self, with(own, "192.0.2.1", "10.244.1.7")))
		do[*corev1.Pod](t)(client.UpdateStatus(ctx, self, with(onHost, "192.0.2.1", "192.0.2.1", "2001:db8::1")))
		// What is reported already stays, also when the node's range changes.
		do[*corev1.Pod](t)(client.UpdateStatus(ctx, c, with(own, "192.0.2.9", "10.244.9.7")))
		do[*corev1.Pod](t)(client.UpdateStatus(ctx, self, clone(with(own, "192.0.2.9", "10.244.9.7"), func(p *corev1.Pod) { p.Status.Message = "m" })))
	})

	t.Run("events", func(t *testing.T) {
		event := func(name string, change func(*corev1.Event)) *corev1.Event {
			e := &corev1.Event{
				Metadata:       &metav1.ObjectMeta{Namespace: "default", Name: name},
				InvolvedObject: &corev1.ObjectReference{ApiVersion: "v1", Kind: "Pod", Namespace: "default", Name: "own", Uid: own.GetMetadata().GetUid()},
				Type:           "Normal", Reason: "Started", Message: "m", Count: 1,
				Source: &corev1.EventSource{Component: "xebec-agent", Host: "node-1"}, ReportingComponent: "xebec-agent", ReportingInstance: "node-1",
			}
			if change != nil {
				change(e)
			}
			return e
		}
		about := func(kind, namespace, name string) func(*corev1.Event) {
			return func(e *corev1.Event) {
				e.InvolvedObject = &corev1.ObjectReference{ApiVersion: "v1", Kind: kind, Namespace: namespace, Name: name}
			}
		}
		for name, tt := range map[string]struct {
			event *corev1.Event
			why   string
		}{
			"of another's pod":    {event("a", about("Pod", "default", theirs.GetMetadata().GetName())), "not bound to node node-1"},
			"of another node":     {event("a", about("Node", "", "node-2")), "not of Node node-2"},
			"of a service":        {event("a", about("Service", "default", "kubernetes")), "not of Service kubernetes"},
			"as another":          {event("a", func(e *corev1.Event) { e.Source.Host, e.ReportingInstance = "node-2", "node-2" }), "in its own name"},
			"as another, in part": {event("a", func(e *corev1.Event) { e.ReportingInstance = "node-2" }), "in its own name"},
			"as none":             {event("a", func(e *corev1.Event) { e.Source.Host, e.ReportingInstance = "", "" }), "in its own name"},
		} {
			_, err := client.Create(ctx, self, tt.event)
			t.Run(name, func(t *testing.T) { refused(t, err, tt.why) })
		}
		do[*corev1.Event](t)(client.Create(ctx, self, event("own", nil)))
		do[*corev1.Event](t)(client.Create(ctx, self, event("node", about("Node", "", "node-1"))))
		do[*corev1.Event](t)(client.Create(ctx, self, event("gone", about("Pod", "default", "gone"))))
		do[*corev1.Event](t)(client.Patch[*corev1.Event](ctx, self, "default", "own", []byte(`{"count":2}`)))

		do[*corev1.Event](t)(client.Create(ctx, c, event("scheduled", func(e *corev1.Event) { e.Source.Host, e.ReportingInstance = "master-1", "master-1" })))
		for name, patch := range map[string]string{
			"scheduled": `{"message":"forged","source":{"host":"node-1"},"reportingInstance":"node-1"}`,
			"own":       `{"involvedObject":{"name":"theirs"}}`,
			"node":      `{"involvedObject":{"name":"node-2"}}`,
			"gone":      `{"reportingInstance":"node-2"}`,
		} {
			_, err := client.Patch[*corev1.Event](ctx, self, "default", name, []byte(patch))
			t.Run("changed "+name, func(t *testing.T) { refused(t, err, "") })
		}
	})
}

func node(name, address string) *corev1.Node {
	return &corev1.Node{
		Metadata: &metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
		Spec:     &corev1.NodeSpec{},
		Status:   &corev1.NodeStatus{Addresses: []*corev1.NodeAddress{{Type: core.NodeInternalIP, Address: address}, {Type: core.NodeHostname, Address: name}}},
	}
}
