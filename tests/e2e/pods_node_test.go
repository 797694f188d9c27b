package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/lab/topology"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestStaticPod drops a manifest onto a node's disk.
func TestStaticPod(t *testing.T) {
	s := sharedShip(t)
	p := s.person(t)
	p.loadImages(t)
	hosts := s.Spec.Hosts()
	node := hosts[slices.IndexFunc(hosts, func(h topology.Host) bool { return h.Name == "node-1" })]
	file := node.StaticPods() + "/" + p.namespace + ".yaml"
	put := func(manifest string) {
		t.Helper()
		o := s.inDefault().pipe(t, manifest, "lab", "shell", "--name", s.Spec.Name, "node-1", "--", "sh", "-c", "mkdir -p "+node.StaticPods()+" && cat >"+file+".new && mv "+file+".new "+file)
		if o.code != 0 {
			t.Fatal(o)
		}
	}
	remove := func(ctx context.Context) outcome {
		return run(t, s.inDefault().command(ctx, "lab", "shell", "--name", s.Spec.Name, "node-1", "--", "rm", "-f", file))
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
		defer cancel()
		if o := remove(ctx); o.code != 0 {
			t.Error(o)
		}
	})
	manifest := "apiVersion: v1\nkind: Pod\nmetadata:\n  name: own\n  namespace: " + p.namespace + "\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n" +
		"  - name: main\n    image: xebec/echo:1\n"
	put(manifest)
	mirror := p.podIs(t, "own-node-1", "the mirror is ready", ready)
	if !core.IsMirrorPod(mirror) || mirror.GetSpec().GetNodeName() != "node-1" {
		t.Errorf("the mirror is %v", mirror)
	}
	p.says(t, []string{"own-node-1 serves on :8080"}, "logs", "own-node-1")

	put(strings.Replace(manifest, "image:", "imgae:", 1))
	eventually(t, "describe tells of the typo", waitLimit, func() error {
		out := p.do(t, "describe", "node", "node-1")
		for _, want := range []string{"InvalidStaticPod", p.namespace + ".yaml:10", "imgae"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in\n%s", want, out)
			}
		}
		return nil
	})
	if same := p.podIs(t, "own-node-1", "it goes on", ready); same.GetMetadata().GetUid() != mirror.GetMetadata().GetUid() {
		t.Errorf("a mistake in the file made %v of %v", same, mirror)
	}

	if o := remove(t.Context()); o.code != 0 {
		t.Fatal(o)
	}
	if err := awaitGone[*corev1.Pod](t.Context(), p.client, p.namespace, "own-node-1"); err != nil {
		t.Error(err)
	}
	nodeCondition(t, s, "node-1", "the mistake went with the file", func(n *corev1.Node) bool {
		return core.NodeCondition(n, "StaticPodsValid").GetStatus() == condition.True
	})
}

func nodeCondition(t *testing.T, s *ship, name, what string, cond func(*corev1.Node) bool) {
	t.Helper()
	await(t, s.client, "", what, waitLimit, func(nodes []*corev1.Node) bool {
		return slices.ContainsFunc(nodes, func(n *corev1.Node) bool { return n.GetMetadata().GetName() == name && cond(n) })
	})
}

