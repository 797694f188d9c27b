package cli

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTableFits(t *testing.T) {
	table := &table{heads: []string{"NAME", "STATE", "MESSAGE"}, keep: 1}
	table.add("a-rather-long-name-of-a-pod", "Running", strings.Repeat("word ", 30))
	var b strings.Builder
	table.printWidths(&b, table.widths(80))
	for line := range strings.Lines(b.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("a line has %d columns: %s", n, line)
		}
	}
	if out := b.String(); !strings.Contains(out, "a-rather-long-name-of-a-pod   Running   word") || !strings.Contains(out, "…") {
		t.Errorf("the name is cut, or the message is not:\n%s", out)
	}
}

func TestFit(t *testing.T) {
	for _, test := range []struct {
		widths []int
		limit  int
		keep   int
		want   []int
	}{
		{[]int{10, 10}, 0, 0, []int{10, 10}},
		{[]int{10, 10}, 23, 0, []int{10, 10}},
		{[]int{10, 40, 30}, 60, 1, []int{10, 22, 22}},
		// What can't be cut further sticks out rather than become unreadable.
		{[]int{50, 20}, 40, 1, []int{50, 12}},
	} {
		got := slices.Clone(test.widths)
		fit(got, test.limit, test.keep)
		if !slices.Equal(got, test.want) {
			t.Errorf("fit %v into %d: %v, want %v", test.widths, test.limit, got, test.want)
		}
	}
}

func TestMood(t *testing.T) {
	for cell, want := range map[string]colour{
		"Running": green, "Ready": green, "NotReady": red, "CrashLoopBackOff": red, "Init:ErrImagePull": red,
		"Ready,SchedulingDisabled": green, "web-1": plain, "Pending": yellow, "ImagePullBackOff": red,
	} {
		if got := mood(cell); got != want {
			t.Errorf("%s is %q, want %q", cell, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"pods", "services", "deployments", "po", "svc"}
	for word, want := range map[string]string{"pds": "pods", "deploymetns": "deployments", "servces": "services", "spaceships": ""} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest to %s is %q, want %q", word, got, want)
		}
	}
}
