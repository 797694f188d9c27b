package plugins_test

import (
	"errors"
	"fmt"
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
