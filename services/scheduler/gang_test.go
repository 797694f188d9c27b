package scheduler

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/kinds/scheduling"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	schedulerv1 "github.com/xebec-project/xebec/proto/xebec/scheduler/v1"
	schedulingv1alpha2 "github.com/xebec-project/xebec/proto/xebec/scheduling/v1alpha2"
)

func inGroup(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: proto.String(name)}
	}
}

// newGang returns a PodGroup; without pods that it needs, its policy is basic.
func newGang(name string, minCount int32) *schedulingv1alpha2.PodGroup {
	policy := &schedulingv1alpha2.PodGroupSchedulingPolicy{Basic: &schedulingv1alpha2.BasicSchedulingPolicy{}}
	if minCount > 0 {
		policy = &schedulingv1alpha2.PodGroupSchedulingPolicy{Gang: &schedulingv1alpha2.GangSchedulingPolicy{MinCount: minCount}}
	}
	return &schedulingv1alpha2.PodGroup{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: &schedulingv1alpha2.PodGroupSpec{SchedulingPolicy: policy},
	}
}

// gangsOf runs one batch and returns the gangs that got nodes as "pod@node ...", in the order of
// their pods.
func gangsOf(l *loop) (string, []gang) {
	_, _ = l.schedule()
	gangs := l.takeGangs()
	var all []string
	for _, g := range gangs {
		for _, a := range g.assignments {
			all = append(all, a.Pod.Name+"@"+a.Node)
		}
	}
	return strings.Join(all, " "), gangs
}

func TestMaxMinCountIsATransaction(t *testing.T) {
	if scheduling.MaxMinCount != client.MaxOperations {
		t.Errorf("a gang has up to %d pods, and a transaction up to %d operations", scheduling.MaxMinCount, client.MaxOperations)
	}
}

func TestGangsWaitForTheirPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := idleLoop(t)
		l.nodeChanged(nil, newNode("a", "2"))
		expect := func(when, want string) []gang {
			t.Helper()
			got, gangs := gangsOf(l)
			if got != want {
				t.Errorf("%s: placed %q, want %q", when, got, want)
			}
			return gangs
		}
		for _, name := range []string{"p0", "p1"} {
			l.podChanged(nil, newPod(name, "1", inGroup("g")))
		}
		expect("without the group", "")
		l.podGroupChanged(nil, newGang("g", 3))
		expect("with 2 of 3 pods", "")
		third := newPod("p2", "1", inGroup("g"))
		l.podChanged(nil, third)
		expect("on a node that is too small", "")
		for _, n := range l.cache.Snapshot().Nodes {
			if n.Used[0] != 0 {
				t.Errorf("%s has reservations: %v", n.Name, n.Used)
			}
		}
		l.podChanged(third, nil)
		afterBackoff()
		l.nodeChanged(nil, newNode("b", "1"))
		expect("with 2 of 3 pods and room for 3", "")
		l.podChanged(nil, third)
		gangs := expect("with all", "p0@a p1@b p2@a")
		if len(gangs) != 1 {
			t.Fatalf("%d transactions", len(gangs))
		}
		// A pod beyond minCount waits until the others are bound.
		l.nodeChanged(nil, newNode("c", "1"))
		l.podChanged(nil, newPod("p3", "1", inGroup("g")))
		if got, _, _ := scheduled(l); got != "" {
			t.Errorf("placed %q before the gang is bound", got)
		}
		for _, a := range gangs[0].assignments {
			l.podChanged(newPod(a.Pod.Name, "1", inGroup("g")), newPod(a.Pod.Name, "1", inGroup("g"), on(a.Node)))
		}
		l.gangBound(gangs[0], nil)
		afterBackoff()
		if got, _, _ := scheduled(l); got != "p3@c" {
			t.Errorf("placed %q after the gang was bound", got)
		}
	})
}

func TestBasicGroupsArePlacedOneByOne(t *testing.T) {
	l := idleLoop(t)
	l.nodeChanged(nil, newNode("a", "1"))
	l.podChanged(nil, newPod("p0", "1", inGroup("g")))
	l.podChanged(nil, newPod("p1", "1", inGroup("g")))
	if got, _, _ := scheduled(l); got != "" {
		t.Errorf("placed %q without the group", got)
	}
	l.podGroupChanged(nil, newGang("g", 0))
	if got, _, _ := scheduled(l); got != "p0@a" && got != "p1@a" {
		t.Errorf("placed %q", got)
	}
}

