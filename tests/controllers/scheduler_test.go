package controllers

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
	schedulingv1 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1"
	"github.com/xebec-project/xebec/services/scheduler"
)

// runScheduler runs an instance and returns its API.
func runScheduler(t *testing.T, h *house, host string) (api schedulerv1.SchedulerServiceClient, stop func()) {
	t.Helper()
	svc, err := scheduler.New(scheduler.DefaultConfig(), scheduler.Deps{Host: host, Client: h.service("scheduler"), Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(toStatus))
	svc.Register(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }() // It fails only by Stop.
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return schedulerv1.NewSchedulerServiceClient(conn), run(t, svc.Run)
}

// asking is a pod that asks for an amount of cpu.
func asking(name, cpu string, changes ...func(*corev1.Pod)) *corev1.Pod {
	p := pod("default", name)
	p.Spec.Containers[0].Resources = &corev1.ResourceRequirements{Requests: quantities("cpu", cpu)}
	for _, change := range changes {
		change(p)
	}
	return p
}

func selecting(label, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{label: value} }
}

func onHostPort(port int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []*corev1.ContainerPort{{ContainerPort: port, HostPort: port}}
	}
}

// nodeOf waits until a pod is bound.
func nodeOf(t *testing.T, c *client.Client, name string) string {
	t.Helper()
	var node string
	eventually(t, name+" is bound", func() bool {
		node = get[*corev1.Pod](t, c, "default", name).GetSpec().GetNodeName()
		return node != ""
	})
	return node
}

// refused waits until a pod's condition says why it fits nowhere.
func refused(t *testing.T, c *client.Client, name, why string) {
	t.Helper()
	eventually(t, name+" is refused: "+why, func() bool {
		cond := core.PodCondition(get[*corev1.Pod](t, c, "default", name), "PodScheduled")
		return cond.GetStatus() == "False" && cond.GetReason() == "Unschedulable" && strings.Contains(cond.GetMessage(), why)
	})
}

