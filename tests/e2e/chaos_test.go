package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/lab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// The longest time that writes may stop for when one master dies. A quiet machine needs two
// seconds; tests share theirs. Failures that only a connection's keepalive detects take longer than
// this: 12 s for etcd's clients, 15 s for all others.
const writeGap = 10 * time.Second

// harm is something done to a cluster, and what has to go on all the same.
type harm struct {
	name string
	// do does it, and returns once it is done; repair repairs what it leaves broken.
	do     func(t *testing.T, p *person)
	repair func(t *testing.T, p *person)
	// master is the one that do takes down, if it is one for certain: no service may be led from there
	// afterwards.
	master string
	// gap is how long writes may stop for; 0 when they may not pass at all meanwhile.
	gap time.Duration
	// lossy says that calls of the service may fail for a while: a node with endpoints is gone.
	lossy bool
	// moves says that pods of node-2 may move.
	moves bool
}

// TestChaos breaks one thing after the other in a cluster at work. Whatever is broken: what was
// acknowledged stays, what need not move does not, and the service answers.
func TestChaos(t *testing.T) {
	s := sharedShip(t)
	s.loadImages(t)
	p := s.person(t)
	// Pods follow from a node that is gone after 2 s. A node whose containerd starts again is not: it
	// may be not ready for longer than that on a busy machine.
	toleration := "        - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}\n" +
		"        - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 300}\n"
	p.apply(t, strings.Replace(sample(t, "echo.yaml"), "    spec:\n      terminationGrace", "    spec:\n      tolerations:\n"+toleration+"      terminationGrace", 1))
	p.spread(t, 3)
	p.probe(t)

	kill := func(target string, options lab.KillOptions) func(*testing.T, *person) {
		return func(t *testing.T, p *person) {
			if err := p.Kill(t.Context(), target, options); err != nil {
				t.Fatal(err)
			}
		}
	}
	start := func(target string) func(*testing.T, *person) {
		return func(t *testing.T, p *person) {
			if err := p.Start(t.Context(), target); err != nil {
				t.Fatal(err)
			}
		}
	}
	var harms []harm
	for _, master := range []string{"master-1", "master-2", "master-3"} {
		harms = append(harms, harm{
			name: master, master: master, gap: writeGap,
			// As a user does it.
			do:     func(t *testing.T, p *person) { p.do(t, "lab", "kill", master, "--name", p.Spec.Name) },
			repair: func(t *testing.T, p *person) { p.do(t, "lab", "start", master, "--name", p.Spec.Name) },
		})
	}
	harms = append(harms,
		harm{name: "the leader's master loses power", gap: writeGap, do: func(t *testing.T, p *person) {
			kill(p.etcdLeader(t), lab.KillOptions{PowerOff: true})(t, p)
		}, repair: startAll},
		harm{name: "the leader of etcd", gap: writeGap, do: func(t *testing.T, p *person) {
			kill(p.etcdLeader(t)+"/etcd", lab.KillOptions{})(t, p)
		}},
		harm{name: "every service's leader", gap: writeGap, do: killLeaders},
		harm{name: "an agent", gap: writeGap, do: func(t *testing.T, p *person) { p.killDaemon(t, "node-1/agent") }},
		harm{name: "containerd", gap: writeGap, do: func(t *testing.T, p *person) { p.killDaemon(t, "node-1/containerd") }},
		harm{name: "agent and containerd at once", gap: writeGap, do: func(t *testing.T, p *person) {
			kill("node-2/agent", lab.KillOptions{})(t, p)
			p.killDaemon(t, "node-2/containerd")
		}},
		harm{name: "the wire of a master", gap: writeGap, do: func(t *testing.T, p *person) {
			if err := p.Cut(t.Context(), "master-2"); err != nil {
				t.Fatal(err)
			}
		}, repair: healAll},
		harm{name: "all masters", do: func(t *testing.T, p *person) {
			var group errgroup.Group
			for _, master := range p.Spec.MasterHosts() {
				group.Go(func() error { return p.Kill(t.Context(), master.Name, lab.KillOptions{}) })
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			// The service goes on without any of them.
			p.awaitCalls(t, byName, 100)
		}, repair: startAll},
		harm{name: "the wire of a node", gap: writeGap, lossy: true, moves: true, do: func(t *testing.T, p *person) {
			if err := p.Cut(t.Context(), "node-2"); err != nil {
				t.Fatal(err)
			}
			p.awaitLeft(t, "node-2")
		}, repair: healAll},
		harm{name: "a node", gap: writeGap, lossy: true, moves: true, do: func(t *testing.T, p *person) {
			kill("node-2", lab.KillOptions{PowerOff: true})(t, p)
			p.awaitLeft(t, "node-2")
		}, repair: start("node-2")},
	)
	for _, h := range harms {
		t.Run(h.name, func(t *testing.T) { h.run(t, p) })
		if t.Failed() {
			// What comes next would only show the same.
			t.FailNow()
		}
	}
}

func (h harm) run(t *testing.T, p *person) {
	p.awaitWhole(t)
	p.spread(t, 3)
	nodes := []string{"node-1", "node-2"}
	before := p.crew(t, nodes...)
	w := p.write(t)
	w.awaitWrites(t, 10)
	began, called := time.Now(), make(map[string]int)
	for _, prober := range []string{byAddress, byName} {
		called[prober] = len(p.proberLog(t, prober))
	}
	h.do(t, p)
	if h.gap > 0 {
		w.awaitWrites(t, 20)
	}
	for _, service := range elected {
		if h.master != "" {
			p.leader(t, service, func(_, host string) bool { return host != h.master })
		}
	}
	t.Logf("harmed and lived with for %.1f s", time.Since(began).Seconds())
	repaired := time.Now()
	if h.repair != nil {
		h.repair(t, p)
	}
	p.awaitWhole(t)
	t.Logf("whole again after %.1f s", time.Since(repaired).Seconds())
	w.awaitWrites(t, 20)
	if gap := w.finish(t); h.gap > 0 && gap > h.gap {
		t.Errorf("writes stopped for %s", gap)
	}
	p.awaitEcho(t, 3)
	if h.moves {
		// Those elsewhere stay as they were.
		nodes = nodes[:1]
		now := p.crew(t, nodes...)
		for name := range before {
			if now[name] == "" && strings.HasPrefix(before[name], "on node-2") {
				delete(before, name)
			}
		}
		for name := range now {
			if before[name] == "" {
				delete(now, name)
			}
		}
		before.same(t, now)
	} else {
		before.same(t, p.crew(t, nodes...))
	}
	for prober, before := range called {
		log := p.proberLog(t, prober)[before:]
		failed := failures(log)
		t.Logf("%d calls of the service %s in %.1f s, %d failed", len(log), prober, time.Since(began).Seconds(), len(failed))
		if len(log) == 0 {
			t.Errorf("prober %s made no call", prober)
		}
		if !h.lossy && len(failed) > 0 {
			t.Errorf("calls of the service %s failed: %v", prober, failed)
		}
	}
	// Every pod that is there now answers, on both nodes' behalf.
	p.awaitAnswers(t)
}

// spread waits for n pods of the sample deployment and brings one back to a node that has none of
// them, as after its loss.
func (p *person) spread(t *testing.T, n int) []*corev1.Pod {
	t.Helper()
	var pods []*corev1.Pod
	eventually(t, "pods are on both nodes", waitLimit, func() error {
		pods = p.awaitEcho(t, n)
		nodes := nodesOf(pods)
		if len(nodes) == 2 {
			return nil
		}
		// The scheduler hears in its own time that a node may be used: only what it places then goes
		// there.
		p.do(t, "delete", "pod", pods[0].GetMetadata().GetName(), "--grace-period=1")
		return fmt.Errorf("they are all on %v", nodes)
	})
	return pods
}

// awaitLeft waits until no pod of the sample deployment counts on the node any more and three
// others are ready.
func (p *person) awaitLeft(t *testing.T, node string) {
	t.Helper()
	await(t, p.client, p.namespace, "pods have moved from "+node, waitLimit, func(pods []*corev1.Pod) bool {
		return allReady(pods, "echo", 3) && !slices.Contains(nodesOf(labelled(pods, "echo")), node)
	})
	p.awaitAnswers(t)
}

// awaitCalls waits until a prober has made so many calls more.
func (p *person) awaitCalls(t *testing.T, prober string, n int) {
	t.Helper()
	before := len(p.proberLog(t, prober))
	eventually(t, "the service answers "+prober, waitLimit, func() error {
		if made := len(p.proberLog(t, prober)) - before; made < n {
			return fmt.Errorf("%d calls", made)
		}
		return nil
	})
}

// awaitAnswers waits until exactly the pods that are ready answer to the prober, without a failure.
func (p *person) awaitAnswers(t *testing.T) {
	t.Helper()
	pods := await(t, p.client, p.namespace, "three pods ready", waitLimit, func(pods []*corev1.Pod) bool { return allReady(pods, "echo", 3) })
	want := names(labelled(pods, "echo"))
	eventually(t, "the service's pods answer", waitLimit, func() error {
		log := p.proberLog(t, byAddress)
		log = log[max(0, len(log)-50):]
		if failed := failures(log); len(failed) > 0 {
			return errors.New(failed[len(failed)-1])
		}
		got := make(map[string]bool)
		for _, line := range log {
			got[line[strings.LastIndexByte(line, ' ')+1:]] = true
		}
		for _, name := range want {
			if !got[name] {
				return fmt.Errorf("%v answer, want %v", got, want)
			}
			delete(got, name)
		}
		if len(got) > 0 {
			return fmt.Errorf("%v answer too, want only %v", got, want)
		}
		return nil
	})
}

// killLeaders kills the leader of every elected service and waits until each has one again.
func killLeaders(t *testing.T, p *person) {
	old := make(map[string]string)
	for _, service := range elected {
		uid, host := p.leader(t, service, func(_, _ string) bool { return true })
		old[service] = uid
		if err := p.Kill(t.Context(), host+"/"+service, lab.KillOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, service := range elected {
		_, host := p.leader(t, service, func(uid, _ string) bool { return uid != old[service] })
		t.Logf("%s is led by %s", service, host)
	}
}

// killDaemon kills a node's agent or containerd and waits until it runs again.
func (p *person) killDaemon(t *testing.T, target string) {
	t.Helper()
	before := p.process(t, target)
	if err := p.Kill(t.Context(), target, lab.KillOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, target+" runs again", waitLimit, func() error {
		if now := p.process(t, target); now.PID == 0 || now.PID == before.PID {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	// It is at work again when the node can be asked, through the gateways, what runs on it.
	node, _, _ := strings.Cut(target, "/")
	for _, pod := range labelled(p.awaitEcho(t, 3), "echo") {
		if pod.GetSpec().GetNodeName() != node {
			continue
		}
		p.reachable(t, pod.GetMetadata().GetName())
	}
}

func startAll(t *testing.T, p *person) {
	t.Helper()
	var group errgroup.Group
	for _, h := range p.Spec.Hosts() {
		group.Go(func() error { return p.Start(t.Context(), h.Name) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

func healAll(t *testing.T, p *person) {
	t.Helper()
	if err := p.Heal(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
}
