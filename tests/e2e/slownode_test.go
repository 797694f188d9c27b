package e2e

import (
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/lab"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestSlowAndLostNodes pauses the agent of a node, cuts the node off from the master alone, and
// takes its power: only the last moves its pods.
func TestSlowAndLostNodes(t *testing.T) {
	ownLabs.join(t)
	s := ownShip(t, lab.Options{Masters: 1, Nodes: 2})
	s.loadImages(t)
	p := s.inDefault()
	p.apply(t, sample(t, "echo.yaml"))
	p.spread(t, 3)
	// Those that spread has deleted go in their own time.
	pods := await(t, s.client, "default", "three pods", waitLimit, func(pods []*corev1.Pod) bool {
		return len(pods) == 3 && allReady(pods, "echo", 3)
	})
	want := uids(pods)
	stay := func(t *testing.T, when string, d time.Duration) {
		t.Helper()
		for end := time.Now().Add(d); time.Now().Before(end); {
			all, _, err := client.List[*corev1.Pod](t.Context(), s.client, client.ListOptions{Namespace: "default"})
			if err != nil {
				t.Fatal(err)
			}
			if got := uids(labelled(all, "echo")); !slices.Equal(got, want) {
				t.Fatalf("%s: pods %v are there and stay, want %v", when, got, want)
			}
			<-time.After(time.Second)
		}
	}
	node := func(t *testing.T, status string) {
		t.Helper()
		await(t, s.client, "", "node-2 is ready: "+status, waitLimit, func(nodes []*corev1.Node) bool {
			return slices.ContainsFunc(nodes, func(n *corev1.Node) bool {
				return n.GetMetadata().GetName() == "node-2" && core.NodeCondition(n, core.NodeReady).GetStatus() == status
			})
		})
	}

	t.Run("its agent is paused for 15 s", func(t *testing.T) {
		pid := s.process(t, "node-2/agent").PID
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		stay(t, "while the agent is paused", 15*time.Second)
		if err := unix.Kill(pid, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		stay(t, "when the agent goes on", 15*time.Second)
		node(t, condition.True)
	})

	t.Run("it reaches the other node but not the master", func(t *testing.T) {
		ip := func(args ...string) {
			t.Helper()
			cmd := exec.Command("ip", args...)
			if err := s.StartIn(t.Context(), "node-2", cmd); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Fatalf("ip %v: %v", args, err)
			}
		}
		master := s.Spec.MasterHosts()[0].Addr.String() + "/32"
		ip("route", "add", "blackhole", master)
		node(t, "Unknown")
		stay(t, "while the node is cut off from the master", 35*time.Second)
		p.says(t, []string{"NodeReachable", "does not renew its lease but answers node node-1"}, "describe", "node", "node-2")
		ip("route", "del", "blackhole", master)
		node(t, condition.True)
		stay(t, "when the node is back", 2*time.Second)
		await(t, s.client, "default", "all are ready again", waitLimit, func(pods []*corev1.Pod) bool { return allReady(pods, "echo", 3) })
	})

	t.Run("it loses power", func(t *testing.T) {
		began := time.Now()
		if err := s.Kill(t.Context(), "node-2", lab.KillOptions{PowerOff: true}); err != nil {
			t.Fatal(err)
		}
		await(t, s.client, "default", "pods have moved from node-2", waitLimit, func(pods []*corev1.Pod) bool {
			return allReady(pods, "echo", 3) && !slices.Contains(nodesOf(labelled(pods, "echo")), "node-2")
		})
		took := time.Since(began)
		t.Logf("replaced after %v", took)
		if took < 15*time.Second || took > 35*time.Second {
			t.Errorf("the pods of the lost node were replaced after %v, want about 20 s", took)
		}
		// The node has not confirmed that the old ones have ended.
		all, _, err := client.List[*corev1.Pod](t.Context(), s.client, client.ListOptions{Namespace: "default", FieldSelector: "spec.nodeName=node-2"})
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 0 {
			t.Error("the pods of the lost node are gone from the API")
		}
	})
}

// uids returns the uids of pods, sorted.
func uids(pods []*corev1.Pod) []string {
	var all []string
	for _, p := range pods {
		all = append(all, p.GetMetadata().GetUid())
	}
	slices.Sort(all)
	return all
}
