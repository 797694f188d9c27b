package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds/core"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/nodes"
)

func runNodes(t *testing.T, h *house, host string, change func(*nodes.Config)) (stop func()) {
	t.Helper()
	cfg := nodes.DefaultConfig()
	cfg.EvictAfter, cfg.StartGrace, cfg.OrphanGrace = time.Second, 0, 500*time.Millisecond
	cfg.EvictionRate = 100
	if change != nil {
		change(&cfg)
	}
	svc, err := nodes.New(cfg, nodes.Deps{Deps: elected.Deps{Host: host, Client: h.service("nodes"), Logger: logger(t)}})
	if err != nil {
		t.Fatal(err)
	}
	return run(t, svc.Run)
}

// beat keeps a node's heartbeat until stop is called.
func beat(t *testing.T, h *house, name string) (stop func()) {
	t.Helper()
	c := client.New(as{ClientConnInterface: h.conn, User: "system:node:" + name, Group: "system:nodes"})
	lease, err := client.KeepLease(context.WithoutCancel(t.Context()), c, 10*time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(t.Context(), c, &coordinationv1.Lease{Metadata: meta("kube-node-lease", name)}, client.UnderLease(lease.ID())); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		// An agent that dies does not revoke; its lease lapses. To the controllers it is the same.
		if err := lease.Revoke(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// ready writes the status that an agent writes when it is back.
func ready(t *testing.T, c *client.Client, name string) {
	t.Helper()
	eventually(t, name+" reports itself ready", func() bool {
		n := get[*corev1.Node](t, c, "", name)
		n.Status.Conditions = []*corev1.NodeCondition{{Type: "Ready", Status: "True", LastTransitionTime: timestamppb.Now()}}
		_, err := client.UpdateStatus(t.Context(), c, n)
		return err == nil
	})
}

// taintsOf returns a node's taints as kubectl writes them, sorted.
func taintsOf(t *testing.T, c *client.Client, name string) string {
	t.Helper()
	var all []string
	for _, taint := range get[*corev1.Node](t, c, "", name).GetSpec().GetTaints() {
		all = append(all, taint.GetKey()+":"+taint.GetEffect())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

const unreachable = "node.kubernetes.io/unreachable:NoExecute node.kubernetes.io/unreachable:NoSchedule"

// on puts a running, ready pod onto a node.
func on(t *testing.T, c *client.Client, node, name string, tolerations ...*corev1.Toleration) *corev1.Pod {
	t.Helper()
	p := pod("default", name)
	p.Spec.Tolerations = tolerations
	create(t, c, p)
	if _, err := client.Transact(t.Context(), c, client.OpBind("default", name, "", node)); err != nil {
		t.Fatal(err)
	}
	p, err := client.UpdateStatus(t.Context(), c, withReady(get[*corev1.Pod](t, c, "default", name), "True"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tolerating(seconds *int64) *corev1.Toleration {
	return &corev1.Toleration{Key: "node.kubernetes.io/unreachable", Operator: "Exists", Effect: "NoExecute", TolerationSeconds: seconds}
}

// leaving reports whether a pod is being deleted, or gone.
func leaving(t *testing.T, c *client.Client, name string) bool {
	t.Helper()
	return gone[*corev1.Pod](t, c, "default", name) || get[*corev1.Pod](t, c, "default", name).GetMetadata().GetDeletionTimestamp() != nil
}

func TestSilentNode(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	for _, name := range []string{"node-1", "node-2"} {
		node(t, c, name)
	}
	beat(t, h, "node-2")
	silence := beat(t, h, "node-1")
	runNodes(t, h, "master-1", nil)
	on(t, c, "node-1", "plain")
	on(t, c, "node-1", "long", tolerating(proto.Int64(3)))
	on(t, c, "node-1", "forever", tolerating(nil))
	instant := pod("default", "instant")
	instant.Spec.TerminationGracePeriodSeconds = proto.Int64(0)
	create(t, c, instant)
	if _, err := client.Transact(t.Context(), c, client.OpBind("default", "instant", "", "node-1")); err != nil {
		t.Fatal(err)
	}
	on(t, c, "node-2", "elsewhere")
	eventually(t, "ranges are given, so the controllers work", func() bool { return get[*corev1.Node](t, c, "", "node-1").GetSpec().GetPodCidr() != "" })

	silence()
	begun := time.Now()
	eventually(t, "the node is unknown", func() bool {
		cond := core.NodeCondition(get[*corev1.Node](t, c, "", "node-1"), "Ready")
		return cond.GetStatus() == "Unknown" && cond.GetReason() == "NodeStatusUnknown"
	})
	eventually(t, "it is tainted", func() bool { return taintsOf(t, c, "node-1") == unreachable })
	for _, name := range []string{"plain", "long", "forever"} {
		eventually(t, name+" serves no more", func() bool { return !core.IsPodReady(get[*corev1.Pod](t, c, "default", name)) })
	}
	t.Logf("node unknown, tainted and its pods out of service after %v", time.Since(begun))
	expectEvent(t, c, "default", "node-1", "Normal NodeNotReady: Node node-1 status is now: NodeNotReady")
	expectEvent(t, c, "default", "plain", "Warning NodeNotReady: Node is not ready")
	eventually(t, "plain is evicted", func() bool { return leaving(t, c, "plain") })
	expectEvent(t, c, "default", "plain", "Normal TaintManagerEviction: Marking for deletion Pod default/plain")
	if target := core.PodCondition(get[*corev1.Pod](t, c, "default", "plain"), core.PodDisruptionTarget); target.GetReason() != core.DeletionByTaintManager {
		t.Errorf("plain has the condition %v", target)
	}
	eventually(t, "long is evicted", func() bool { return leaving(t, c, "long") })
	if d := time.Since(begun); d < 3*time.Second {
		t.Errorf("long was evicted after %v, it tolerates for 3 s", d)
	}

	// Whether they have ended only the node's agent can say, also of one that has no grace period.
	for _, name := range []string{"plain", "long", "instant"} {
		eventually(t, name+" is evicted", func() bool { return leaving(t, c, name) })
		if gone[*corev1.Pod](t, c, "default", name) {
			t.Errorf("%s is gone, though its node has not confirmed its end", name)
		}
	}

	beat(t, h, "node-1")
	ready(t, c, "node-1")
	eventually(t, "the taints are gone", func() bool { return taintsOf(t, c, "node-1") == "" })
	if leaving(t, c, "forever") || leaving(t, c, "elsewhere") {
		t.Error("a pod was evicted that tolerates the taint, or is on a node without it")
	}

	// A node that says itself that it is not ready.
	setReady(t, c, "node-1", "False")
	eventually(t, "it is tainted as not ready", func() bool {
		return taintsOf(t, c, "node-1") == "node.kubernetes.io/not-ready:NoExecute node.kubernetes.io/not-ready:NoSchedule"
	})
	ready(t, c, "node-1")
	eventually(t, "the taints are gone again", func() bool { return taintsOf(t, c, "node-1") == "" })
}

// TestAllSilent cuts off every node at once, as when the gateways are down: no pod is evicted, and
// the clocks of those that come back late start when the first is back.
func TestAllSilent(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	var silences []func()
	for n := range 3 {
		node(t, c, fmt.Sprint("node-", n))
		silences = append(silences, beat(t, h, fmt.Sprint("node-", n)))
		on(t, c, fmt.Sprint("node-", n), fmt.Sprint("p-", n))
	}
	runNodes(t, h, "master-1", nil)
	eventually(t, "ranges are given, so the controllers work", func() bool { return get[*corev1.Node](t, c, "", "node-1").GetSpec().GetPodCidr() != "" })
	for _, silence := range silences {
		silence()
	}
	eventually(t, "all are known to be silent, and none will be emptied", func() bool {
		for n := range 3 {
			if taintsOf(t, c, fmt.Sprint("node-", n)) != "node.kubernetes.io/unreachable:NoSchedule" {
				return false
			}
		}
		return true
	})
	throughout(t, 2*time.Second, "no pod is evicted", func() error {
		for n := range 3 {
			if leaving(t, c, fmt.Sprint("p-", n)) {
				return fmt.Errorf("p-%d is", n)
			}
		}
		return nil
	})
	back := time.Now().Truncate(time.Second)
	beat(t, h, "node-0")
	ready(t, c, "node-0")
	eventually(t, "the others will be emptied now", func() bool {
		return taintsOf(t, c, "node-1") == unreachable && taintsOf(t, c, "node-2") == unreachable
	})
	for _, taint := range get[*corev1.Node](t, c, "", "node-2").GetSpec().GetTaints() {
		if taint.GetEffect() == "NoExecute" && taint.GetTimeAdded().AsTime().Before(back) {
			t.Errorf("the clock of node-2 started at %v, before the first node was back", taint.GetTimeAdded().AsTime())
		}
	}
	eventually(t, "their pods are evicted", func() bool { return leaving(t, c, "p-1") && leaving(t, c, "p-2") })
	if leaving(t, c, "p-0") {
		t.Error("the pod of the node that is back was evicted")
	}
}

// TestDisruptedZone cuts off most nodes of a zone while another zone is ready: their pods stay
// until enough nodes are back.
func TestDisruptedZone(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	node(t, c, "other")
	beat(t, h, "other")
	var silences []func()
	for n := range 4 {
		name := fmt.Sprint("node-", n)
		node(t, c, name)
		labelled := get[*corev1.Node](t, c, "", name)
		labelled.Metadata.Labels = map[string]string{"topology.kubernetes.io/zone": "a"}
		if _, err := client.Update(t.Context(), c, labelled); err != nil {
			t.Fatal(err)
		}
		silences = append(silences, beat(t, h, name))
		on(t, c, name, fmt.Sprint("p-", n))
	}
	for _, silence := range silences[:3] {
		silence()
	}
	runNodes(t, h, "master-1", nil)
	expectEvent(t, c, "default", "node-0", `Warning EvictionStopped: 3 of 4 nodes of zone "/a" are not ready: pods of this node are not evicted`)
	throughout(t, 2*time.Second, "no pod is evicted", func() error {
		for n := range 4 {
			if leaving(t, c, fmt.Sprint("p-", n)) {
				return fmt.Errorf("p-%d is", n)
			}
		}
		return nil
	})
	beat(t, h, "node-0")
	ready(t, c, "node-0")
	eventually(t, "the pods of the two other nodes are evicted", func() bool { return leaving(t, c, "p-1") && leaving(t, c, "p-2") })
	if leaving(t, c, "p-0") || leaving(t, c, "p-3") {
		t.Error("the pod of a node that is ready was evicted")
	}
}

// TestNodesHandOver stops the leader while a node is silent: the new one neither evicts early nor
// forgets to.
func TestNodesHandOver(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	node(t, c, "node-1")
	node(t, c, "node-2")
	beat(t, h, "node-2")
	silence := beat(t, h, "node-1")
	later := func(cfg *nodes.Config) { cfg.EvictAfter = 4 * time.Second }
	stop := runNodes(t, h, "master-1", later)
	on(t, c, "node-1", "p")
	eventually(t, "the controllers work", func() bool { return get[*corev1.Node](t, c, "", "node-1").GetSpec().GetPodCidr() != "" })
	begun := time.Now()
	silence()
	eventually(t, "it is tainted", func() bool { return taintsOf(t, c, "node-1") == unreachable })
	stop()
	runNodes(t, h, "master-2", later)
	eventually(t, "p is evicted", func() bool { return leaving(t, c, "p") })
	if d := time.Since(begun); d < 3500*time.Millisecond {
		t.Errorf("evicted %v after the node fell silent, want 4 s after its taint", d)
	}
}

// TestOtherTaints are people's own.
func TestOtherTaints(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	node(t, c, "node-1")
	beat(t, h, "node-1")
	runNodes(t, h, "master-1", nil)
	on(t, c, "node-1", "plain")
	on(t, c, "node-1", "patient", &corev1.Toleration{Key: "drain", Operator: "Exists", TolerationSeconds: proto.Int64(3600), Effect: "NoExecute"})
	patch[*corev1.Node](t, c, "", "node-1", `{"spec":{"taints":[{"key":"drain","effect":"NoExecute"},{"key":"keep","effect":"NoSchedule"}]}}`)
	eventually(t, "plain is evicted at once", func() bool { return leaving(t, c, "plain") })
	throughout(t, 300*time.Millisecond, "patient stays: the taint has no time of its own", func() error {
		if leaving(t, c, "patient") {
			return fmt.Errorf("it was evicted")
		}
		return nil
	})
	if got := taintsOf(t, c, "node-1"); got != "drain:NoExecute keep:NoSchedule" {
		t.Errorf("taints are %s", got)
	}
}

// TestOutOfService has a person vouch that a node is off: only then are pods removed that its agent
// cannot confirm.
func TestOutOfService(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	for _, name := range []string{"node-1", "node-2"} {
		node(t, c, name)
	}
	beat(t, h, "node-2")
	silence := beat(t, h, "node-1")
	runNodes(t, h, "master-1", nil)
	exists := func(key string) *corev1.Toleration { return &corev1.Toleration{Key: key, Operator: "Exists"} }
	held := on(t, c, "node-1", "held")
	held.Metadata.Finalizers = []string{"example.com/hold"}
	if _, err := client.Update(t.Context(), c, held); err != nil {
		t.Fatal(err)
	}
	on(t, c, "node-1", "evicted")
	on(t, c, "node-1", "patient", exists("node.kubernetes.io/unreachable"))
	on(t, c, "node-1", "tolerant", exists(""))
	on(t, c, "node-2", "elsewhere")
	const taint = `{"spec":{"taints":[{"key":"node.kubernetes.io/out-of-service","value":"nodeshutdown","effect":"NoExecute"}]}}`
	// A node that is ready keeps what its agent still has to end, taint or not.
	patch[*corev1.Node](t, c, "", "node-2", taint)
	eventually(t, "the pod of the ready node is evicted", func() bool { return leaving(t, c, "elsewhere") })

	silence()
	eventually(t, "evicted is", func() bool { return leaving(t, c, "evicted") && leaving(t, c, "held") })
	throughout(t, time.Second, "nothing is removed that no agent has confirmed", func() error {
		for _, name := range []string{"evicted", "patient", "elsewhere"} {
			if gone[*corev1.Pod](t, c, "default", name) {
				return fmt.Errorf("%s is gone", name)
			}
		}
		return nil
	})
	n := get[*corev1.Node](t, c, "", "node-1")
	n.Spec.Taints = append(n.Spec.Taints, &corev1.Taint{Key: "node.kubernetes.io/out-of-service", Value: "nodeshutdown", Effect: "NoExecute"})
	if _, err := client.Update(t.Context(), c, n); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pods of the node are removed", func() bool {
		return gone[*corev1.Pod](t, c, "default", "evicted") && gone[*corev1.Pod](t, c, "default", "patient")
	})
	expectEvent(t, c, "default", "evicted", "Warning NodeOutOfService: Removed without a confirmation: node node-1 has the taint node.kubernetes.io/out-of-service")
	eventually(t, "one that a finalizer holds has failed", func() bool {
		return get[*corev1.Pod](t, c, "default", "held").GetStatus().GetPhase() == "Failed"
	})
	if leaving(t, c, "tolerant") || gone[*corev1.Pod](t, c, "default", "elsewhere") {
		t.Error("a pod was removed that tolerates the taint, or whose node is ready")
	}
}

func TestStartGrace(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	const grace = 2 * time.Second
	runNodes(t, h, "master-1", func(cfg *nodes.Config) { cfg.StartGrace = grace })
	begun := time.Now()
	create(t, c, &corev1.Node{Metadata: meta("", "new")})
	eventually(t, "it has a range", func() bool { return get[*corev1.Node](t, c, "", "new").GetSpec().GetPodCidr() != "" })
	n := get[*corev1.Node](t, c, "", "new")
	if touched := len(n.GetSpec().GetTaints()) != 0 || core.NodeCondition(n, "Ready") != nil; touched && time.Since(begun) < grace {
		t.Errorf("a node that is just starting: %v", n)
	}
	eventually(t, "its time is over", func() bool {
		return core.NodeCondition(get[*corev1.Node](t, c, "", "new"), "Ready").GetStatus() == "Unknown"
	})
}

func TestPodRanges(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	small := func(cfg *nodes.Config) { cfg.ClusterCIDR, cfg.NodeMaskSize = "10.244.0.0/18", 24 } // 64 ranges
	stops := map[string]func(){"master-1": runNodes(t, h, "master-1", small), "master-2": runNodes(t, h, "master-2", small)}
	// One has an odd range already, which covers four.
	odd := create(t, c, &corev1.Node{Metadata: meta("", "odd"), Spec: &corev1.NodeSpec{PodCidr: "10.244.4.0/22", PodCidrs: []string{"10.244.4.0/22"}}})
	for n := range 60 {
		create(t, c, &corev1.Node{Metadata: meta("", fmt.Sprint("node-", n))})
		if n%20 == 10 {
			l, err := client.Get[*coordinationv1.Lease](t.Context(), c, "kube-system", "nodes")
			if err != nil {
				continue
			}
			host := strings.TrimPrefix(l.GetSpec().GetHolderIdentity(), "nodes@")
			stops[host]()
			stops[host] = runNodes(t, h, host, small)
		}
	}
	eventually(t, "every node has a range", func() bool {
		all, _, err := client.List[*corev1.Node](t.Context(), c, client.ListOptions{})
		return err == nil && !slices.ContainsFunc(all, func(n *corev1.Node) bool { return n.GetSpec().GetPodCidr() == "" })
	})
	all, _, err := client.List[*corev1.Node](t.Context(), c, client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range all {
		p, err := netip.ParsePrefix(a.GetSpec().GetPodCidr())
		if err != nil || !netip.MustParsePrefix("10.244.0.0/18").Contains(p.Addr()) {
			t.Errorf("%s has the range %q", a.GetMetadata().GetName(), a.GetSpec().GetPodCidr())
			continue
		}
		for _, b := range all[:i] {
			if q, err := netip.ParsePrefix(b.GetSpec().GetPodCidr()); err == nil && q.Overlaps(p) {
				t.Errorf("%s has %s and %s has %s", a.Metadata.Name, p, b.Metadata.Name, q)
			}
		}
	}

	// The range is full now: the next one has to wait until a node goes.
	create(t, c, &corev1.Node{Metadata: meta("", "late")})
	expectEvent(t, c, "default", "late", "Warning CIDRNotAvailable: Every /24 of the cluster CIDR 10.244.0.0/18 is allocated to a node")
	if _, err := client.Delete[*corev1.Node](t.Context(), c, "", odd.GetMetadata().GetName()); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	eventually(t, "it has the range of one that is gone", func() bool { return get[*corev1.Node](t, c, "", "late").GetSpec().GetPodCidr() != "" })
	t.Logf("after %v", time.Since(begun))
}

func TestOrphans(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	node(t, c, "node-1")
	beat(t, h, "node-1")
	runNodes(t, h, "master-1", nil)
	on(t, c, "node-1", "a")
	on(t, c, "node-1", "b", &corev1.Toleration{Operator: "Exists"})
	// Its node never was: it may be gone before anybody could report it running.
	create(t, c, pod("default", "c"))
	if _, err := client.Transact(t.Context(), c, client.OpBind("default", "c", "", "never")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod of a node that never was is gone", func() bool { return gone[*corev1.Pod](t, c, "default", "c") })
	if leaving(t, c, "a") {
		t.Error("a pod of a node that exists was deleted")
	}
	if _, err := client.Delete[*corev1.Node](t.Context(), c, "", "node-1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its pods are gone", func() bool {
		return gone[*corev1.Pod](t, c, "default", "a") && gone[*corev1.Pod](t, c, "default", "b")
	})
}
