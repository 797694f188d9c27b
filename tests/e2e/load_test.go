package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/lab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// How much a run does by default, which CI has time for. The full proof, whose figures are in
// docs/figures.md, is
//
//	XEBEC_LOAD_REQUESTS=1000000 XEBEC_LOAD_KILLS=100 go test -timeout 60m -run TestLoad ./tests/e2e
const (
	loadRollouts   = 10
	loadRequests   = 30_000
	loadKills      = 10
	containerKills = 10
	// loadLimit bounds all of one test.
	loadLimit = 25 * time.Minute
)

// amount returns a number that the environment may raise.
func amount(t *testing.T, variable string, standard int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return standard
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		t.Fatalf("%s=%q is not a number", variable, text)
	}
	return n
}

// loadEcho is the sample deployment with pods enough for both nodes, which drain for less time than
// its pods by default.
func (p *person) loadEcho(t *testing.T) *corev1.Service {
	t.Helper()
	manifest := strings.Replace(sample(t, "echo.yaml"), "replicas: 3", "replicas: 4", 1)
	manifest = strings.Replace(manifest, "maxSurge: 1", "maxSurge: 2", 1)
	manifest = strings.Replace(manifest, "          env:\n", "          env:\n            - {name: DRAIN, value: 300ms}\n", 1)
	p.apply(t, manifest)
	p.spread(t, 4)
	svc, err := client.Get[*corev1.Service](t.Context(), p.client, p.namespace, "echo")
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

// storms runs a load on the address from a pod on each node.
func (p *person) storms(t *testing.T, address string, args ...string) []string {
	t.Helper()
	var names []string
	for _, node := range []string{"node-1", "node-2"} {
		name := "storm-" + node
		names = append(names, name)
		command, err := json.Marshal(append([]string{"/client", "storm", address, "--for", loadLimit.String(), "--timeout", "10s"}, args...))
		if err != nil {
			t.Fatal(err)
		}
		p.apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: storm}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 20
  nodeSelector: {kubernetes.io/hostname: %s}
  containers:
    - {name: storm, image: "xebec/client:1", imagePullPolicy: IfNotPresent, command: %s}
`, name, node, command))
	}
	await(t, p.client, p.namespace, "the load begins", waitLimit, func(pods []*corev1.Pod) bool { return allReady(pods, "storm", 2) })
	return names
}

// stormed is what a load said last, all its pods together.
type stormed map[string]struct{ Requests, Failed, Reopened int64 }

// add adds the last line of a pod's log, and returns the failures that it tells of.
func (s stormed) add(t *testing.T, log string) []string {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		var last struct {
			Kinds    map[string]struct{ Requests, Failed, Reopened int64 }
			Failures []string
		}
		if json.Unmarshal([]byte(lines[i]), &last) != nil || last.Kinds == nil {
			continue
		}
		for kind, o := range last.Kinds {
			sum := s[kind]
			sum.Requests, sum.Failed, sum.Reopened = sum.Requests+o.Requests, sum.Failed+o.Failed, sum.Reopened+o.Reopened
			s[kind] = sum
		}
		return last.Failures
	}
	return nil
}

func (p *person) stormSoFar(t *testing.T, names []string) stormed {
	t.Helper()
	sum := stormed{}
	for _, name := range names {
		if o := p.try(t, "logs", name, "--tail", "2"); o.code == 0 {
			sum.add(t, o.stdout)
		}
	}
	return sum
}

// calm ends the load and fails the test for each failure that it saw.
func (p *person) calm(t *testing.T, names []string) stormed {
	t.Helper()
	for _, name := range names {
		p.do(t, "exec", name, "--", "/client", "stop")
	}
	await(t, p.client, p.namespace, "the load has ended", waitLimit, func(pods []*corev1.Pod) bool {
		for _, pod := range labelled(pods, "storm") {
			if phase := pod.GetStatus().GetPhase(); phase != core.PodSucceeded && phase != core.PodFailed {
				return false
			}
		}
		return true
	})
	sum := stormed{}
	for _, name := range names {
		for _, failure := range sum.add(t, p.do(t, "logs", name, "--tail", "2")) {
			t.Errorf("%s: %s", name, failure)
		}
	}
	for what, n := range sum {
		t.Logf("%s: %d requests, %d failed, %d sent again on a new connection", what, n.Requests, n.Failed, n.Reopened)
		if n.Failed > 0 {
			t.Errorf("%d of %d %s requests failed", n.Failed, n.Requests, what)
		}
	}
	return sum
}

// TestLoadRollouts replaces a deployment's pods again and again under load from both nodes: no
// request may fail.
func TestLoadRollouts(t *testing.T) {
	s := sharedShip(t)
	s.loadImages(t)
	p := s.person(t)
	requests := int64(amount(t, "XEBEC_LOAD_REQUESTS", loadRequests))
	svc := p.loadEcho(t)
	storms := p.storms(t, svc.GetSpec().GetClusterIp()+":80", "--tcp", "3", "--keep=1", "--udp", "1")
	began, made := time.Now(), 0
	for ; made < loadRollouts || p.stormSoFar(t, storms)["tcp"].Requests < requests; made++ {
		if time.Since(began) > loadLimit {
			t.Fatalf("only %d rollouts and %d requests in %s", made, p.stormSoFar(t, storms)["tcp"].Requests, loadLimit)
		}
		p.do(t, "rollout", "restart", "deployment/echo")
		p.do(t, "rollout", "status", "deployment/echo", "--timeout", "90s")
	}
	t.Logf("%d rollouts in %.0f s", made, time.Since(began).Seconds())
	sum := p.calm(t, storms)
	for what, n := range sum {
		if what == "tcp" && n.Requests < requests || n.Requests == 0 {
			t.Errorf("%s: only %d requests", what, n.Requests)
		}
	}
	p.drained(t)
}

// drained checks that no pod was stopped before all nodes had dropped it.
func (p *person) drained(t *testing.T) {
	t.Helper()
	events, _, err := client.List[*corev1.Event](t.Context(), p.client, client.ListOptions{Namespace: p.namespace})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.GetReason() == "NotDrained" {
			t.Errorf("%s: %s", e.GetInvolvedObject().GetName(), e.GetMessage())
		}
	}
}

// TestLoadKills kills agents, then containerds, at moments of no choosing under load: no connection
// may break, old or new.
func TestLoadKills(t *testing.T) {
	s := sharedShip(t)
	s.loadImages(t)
	p := s.person(t)
	svc := p.loadEcho(t)
	storms := p.storms(t, svc.GetSpec().GetClusterIp()+":80", "--tcp", "2", "--keep=1", "--udp", "1", "--hold", "20")
	before := p.crew(t, "node-1", "node-2")
	for _, harm := range []struct {
		process string
		times   int
	}{{"agent", amount(t, "XEBEC_LOAD_KILLS", loadKills)}, {"containerd", containerKills}} {
		began := time.Now()
		for n := range harm.times {
			p.killOnce(t, fmt.Sprintf("node-%d/%s", 1+n%2, harm.process))
			// So that it is hit in its start as well as at work.
			<-time.After(time.Duration(rand.Int64N(int64(500 * time.Millisecond))))
		}
		t.Logf("killed %s %d times in %.0f s", harm.process, harm.times, time.Since(began).Seconds())
	}
	p.awaitWhole(t)
	for _, storm := range storms {
		p.reachable(t, storm)
	}
	before.same(t, p.crew(t, "node-1", "node-2"))
	sum := p.calm(t, storms)
	for what, n := range sum {
		if n.Requests == 0 || n.Reopened > 0 {
			t.Errorf("%s: %d requests, %d connections broke", what, n.Requests, n.Reopened)
		}
	}
}

// reachable waits until the daemons of a pod's node are at work again: the agent can be asked,
// through the gateways, to run something in the pod, and knows the image's program from one that is
// not there.
func (p *person) reachable(t *testing.T, pod string) {
	t.Helper()
	eventually(t, "exec in "+pod, waitLimit, func() error {
		if o := p.try(t, "exec", pod, "--", "/no/such/program"); !strings.Contains(o.stderr, "/no/such/program") {
			return fmt.Errorf("%s", o)
		}
		return nil
	})
}

// killOnce kills a process and waits until another has taken its place.
func (p *person) killOnce(t *testing.T, target string) {
	t.Helper()
	before := p.process(t, target)
	if err := p.Kill(t.Context(), target, lab.KillOptions{}); err != nil {
		t.Fatal(err)
	}
	// It need not rest before it is started again, as one that fails by itself must.
	if err := p.Start(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	eventually(t, target+" runs again", waitLimit, func() error {
		if now := p.process(t, target); now.PID == 0 || now.PID == before.PID {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
}