func TestFailedBindingOfGang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := idleLoop(t)
		l.nodeChanged(nil, newNode("a", "2"))
		l.podGroupChanged(nil, newGang("g", 2))
		pods := []*corev1.Pod{newPod("p0", "1", inGroup("g")), newPod("p1", "1", inGroup("g"))}
		for _, p := range pods {
			l.podChanged(nil, p)
		}
		got, gangs := gangsOf(l)
		if got != "p0@a p1@a" {
			t.Fatalf("placed %q", got)
		}
		// One is deleted before the transaction, which is refused.
		l.podChanged(pods[1], nil)
		l.gangBound(gangs[0], apierr.NotFound(kinds.Of(pods[1]), "p1"))
		afterBackoff()
		if got, _ := gangsOf(l); got != "" {
			t.Errorf("placed %q of a gang that lost a pod", got)
		}
		if used := l.cache.Snapshot().Node("a").Used[0]; used != 0 {
			t.Errorf("%d is reserved", used)
		}
		l.podChanged(nil, newPod("p2", "1", inGroup("g")))
		afterBackoff()
		if got, _ := gangsOf(l); got != "p0@a p2@a" {
			t.Errorf("placed %q when the gang is whole again", got)
		}
	})
}

// TestGangsAtRandom has gangs and other pods come and go on nodes without room for all, and
// bindings fail. As long as no pod of a gang was deleted, it has no nodes or as many as it needs.
func TestGangsAtRandom(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			l := idleLoop(t)
			for i := range 3 + r.IntN(4) {
				l.nodeChanged(nil, newNode(fmt.Sprint("n", i), "4"))
			}
			shown, whole := map[string]*corev1.Pod{}, map[string]int{}
			bind := func(name, node string) {
				now := proto.CloneOf(shown[name])
				now.Spec.NodeName = node
				l.podChanged(shown[name], now)
				shown[name] = now
			}
			for i := range 40 {
				group, need := fmt.Sprint("g", i), 1+r.IntN(5)
				for j := range need + r.IntN(3) {
					p := newPod(fmt.Sprint(group, "-", j), fmt.Sprintf("%dm", 200+r.IntN(1500)), inGroup(group), withPriority(int32(r.IntN(3))))
					shown[p.GetMetadata().GetName()] = p
					l.podChanged(nil, p)
				}
				l.podGroupChanged(nil, newGang(group, int32(need)))
				whole[group] = need
				for range 3 {
					<-time.After(time.Duration(r.IntN(int(2 * time.Second))))
					assignments, _ := l.schedule()
					l.takePreemptions()
					for _, a := range assignments {
						bind(a.Pod.Name, a.Node)
					}
					for _, g := range l.takeGangs() {
						if r.IntN(4) == 0 {
							l.gangBound(g, apierr.NotFound(kinds.Of(new(corev1.Pod)), "p"))
							continue
						}
						for _, a := range g.assignments {
							bind(a.Pod.Name, a.Node)
						}
						l.gangBound(g, nil)
					}
					expectWhole(t, seed, shown, whole)
					expectNoOvercommit(t, l)
				}
				// All pods of a group end.
				if r.IntN(2) == 0 {
					gone := fmt.Sprint("g", r.IntN(i+1))
					for name, p := range shown {
						if p.GetSpec().GetSchedulingGroup().GetPodGroupName() == gone {
							l.podChanged(p, nil)
							delete(shown, name)
						}
					}
				}
			}
		})
	}
}

func expectWhole(t *testing.T, seed uint64, shown map[string]*corev1.Pod, whole map[string]int) {
	t.Helper()
	placed := map[string]int{}
	for _, p := range shown {
		if p.GetSpec().GetNodeName() != "" {
			placed[p.GetSpec().GetSchedulingGroup().GetPodGroupName()]++
		}
	}
	for group, n := range placed {
		if n < whole[group] {
			t.Fatalf("seed %d: %s has %d nodes and needs %d", seed, group, n, whole[group])
		}
	}
}

