package plugins_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/plugins"
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
