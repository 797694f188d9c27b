package plugins_test

import (
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/services/scheduler/cache"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/framework/frameworktest"
	"github.com/xebec-project/xebec/services/scheduler/plugins"
)

// scenario is a case of testdata/schedule.txt, which describes the format.
type scenario struct {
	cache *cache.Cache
	pod   *framework.Pod
	want  string
	whys  map[string]string
	// room is the decision of preemption: the node and the victims.
	room string
	// scores are the scores of nodes, in words.
	scores map[string]string
}

func readScenario(t *testing.T, lines []string) scenario {
	t.Helper()
	s := scenario{cache: cache.New(), whys: map[string]string{}, scores: map[string]string{}}
	for _, line := range lines {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		verb, rest, _ := strings.Cut(line, " ")
		words := strings.Fields(rest)
		switch verb {
		case "node":
			fields, labels := nodeFields(words[1:])
			node := frameworktest.Node(t, words[0], fields)
			maps.Copy(node.Metadata.Labels, labels)
			if _, err := s.cache.SetNode(node); err != nil {
				t.Fatal(err)
			}
		case "on":
			s.cache.SetPod(podOf(t, words[1], words[0], words[2:]))
		case "nominated":
			s.cache.Nominate(podOf(t, words[1], "", words[2:]), words[0])
		case "budget":
			s.cache.SetBudget("default", words[0], budgetOf(t, words))
		case "pod":
			s.pod = podOf(t, "p", "", words)
		case "service":
			s.cache.SetService("default", words[0], labelSet(words[1:]))
		case "namespace":
			s.cache.SetNamespace(words[0], labelSet(words[1:]))
		case "want":
			s.want = rest
		case "room":
			s.room = rest
		case "why":
			node, why, _ := strings.Cut(rest, " ")
			s.whys[node] = why
		case "score":
			node, scores, _ := strings.Cut(rest, " ")
			s.scores[node] = scores
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	return s
}

// readCases returns the names and bodies of the cases in files of testdata, in their order.
func readCases(t *testing.T, pattern string) iter.Seq2[string, string] {
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return func(yield func(string, string) bool) {
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range strings.Split(string(text), "\n== ")[1:] {
				name, body, _ := strings.Cut(strings.TrimSpace(part), "\n")
				if !yield(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+name, body) {
					return
				}
			}
		}
	}
}

// TestSchedule runs the cases of testdata; schedule.txt describes their format.
func TestSchedule(t *testing.T) {
	withoutPreemption := plugins.Default()
	withoutPreemption.PostFilter = nil
	profile := framework.NewProfile(withoutPreemption)
	for name, body := range readCases(t, "*.txt") {
		t.Run(name, func(t *testing.T) {
			s := readScenario(t, strings.Split(body, "\n"))
			got, err := profile.Schedule(s.cache.Snapshot(), s.pod)
			if err != nil {
				got = err.Error()
			}
			if got != s.want {
				t.Errorf("got %q, want %q", got, s.want)
			}
			rows, _ := profile.Explain(s.cache.Snapshot(), s.pod)
			checkExplain(t, rows, s, err == nil)
		})
	}
}

// checkExplain compares the rows of Explain with the decision and with what the scenario says of
// them.
func checkExplain(t *testing.T, rows []framework.Verdict, s scenario, fits bool) {
	t.Helper()
	if len(rows) != len(s.cache.Snapshot().Nodes) {
		t.Errorf("%d rows for %d nodes", len(rows), len(s.cache.Snapshot().Nodes))
	}
	if fits && rows[0].Node != s.want {
		t.Errorf("the first row is %s, but %s is chosen", rows[0].Node, s.want)
	}
	for _, r := range rows {
		if (r.RefusedBy == "") != (r.Reason == "") || (r.RefusedBy == "") == (r.Scores == nil) || r.RefusedBy == "" && !fits {
			t.Errorf("row %+v", r)
		}
		if want, ok := s.whys[r.Node]; ok && r.RefusedBy+": "+r.Reason != want {
			t.Errorf("%s: refused by %s: %s, want %s", r.Node, r.RefusedBy, r.Reason, want)
		}
		var scores []string
		for _, sc := range r.Scores {
			scores = append(scores, sc.Name+"="+strconv.FormatFloat(sc.Score, 'f', -1, 64))
		}
		scores = append(scores, strconv.FormatFloat(r.Total, 'f', -1, 64))
		if want, ok := s.scores[r.Node]; ok && strings.Join(scores, " ") != want {
			t.Errorf("%s: scores %s, want %s", r.Node, scores, want)
		}
		delete(s.whys, r.Node)
		delete(s.scores, r.Node)
	}
	if len(s.whys)+len(s.scores) > 0 {
		t.Errorf("no row for %v %v", s.whys, s.scores)
	}
}

// TestSpreadEvenly schedules a workload on equal nodes and expects as many pods on each.
func TestSpreadEvenly(t *testing.T) {
	c, profile := cache.New(), framework.NewProfile(plugins.Default())
	for i := range 10 {
		if _, err := c.SetNode(frameworktest.Node(t, fmt.Sprint("n", i), frameworktest.Big)); err != nil {
			t.Fatal(err)
		}
	}
	on := map[string]int{}
	for i := range 100 {
		p := frameworktest.Pod(t, fmt.Sprint("p", i), "", frameworktest.Container(`"cpu":"100m","memory":"64Mi"`))
		node, err := profile.Schedule(c.Snapshot(), p)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Reserve(framework.Assignment{Pod: p, Node: node}); err != nil {
			t.Fatal(err)
		}
		on[node]++
	}
	for node, n := range on {
		if n != 10 {
			t.Errorf("%s has %d pods, want 10", node, n)
		}
	}
}

// BenchmarkSchedulingCycle measures choosing a node for one pod and reserving it, on a cluster
// where every node runs 20 pods, one node in ten has a taint and one in two the image. The refused
// pod fits on no node.
func BenchmarkSchedulingCycle(b *testing.B) {
	fits, tooMuch := frameworktest.Container(`"cpu":"100m","memory":"64Mi"`), frameworktest.Container(`"cpu":"64","memory":"64Mi"`)
	for _, bb := range []struct {
		name, spec string
		nodes      int
	}{{"fits/1000", fits, 1000}, {"fits/5000", fits, 5000}, {"refused/1000", tooMuch, 1000}, {"refused/5000", tooMuch, 5000}} {
		b.Run(bb.name, func(b *testing.B) {
			c, profile := cache.New(), framework.NewProfile(plugins.Default())
			for i := range bb.nodes {
				name := fmt.Sprint("n", i)
				if _, err := c.SetNode(frameworktest.Node(b, name, benchmarkFields(i))); err != nil {
					b.Fatal(err)
				}
				for j := range 20 {
					c.SetPod(frameworktest.PodOf(b, fmt.Sprintf("p-%d-%d", i, j), name, fmt.Sprint("rs-", (i+j)%50), fits))
				}
			}
			p := frameworktest.PodOf(b, "p", "", "rs-7", bb.spec)
			b.ReportAllocs()
			for b.Loop() {
				node, err := profile.Schedule(c.Snapshot(), p)
				if err != nil {
					continue
				}
				a := framework.Assignment{Pod: p, Node: node}
				if err := c.Reserve(a); err != nil {
					b.Fatal(err)
				}
				c.Unreserve(a)
			}
		})
	}
}

func benchmarkFields(i int) string {
	image, taints := "other:1", ""
	if i%2 == 0 {
		image = "docker.io/library/echo:1"
	}
	if i%10 == 0 {
		taints = `"spec":{"taints":[{"key":"dedicated","value":"db","effect":"NoSchedule"}]},`
	}
	return taints + fmt.Sprintf(`"status":{"allocatable":{"cpu":"32","memory":"64Gi","pods":"110","ephemeral-storage":"100Gi"},
		"images":[{"names":[%q]}]}`, image)
}