// TestGangsAreBoundInOneTransaction runs the service, and looks at what users see.
func TestGangsAreBoundInOneTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := clienttest.Start(t)
		clienttest.Seed(s, newNode("a", "2"))
		clienttest.Seed(s, newGang("g", 3))
		clienttest.Seed(s, newPod("p0", "1", inGroup("g")), newPod("p1", "1", inGroup("g")), newPod("p2", "1", inGroup("g")))
		var bound []int
		s.Intercept(func(_ string, req proto.Message) error {
			if tx, ok := req.(*apiv1.TransactRequest); ok && tx.GetOperations()[0].GetBind() != nil {
				bound = append(bound, len(tx.GetOperations()))
			}
			return nil
		})
		run(t, DefaultConfig(), c)
		status := func() string {
			g, err := client.Get[*schedulingv1alpha2.PodGroup](t.Context(), c, "default", "g")
			if err != nil {
				t.Fatal(err)
			}
			cond := condition.Find(g.GetStatus().GetConditions(), scheduling.PodGroupScheduled)
			return fmt.Sprintf("%s %s: %s", cond.GetStatus(), cond.GetReason(), cond.GetMessage())
		}
		const why = "pod group is unschedulable: 3 pods have to be placed together, 2 fit; pod default/p2: 0/1 nodes are available: 1 Insufficient cpu."
		eventually(t, "the group says why it has no nodes", func() bool { return status() == "False Unschedulable: "+why })
		eventually(t, "a pod that would fit says why it has none", func() bool {
			return core.PodCondition(getPod(t, c, "p0"), core.PodScheduled).GetMessage() == why
		})
		clienttest.Seed(s, newNode("b", "2"))
		eventually(t, "the group is scheduled", func() bool { return status() == "True Scheduled: " })
		revisions := map[string]bool{}
		for _, name := range []string{"p0", "p1", "p2"} {
			p := getPod(t, c, name)
			revisions[p.GetMetadata().GetResourceVersion()] = p.GetSpec().GetNodeName() != ""
		}
		if fmt.Sprint(bound) != "[3]" || len(revisions) != 1 {
			t.Errorf("the transactions bound %v pods, at revisions %v", bound, revisions)
		}
	})
}

func TestExplainGangs(t *testing.T) {
	s, c := clienttest.Start(t)
	e := &explainer{client: c, cfg: DefaultConfig(), profiles: DefaultConfig().newProfiles(), scheduler: DefaultName}
	clienttest.Seed(s, newNode("a", "2"))
	clienttest.Seed(s, newGang("big", 3), newGang("few", 2), newGang("fits", 2))
	clienttest.Seed(s, newPod("lost", "1", inGroup("none")), newPod("few-0", "1", inGroup("few")),
		newPod("big-0", "1", inGroup("big")), newPod("big-1", "1", inGroup("big")), newPod("big-2", "1", inGroup("big")),
		newPod("fits-0", "1", inGroup("fits")), newPod("fits-1", "500m", inGroup("fits")))
	const big = "room for its gang: pod group is unschedulable: 3 pods have to be placed together, 2 fit; " +
		"pod default/big-2: 0/1 nodes are available: 1 Insufficient cpu."
	for name, want := range map[string]struct{ waitsFor, refusedBy, reason string }{
		"lost":  {"its pod group default/none, which does not exist", "", ""},
		"few-0": {"other pods of its gang default/few: 1 of 2 exist", "", ""},
		"big-0": {big, "", ""},
		// The two pods before it take the node.
		"big-2":  {big, "NodeResourcesFit", "insufficient cpu: 1 requested, 0 free"},
		"fits-1": {"the scheduler: 1 of 1 nodes fit", "", ""},
	} {
		got, err := e.Explain(t.Context(), &schedulerv1.ExplainRequest{Namespace: "default", Name: name})
		if err != nil {
			t.Fatal(err)
		}
		row := got.GetNodes()[0]
		if !strings.HasPrefix(got.GetWaitsFor(), want.waitsFor) || row.GetRefusedBy() != want.refusedBy || !strings.HasPrefix(row.GetReason(), want.reason) {
			t.Errorf("%s: waits for %q, %s %q", name, got.GetWaitsFor(), row.GetRefusedBy(), row.GetReason())
		}
	}
}
