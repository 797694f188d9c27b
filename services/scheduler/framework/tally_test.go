package framework_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/scheduler/cache"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/framework/frameworktest"
)

// randomCluster changes a cache at random, and remembers what it holds.
type randomCluster struct {
	*rand.Rand
	t     *testing.T
	cache *cache.Cache
	nodes map[string]map[string]string // labels by name
	pods  map[string]*framework.Pod
	next  int
}

func (r *randomCluster) one(of ...string) string { return of[r.IntN(len(of))] }

// step adds, changes or deletes a node, a pod or a namespace.
func (r *randomCluster) step() {
	name := fmt.Sprint("n", r.IntN(6))
	switch r.IntN(10) {
	case 0:
		r.cache.DeleteNode(name)
		delete(r.nodes, name)
	case 1, 2:
		node := frameworktest.Node(r.t, name, frameworktest.Big)
		if zone := r.one("", "a", "b", "c"); zone != "" {
			node.Metadata.Labels["zone"] = zone
		}
		if _, err := r.cache.SetNode(node); err != nil {
			r.t.Fatal(err)
		}
		r.nodes[name] = node.Metadata.Labels
	case 3:
		r.cache.SetNamespace(r.one("red", "blue"), map[string]string{"team": r.one("x", "y")})
	case 4:
		for uid := range r.pods {
			r.cache.DeletePod(uid)
			delete(r.pods, uid)
			break
		}
	case 5:
		for uid, p := range r.pods {
			changed := r.pod(uid, p.Node)
			r.cache.SetPod(changed)
			r.pods[uid] = changed
			break
		}
	default:
		r.next++
		p := r.pod(fmt.Sprint("p", r.next), name)
		r.cache.SetPod(p)
		r.pods[p.UID] = p
	}
}

// pod returns a pod with some labels and terms.
func (r *randomCluster) pod(name, node string) *framework.Pod {
	terms := ""
	if r.IntN(2) == 0 {
		terms = `,"affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"` +
			r.one("zone", core.LabelHostname) + `","labelSelector":{"matchLabels":{"app":"` + r.one("a", "b") + `"}}` +
			r.one("", `,"namespaces":["red"]`, `,"namespaceSelector":{"matchLabels":{"team":"x"}}`) + `}]}}`
	}
	return frameworktest.PodOf(r.t, name, node, "rs", frameworktest.Container("")+terms, func(p *corev1.Pod) {
		p.Metadata.Namespace = r.one("red", "blue")
		p.Metadata.Labels = map[string]string{"app": r.one("a", "b", "c")}
		if r.IntN(4) == 0 {
			p.Metadata.DeletionTimestamp = timestamppb.Now()
		}
	})
}

// count counts the pods near each node one by one.
func (r *randomCluster) count(topologyKey string, counts func(*framework.Pod) int) map[string]int {
	byValue := map[string]int{}
	for _, p := range r.pods {
		if value, ok := r.nodes[p.Node][topologyKey]; ok {
			byValue[value] += counts(p)
		}
	}
	return byValue
}

// TestTalliesEqualACount changes clusters at random and compares the tallies, which are kept as
// pods and nodes change, with a count of all pods.
func TestTalliesEqualACount(t *testing.T) {
	for seed := range uint64(6) {
		r := &randomCluster{rand.New(rand.NewPCG(seed, 1)), t, cache.New(), map[string]map[string]string{}, map[string]*framework.Pod{}, 0}
		s := r.cache.Snapshot()
		for range 200 {
			r.step()
			if r.IntN(3) > 0 {
				continue // several changes between two looks
			}
			asking := r.pod("asking", "")
			for _, term := range asking.Terms[framework.AntiAffinity] {
				want := r.count(term.TopologyKey, func(p *framework.Pod) int { return asInt(term.Matches(s, p)) })
				r.compare("pods "+term.String(), term.TopologyKey, s.Tally(term.TopologyKey, term.PodSelector), want)
				if term.TopologyKey == core.LabelHostname {
					want := r.count(term.TopologyKey, func(p *framework.Pod) int { return asInt(!p.Deleting && term.Matches(s, p)) })
					r.compare("remaining pods "+term.String(), term.TopologyKey, s.TallyByNode(term.PodSelector), want)
				}
			}
			for c := range s.Carried(framework.AntiAffinity, asking) {
				want := r.count(c.PodTerm.TopologyKey, func(p *framework.Pod) int {
					same := 0
					for _, term := range p.Terms[framework.AntiAffinity] {
						same += asInt(term.TopologyKey == c.PodTerm.TopologyKey && term.String() == c.String())
					}
					return same
				})
				r.compare("carriers "+c.String(), c.PodTerm.TopologyKey, &c.Tally, want)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (r *randomCluster) compare(what, topologyKey string, tally *framework.Tally, want map[string]int) {
	r.t.Helper()
	for _, n := range r.cache.Snapshot().Nodes {
		if got, ok := tally.Of(n); ok && got != want[n.Labels[topologyKey]] {
			r.t.Errorf("%s: %d near %s (%s %s), want %d", what, got, n.Name, topologyKey, n.Labels[topologyKey], want[n.Labels[topologyKey]])
		}
	}
}