// TestSchedulerWakes has pods that fit nowhere, each for another reason, and changes what would
// help.
func TestSchedulerWakes(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	api, _ := runScheduler(t, h, "master-1")

	create(t, c, asking("early", "100m"))
	refused(t, c, "early", "no nodes available to schedule pods")
	node(t, c, "node-1")
	if got := nodeOf(t, c, "early"); got != "node-1" {
		t.Errorf("early is on %s", got)
	}
	expectEvent(t, c, "default", "early", "Warning FailedScheduling: no nodes available to schedule pods")
	expectEvent(t, c, "default", "early", "Normal Scheduled: Successfully assigned default/early to node-1")
	if cond := core.PodCondition(get[*corev1.Pod](t, c, "default", "early"), "PodScheduled"); cond.GetStatus() != "True" {
		t.Errorf("the condition of a bound pod: %v", cond)
	}

	steps := []struct {
		name, why string
		before    func()
		pod       *corev1.Pod
		help      func()
	}{
		{"uncordon", "0/1 nodes are available: 1 node(s) were unschedulable.",
			func() { patch[*corev1.Node](t, c, "", "node-1", `{"spec":{"unschedulable":true}}`) }, asking("cordoned", "100m"),
			func() { patch[*corev1.Node](t, c, "", "node-1", `{"spec":{"unschedulable":null}}`) }},
		{"taint removed", "1 node(s) had untolerated taint(s)",
			func() {
				patch[*corev1.Node](t, c, "", "node-1", `{"spec":{"taints":[{"key":"dedicated","value":"db","effect":"NoSchedule"}]}}`)
			}, asking("tainted", "100m"),
			func() { patch[*corev1.Node](t, c, "", "node-1", `{"spec":{"taints":null}}`) }},
		{"label added", "1 node(s) didn't match Pod's node affinity/selector", nil, asking("picky", "100m", selecting("disk", "ssd")),
			func() { patch[*corev1.Node](t, c, "", "node-1", `{"metadata":{"labels":{"disk":"ssd"}}}`) }},
		{"pod deleted", "1 Insufficient cpu",
			func() { create(t, c, asking("hog", "3")); nodeOf(t, c, "hog") }, asking("large", "2"),
			func() {
				if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", "hog", client.GracePeriod(0)); err != nil {
					t.Fatal(err)
				}
			}},
		{"pod resized", "1 Insufficient cpu",
			func() { create(t, c, asking("shrinking", "1500m")); nodeOf(t, c, "shrinking") }, asking("grateful", "1"),
			func() {
				p := get[*corev1.Pod](t, c, "default", "shrinking")
				p.Spec.Containers[0].Resources.Requests["cpu"] = &metav1.Quantity{String_: "100m"}
				if _, err := client.Update(t.Context(), c, p, client.Subresource("resize")); err != nil {
					t.Fatal(err)
				}
			}},
		{"pod finished", "1 node(s) didn't have free ports for the requested pod ports",
			func() { create(t, c, asking("host-port", "100m", onHostPort(80))); nodeOf(t, c, "host-port") }, asking("host-port-2", "100m", onHostPort(80)),
			func() {
				p := get[*corev1.Pod](t, c, "default", "host-port")
				p.Status.Phase = "Succeeded"
				if _, err := client.UpdateStatus(t.Context(), c, p); err != nil {
					t.Fatal(err)
				}
			}},
		{"node grown", "1 Insufficient cpu", nil, asking("huge", "6"),
			func() {
				n := get[*corev1.Node](t, c, "", "node-1")
				n.Status.Allocatable["cpu"] = &metav1.Quantity{String_: "32"}
				if _, err := client.UpdateStatus(t.Context(), c, n); err != nil {
					t.Fatal(err)
				}
			}},
		{"node added", "1 Insufficient cpu", nil, asking("next", "30"),
			func() {
				n := node(t, c, "node-2")
				n.Status.Allocatable["cpu"] = &metav1.Quantity{String_: "64"}
				if _, err := client.UpdateStatus(t.Context(), c, n); err != nil {
					t.Fatal(err)
				}
			}},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			if s.before != nil {
				s.before()
				// The change is on its way to the scheduler: a pod for which it is decisive tells when it is
				// there.
				if s.name == "uncordon" || s.name == "taint removed" {
					eventually(t, "the scheduler knows", func() bool {
						_, err := client.Delete[*corev1.Pod](t.Context(), c, "default", "probe", client.GracePeriod(0))
						if err != nil && !apierr.IsNotFound(err) {
							t.Fatal(err)
						}
						create(t, c, asking("probe", "1m"))
						for {
							p := get[*corev1.Pod](t, c, "default", "probe")
							if p.GetSpec().GetNodeName() != "" {
								return false
							}
							if core.PodCondition(p, "PodScheduled") != nil {
								return true
							}
						}
					})
				}
			}
			create(t, c, s.pod)
			name := s.pod.GetMetadata().GetName()
			refused(t, c, name, s.why)
			resp, err := api.Explain(t.Context(), &schedulerv1.ExplainRequest{Namespace: "default", Name: name})
			if err != nil || len(resp.GetNodes()) != 1 || resp.GetNodes()[0].GetRefusedBy() == "" || !strings.Contains(resp.GetWaitsFor(), "no node fits") {
				t.Errorf("Explain: %v, %v", resp, err)
			}
			expectEvent(t, c, "default", name, "FailedScheduling: 0/1 nodes are available: ")
			s.help()
			begun := time.Now()
			nodeOf(t, c, name)
			t.Logf("bound %v after the help", time.Since(begun))
		})
	}

	t.Run("gates", func(t *testing.T) {
		create(t, c, asking("gated", "1m", func(p *corev1.Pod) { p.Spec.SchedulingGates = []*corev1.PodSchedulingGate{{Name: "example.com/wait"}} }))
		create(t, c, asking("open", "1m"))
		nodeOf(t, c, "open")
		p := get[*corev1.Pod](t, c, "default", "gated")
		if cond := core.PodCondition(p, "PodScheduled"); p.GetSpec().GetNodeName() != "" || cond.GetReason() != "SchedulingGated" {
			t.Errorf("a gated pod is on %q, its condition %v", p.GetSpec().GetNodeName(), cond)
		}
		resp, err := api.Explain(t.Context(), &schedulerv1.ExplainRequest{Namespace: "default", Name: "gated"})
		if err != nil || !strings.Contains(resp.GetWaitsFor(), "example.com/wait") {
			t.Errorf("Explain: %v, %v", resp.GetWaitsFor(), err)
		}
		patch[*corev1.Pod](t, c, "default", "gated", `{"spec":{"schedulingGates":null}}`)
		nodeOf(t, c, "gated")
	})
}

