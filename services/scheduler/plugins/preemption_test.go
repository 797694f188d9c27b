package plugins_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/plugins"
	"github.com/xebec-project/xebec/services/scheduler/plugins/defaultpreemption"
)

// TestPreemption runs the cases of testdata/preemption; basic.txt describes their format.
func TestPreemption(t *testing.T) {
	profile := framework.NewProfile(plugins.Default())
	for name, body := range readCases(t, "preemption/*.txt") {
		t.Run(name, func(t *testing.T) {
			s := readScenario(t, strings.Split(body, "\n"))
			before := podsByNode(s.cache.Snapshot())
			got, err := profile.Schedule(s.cache.Snapshot(), s.pod)
			room := ""
			if unfit := (*framework.FitError)(nil); errors.As(err, &unfit) {
				got = unfit.Error()
				if unfit.Room != nil && unfit.Room.Node != "" {
					room = unfit.Room.Node + ": " + names(unfit.Room.Victims)
				}
			}
			if got != s.want || room != s.room {
				t.Errorf("got %q\nwant %q\nroom %q\nwant %q", got, s.want, room, s.room)
			}
			if after := podsByNode(s.cache.Snapshot()); after != before {
				t.Errorf("pods are on %s, were on %s", after, before)
			}
		})
	}
}

func names(pods []*framework.Pod) string {
	all := make([]string, len(pods))
	for i, p := range pods {
		all[i] = p.Name
	}
	return strings.Join(all, " ")
}

// podsByNode describes which pods are on which node.
func podsByNode(s *framework.Snapshot) string {
	var all []string
	for _, n := range s.Nodes {
		on := slices.Sorted(strings.SplitSeq(names(n.Pods), " "))
		all = append(all, fmt.Sprint(n.Name, on, n.Used, len(n.Nominated)))
	}
	return strings.Join(all, ", ")
}

// TestPreemptionDisabled has a profile without preemption.
func TestPreemptionDisabled(t *testing.T) {
	enabled, err := plugins.New(plugins.Config{Disabled: []string{defaultpreemption.Name}})
	if err != nil {
		t.Fatal(err)
	}
	s := readScenario(t, []string{"node a core", "on a low cpu=1 priority:1", "pod cpu=1 priority:10"})
	_, err = framework.NewProfile(enabled).Schedule(s.cache.Snapshot(), s.pod)
	if got := err.Error(); got != "0/1 nodes are available: 1 Insufficient cpu." {
		t.Errorf("got %q", got)
	}
}

// TestCandidatesAreSampled has more nodes than preemption looks at.
func TestCandidatesAreSampled(t *testing.T) {
	for _, tt := range []struct{ nodes, candidates int }{{50, 50}, {300, 100}, {2000, 200}} {
		var lines []string
		for i := range tt.nodes {
			lines = append(lines, fmt.Sprintf("node n%d core", i), fmt.Sprintf("on n%d low-%d cpu=1 priority:1", i, i))
		}
		s := readScenario(t, append(lines, "pod cpu=1 priority:10"))
		_, err := framework.NewProfile(plugins.Default()).Schedule(s.cache.Snapshot(), s.pod)
		unfit := (*framework.FitError)(nil)
		if !errors.As(err, &unfit) || len(unfit.Room.Candidates) != tt.candidates {
			t.Errorf("%d nodes: %v, %d candidates, want %d", tt.nodes, err, len(unfit.Room.Candidates), tt.candidates)
		}
	}
}

// TestPreemptedNodesFit preempts on random clusters, with affinity, spread, ports and nominated
// pods. The victims have lower priority, and without them the pod fits on the node in a new cache.
func TestPreemptedNodesFit(t *testing.T) {
	port := `"containers":[{"name":"c","image":"i","ports":[{"containerPort":80,"hostPort":80,"protocol":"TCP"}]}]`
	words := [][]string{
		{"spread:zone:1:app=web"}, {"spread:host:1:app=web"}, {"near:zone:app=db"}, {"apart:host:app=web"}, {"apart:zone:app"}, {port},
		{"cpu=400m"}, {"cpu=300m", "apart:host:app=db"}, {},
	}
	profile, preemptions := framework.NewProfile(plugins.Default()), 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 3))
		one := func(of ...string) string { return of[r.IntN(len(of))] }
		var nodes, pods, nominated []string
		for i := range 5 {
			nodes = append(nodes, fmt.Sprintf("node n%d core zone=%s", i, one("a", "b", "c")))
		}
		random := func(name string) string {
			return strings.Join(append([]string{name, one("label:app=web", "label:app=db", "label:x=y"), one("priority:1", "priority:5", "priority:9")},
				words[r.IntN(len(words))]...), " ")
		}
		for i := range 12 {
			pods = append(pods, fmt.Sprintf("on n%d %s", r.IntN(5), random(fmt.Sprint("p", i))))
		}
		for i := range r.IntN(3) {
			nominated = append(nominated, fmt.Sprintf("nominated n%d %s", r.IntN(5), random(fmt.Sprint("w", i))))
		}
		pod := "pod label:app=web priority:8 " + strings.Join(words[int(seed)%len(words)], " ")
		s := readScenario(t, slices.Concat(nodes, pods, nominated, []string{pod, "budget b 1 app=web"}))
		before := podsByNode(s.cache.Snapshot())
		_, err := profile.Schedule(s.cache.Snapshot(), s.pod)
		if after := podsByNode(s.cache.Snapshot()); after != before {
			t.Fatalf("seed %d: pods are on %s, were on %s", seed, after, before)
		}
		unfit := (*framework.FitError)(nil)
		if !errors.As(err, &unfit) || unfit.Room.Node == "" {
			continue
		}
		preemptions++
		for _, c := range unfit.Room.Candidates {
			gone := map[string]bool{}
			for _, v := range c.Victims {
				if gone[v.Name] = true; v.Priority >= s.pod.Priority {
					t.Errorf("seed %d: the victim %s has priority %d", seed, v.Name, v.Priority)
				}
			}
			left := slices.DeleteFunc(slices.Clone(pods), func(line string) bool { return gone[strings.Fields(line)[2]] })
			without := readScenario(t, slices.Concat(nodes, left, nominated, []string{pod}))
			begun := profile.Begin(without.cache.Snapshot(), without.pod)
			if by, reasons := begun.Refusal(without.cache.Snapshot().Node(c.Node)); by != "" {
				t.Errorf("seed %d: without %s, %s is refused by %s: %s", seed, names(c.Victims), c.Node, by, reasons)
			}
		}
	}
	if preemptions < 50 {
		t.Errorf("%d preemptions, want more to compare", preemptions)
	}
}
