package plugins_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/cache"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/framework/frameworktest"
	"github.com/xebec-project/xebec/services/scheduler/plugins"
)

// TestMovedPodsCount moves pods within a cycle at random, as preemption does, and compares what the
// cycle says of each node with a cycle on a new cache.
func TestMovedPodsCount(t *testing.T) {
	words := [][]string{
		{"spread:zone:1:app=web"}, {"spread:zone:1:app=web", "spread:host:2:app"}, {"spread:zone:1:app=web:min:3"},
		{"spread:host:1:app=web:taints:Honor"}, {"near:zone:app=db"}, {"near:zone:app=web"}, {"apart:host:app=web"},
		{"apart:zone:app=db", "near:host:app"}, {},
	}
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 2))
		one := func(of ...string) string { return of[r.IntN(len(of))] }
		c, profile := cache.New(), framework.NewProfile(plugins.Default())
		var nodes []*corev1.Node
		for i := range 6 {
			fields, labels := nodeFields([]string{"big", one("zone=a", "zone=b", "zone=c", "rack=1")})
			if i == 0 {
				fields += `,"spec":{"taints":[{"key":"k","effect":"NoSchedule"}]}`
			}
			node := frameworktest.Node(t, fmt.Sprint("n", i), fields)
			for key, value := range labels {
				node.Metadata.Labels[key] = value
			}
			nodes = append(nodes, node)
			if _, err := c.SetNode(node); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 10 {
			c.SetPod(podOf(t, fmt.Sprint("p", i), fmt.Sprint("n", r.IntN(6)),
				append([]string{one("label:app=web", "label:app=db", "label:x=y")}, words[r.IntN(len(words))]...)))
		}
		s := c.Snapshot()
		p := podOf(t, "p", "", append([]string{"label:app=web"}, words[int(seed)%len(words)]...))
		cycle := profile.Begin(s, p)
		removed := map[*framework.Pod]*framework.Node{}
		for range 20 {
			n := s.Nodes[r.IntN(len(s.Nodes))]
			if len(n.Pods) > 0 && r.IntN(2) == 0 {
				victim := n.Pods[r.IntN(len(n.Pods))]
				cycle.RemovePod(n, victim)
				removed[victim] = n
			} else {
				for victim, n := range removed {
					cycle.AddPod(n, victim)
					delete(removed, victim)
					break
				}
			}
			other := cache.New()
			for i, n := range s.Nodes {
				if _, err := other.SetNode(nodes[i]); err != nil {
					t.Fatal(err)
				}
				for _, p := range n.Pods {
					other.SetPod(p)
				}
			}
			begun := profile.Begin(other.Snapshot(), p)
			for i, n := range s.Nodes {
				got, _ := cycle.Refusal(n)
				if want, _ := begun.Refusal(other.Snapshot().Nodes[i]); got != want {
					t.Fatalf("seed %d: %s is refused by %q, in a new cycle by %q", seed, n.Name, got, want)
				}
			}
		}
	}
}