// TestSchedulerAffinity plays the steps of Kubernetes' specs on affinity and spread: a pod with
// required node affinity, pods apart from each other, pods near others, pods spread over zones.
func TestSchedulerAffinity(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	for name, zone := range map[string]string{"node-1": "a", "node-2": "b"} {
		node(t, c, name)
		patch[*corev1.Node](t, c, "", name, `{"metadata":{"labels":{"kubernetes.io/hostname":%q,"zone":%q}}}`, name, zone)
	}
	api, _ := runScheduler(t, h, "master-1")
	web := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}
	apart := func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []*corev1.PodAffinityTerm{{TopologyKey: "kubernetes.io/hostname", LabelSelector: web}},
		}}
	}
	named := func(app string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Metadata.Labels = map[string]string{"app": app} }
	}

	create(t, c, asking("by-label", "1m", named("x"), func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []*corev1.NodeSelectorTerm{{MatchExpressions: []*corev1.NodeSelectorRequirement{
				{Key: "zone", Operator: "NotIn", Values: []string{"a"}},
			}}},
		}}}
	}))
	if got := nodeOf(t, c, "by-label"); got != "node-2" {
		t.Errorf("by-label is on %s", got)
	}

	create(t, c, asking("apart-1", "1m", apart))
	create(t, c, asking("apart-2", "1m", apart))
	if a, b := nodeOf(t, c, "apart-1"), nodeOf(t, c, "apart-2"); a == b {
		t.Errorf("both pods are on %s", a)
	}
	create(t, c, asking("apart-3", "1m", apart))
	refused(t, c, "apart-3", "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.")
	resp, err := api.Explain(t.Context(), &schedulerv1.ExplainRequest{Namespace: "default", Name: "apart-3"})
	if want := "has 1 pod matching app=web in namespace default"; err != nil || !strings.Contains(resp.GetNodes()[0].GetReason(), want) {
		t.Errorf("Explain: %v, %v", resp, err)
	}

	create(t, c, asking("near", "1m", named("y"), func(p *corev1.Pod) {
		term := &corev1.PodAffinityTerm{TopologyKey: "zone", LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}}}
		term.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "blue"}}
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []*corev1.PodAffinityTerm{term}}}
	}))
	create(t, c, asking("db", "1m", named("db"), selecting("zone", "b")))
	nodeOf(t, c, "db")
	refused(t, c, "near", "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.")
	patch[*corev1.Namespace](t, c, "", "default", `{"metadata":{"labels":{"team":"blue"}}}`)
	if got := nodeOf(t, c, "near"); got != "node-2" {
		t.Errorf("near is on %s", got)
	}

	spread := func(p *corev1.Pod) {
		p.Metadata.Labels = map[string]string{"app": "spread"}
		p.Spec.TopologySpreadConstraints = []*corev1.TopologySpreadConstraint{{
			TopologyKey: "zone", MaxSkew: 1, WhenUnsatisfiable: "DoNotSchedule", LabelSelector: &metav1.LabelSelector{MatchLabels: p.Metadata.Labels},
		}}
	}
	in := map[string]int{}
	for i := range 4 {
		name := fmt.Sprint("spread-", i)
		create(t, c, asking(name, "1m", spread))
		in[nodeOf(t, c, name)]++
	}
	if in["node-1"] != 2 || in["node-2"] != 2 {
		t.Errorf("pods by node: %v", in)
	}
	create(t, c, asking("skewed", "1m", spread, selecting("zone", "a"), func(p *corev1.Pod) {
		p.Spec.TopologySpreadConstraints[0].MinDomains = proto.Int32(2)
	}))
	refused(t, c, "skewed", "1 node(s) didn't match pod topology spread constraints")
	if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", "apart-1", client.GracePeriod(0)); err != nil {
		t.Fatal(err)
	}
	nodeOf(t, c, "apart-3")
}