// TestNodeShutdown tells a node that its machine goes down: it says so, its pods end one priority
// after the other, and what manages them can replace them.
func TestNodeShutdown(t *testing.T) {
	s := sharedShip(t)
	p := s.person(t)
	p.loadShell(t)
	p.apply(t, "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: high}\nvalue: 1000\n")
	order := []string{"low", "high", "critical"}
	for i, name := range order {
		// Each takes two seconds to end, so that the order shows in times that have no fractions.
		p.apply(t, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  priorityClassName: %q
  nodeSelector: {kubernetes.io/hostname: node-2}
  terminationGracePeriodSeconds: 8
  containers:
    - name: main
      image: %s
      command: [sh, -c, "trap 'sleep 2; exit 0' TERM; echo prepared; while true; do sleep 0.1; done"]
`, name, []string{"", "high", "system-cluster-critical"}[i], shellImage))
	}
	for _, name := range order {
		p.podIs(t, name, "it is ready", ready)
		// It would ignore the signal before it has said what to do then.
		p.says(t, []string{"prepared"}, "logs", name)
	}
	watching, watched := make(chan struct{}), make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	go func() {
		var once sync.Once
		_, err := awaitObjects(ctx, s.client, "", waitLimit, func(nodes []*corev1.Node) bool {
			once.Do(func() { close(watching) })
			return slices.ContainsFunc(nodes, func(n *corev1.Node) bool {
				c := core.NodeCondition(n, core.NodeReady)
				return n.GetMetadata().GetName() == "node-2" && c.GetStatus() == condition.False && strings.Contains(c.GetMessage(), "shutting down")
			})
		})
		watched <- err
	}()
	select {
	case <-watching:
	case err := <-watched:
		t.Fatal(err)
	}
	agent := s.process(t, "node-2/agent").PID
	if err := syscall.Kill(agent, syscall.SIGPWR); err != nil {
		t.Fatal(err)
	}
	if err := <-watched; err != nil {
		t.Errorf("the node does not say that it goes down: %v", err)
	}
	var ended []time.Time
	for _, name := range order {
		pod := p.podIs(t, name, "it has failed", func(pod *corev1.Pod) bool {
			return pod.GetStatus().GetPhase() == core.PodFailed && pod.GetStatus().GetContainerStatuses()[0].GetState().GetTerminated() != nil
		})
		e := pod.GetStatus().GetContainerStatuses()[0].GetState().GetTerminated()
		if pod.GetStatus().GetReason() != "Terminated" || !strings.Contains(pod.GetStatus().GetMessage(), "node shutdown") || e.GetExitCode() != 0 {
			t.Errorf("%s: %v", name, pod.GetStatus())
		}
		ended = append(ended, e.GetFinishedAt().AsTime())
	}
	if !slices.IsSortedFunc(ended, time.Time.Compare) || len(slices.Compact(slices.Clone(ended))) != len(ended) {
		t.Errorf("%v ended at %v", order, ended)
	}
	// The machine is up again: the next agent begins.
	eventually(t, "another agent", waitLimit, func() error {
		if p := s.process(t, "node-2/agent"); p.PID == agent || p.PID == 0 {
			return fmt.Errorf("the agent is %+v", p)
		}
		return nil
	})
	nodeCondition(t, s, "node-2", "the node is ready again", func(n *corev1.Node) bool {
		return core.NodeCondition(n, core.NodeReady).GetStatus() == condition.True
	})
	p.apply(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: next}\nspec: {terminationGracePeriodSeconds: 1, nodeSelector: {kubernetes.io/hostname: node-2}, containers: [{name: main, image: "+shellImage+"}]}\n")
	p.podIs(t, "next", "it runs after that", ready)
}

// TestTokenInPod reads a token where a pod finds it, and speaks to the gateway with nothing else.
func TestTokenInPod(t *testing.T) {
	s := sharedShip(t)
	p := s.person(t)
	p.loadShell(t)
	p.apply(t, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\n")
	p.apply(t, `apiVersion: v1
kind: Pod
metadata: {name: robot}
spec:
  serviceAccountName: robot
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: `+shellImage+`
      volumeMounts: [{name: id, mountPath: /id}]
  volumes:
    - name: id
      projected:
        sources:
          - serviceAccountToken: {path: token, expirationSeconds: 3600}
          - serviceAccountToken: {path: elsewhere, audience: elsewhere, expirationSeconds: 3600}
`)
	p.podIs(t, "robot", "it is ready", ready)
	read := func(file string) string { return strings.TrimSpace(p.do(t, "exec", "robot", "--", "cat", "/id/"+file)) }
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	trust, err := pki.NewTrustSource(s.authority(t).CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	dial := func(token string) *grpc.ClientConn {
		return s.from(t, "node-1", "master-1", topology.GatewayPort, trust, grpc.WithPerRPCCredentials(rpc.Bearer(token)))
	}
	robot := dial(read("token"))
	eventually(t, "the token is known", waitLimit, func() error {
		user, err := whoAmI(ctx, robot)
		if want := "system:serviceaccount:" + p.namespace + ":robot"; err == nil && user != want {
			t.Fatalf("the robot is %q", user)
		}
		return err
	})
	if _, err := whoAmI(ctx, dial(read("elsewhere"))); err == nil {
		t.Error("the gateway took a token that was made for another audience")
	}
	if _, err := client.Delete[*corev1.Pod](ctx, s.client, p.namespace, "robot", client.GracePeriod(0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token goes with the pod", waitLimit, func() error {
		if _, err := whoAmI(ctx, robot); err == nil {
			return errors.New("the token is still good")
		}
		return nil
	})
}