func TestSchedulerOrder(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	// All wait before the scheduler and the node come; there is room for two.
	create(t, c, asking("none", "2"))
	for name, priority := range map[string]int32{"low": -5, "middle": 10, "high": 1000} {
		create(t, c, &schedulingv1.PriorityClass{Metadata: &metav1.ObjectMeta{Name: name}, Value: priority})
		create(t, c, asking(name, "2", func(p *corev1.Pod) { p.Spec.PriorityClassName = name }))
	}
	node(t, c, "node-1")
	runScheduler(t, h, "master-1")
	nodeOf(t, c, "high")
	nodeOf(t, c, "middle")
	refused(t, c, "none", "1 Insufficient cpu")
	refused(t, c, "low", "1 Insufficient cpu")
}

// TestSchedulerBatches deletes pods while many are bound: the others are all bound, none is lost.
func TestSchedulerBatches(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	for n := range 5 {
		node(t, c, fmt.Sprint("node-", n))
	}
	ops := make([]client.Operation, 300)
	for n := range ops {
		ops[n] = client.OpCreate(asking(fmt.Sprint("p-", n), "1m"))
	}
	if _, err := client.Transact(t.Context(), c, ops...); err != nil {
		t.Fatal(err)
	}
	runScheduler(t, h, "master-1")
	var deleting sync.WaitGroup
	for worker := range 4 {
		deleting.Go(func() {
			for n := worker * 7; n < 300; n += 28 {
				if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", fmt.Sprint("p-", n), client.GracePeriod(0)); err != nil && !apierr.IsNotFound(err) {
					t.Error(err)
				}
			}
		})
	}
	deleting.Wait()
	begun := time.Now()
	eventually(t, "all that are left are bound", func() bool {
		left, _, err := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{FieldSelector: "spec.nodeName="})
		return err == nil && len(left) == 0
	})
	t.Logf("all bound %v after the last deletion", time.Since(begun))
	if left := podsOf(t, c, "default", ""); len(left) != 300-43 {
		t.Errorf("%d pods are left, want %d", len(left), 300-43)
	}
}

// TestSchedulerHandOver stops leaders while they bind, and expects every pod to be bound once and
// no node overfull.
func TestSchedulerHandOver(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	for n := range 4 {
		node(t, c, fmt.Sprint("node-", n))
	}
	stops := map[string]func(){}
	for _, host := range []string{"master-1", "master-2"} {
		_, stops["scheduler@"+host] = runScheduler(t, h, host)
	}
	// Every binding of every pod, in order.
	bindings := map[string][]string{}
	begin, err := client.Create(t.Context(), c, &corev1.ConfigMap{Metadata: meta("default", "begin")})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 4 {
		ops := make([]client.Operation, 100)
		for n := range ops {
			ops[n] = client.OpCreate(asking(fmt.Sprintf("p-%d-%d", round, n), "40m"))
		}
		if _, err := client.Transact(t.Context(), c, ops...); err != nil {
			t.Fatal(err)
		}
		l, err := client.Get[*coordinationv1.Lease](t.Context(), c, "kube-system", "scheduler")
		if err == nil {
			leader := l.GetSpec().GetHolderIdentity()
			stops[leader]()
			_, stops[leader] = runScheduler(t, h, strings.TrimPrefix(leader, "scheduler@"))
		}
	}
	// 16 cores hold 400 pods of 40 thousandths exactly.
	eventually(t, "all are bound", func() bool {
		left, _, err := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{FieldSelector: "spec.nodeName="})
		return err == nil && len(left) == 0
	})
	last := create(t, c, pod("default", "end"))
	for e, err := range client.Watch[*corev1.Pod](t.Context(), c, client.WatchOptions{ResourceVersion: begin.Metadata.ResourceVersion}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == apiv1.EventType_EVENT_TYPE_BOOKMARK {
			continue
		}
		name, on := e.Object.GetMetadata().GetName(), e.Object.GetSpec().GetNodeName()
		if name == last.GetMetadata().GetName() {
			break
		}
		if on != "" && !slices.Contains(bindings[name], on) {
			bindings[name] = append(bindings[name], on)
		}
	}
	full := map[string]int{}
	for name, nodes := range bindings {
		if len(nodes) != 1 {
			t.Errorf("%s was bound to %v", name, nodes)
		}
		full[nodes[0]]++
	}
	for name, n := range full {
		if n > 100 {
			t.Errorf("%s holds %d pods of 40m, which is more than its 4 cores", name, n)
		}
	}
	if len(bindings) != 400 {
		t.Errorf("%d pods were bound, want 400", len(bindings))
	}
}
