package deployment

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/object"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestScenarios plays the rollouts of testdata/*.txt. A file tells a deployment's size and limits
// and the sets it starts with; each "step" applies the plan once, shows the sizes that the plan
// asks for, and then lets every pod become available, but for those of sets named in "broken".
//
//	replicas 4 surge 1 unavailable 1
//	old 4 available 4
//	new 0 available 0
//	step old=3 new=2
//	...
//	done
//
// In every step no more pods than replicas+surge may be wanted, and no fewer than
// replicas-unavailable available.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { play(t, file) })
	}
}

func play(t *testing.T, file string) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var l limits
	sets := map[string]*replicas{}
	order := []string{}
	broken := map[string]bool{}
	proportional := false
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("%s:%d: %s: "+format, append([]any{file, n, lines.Text()}, args...)...)
		}
		switch words[0] {
		case "replicas":
			var surge, unavailable string
			if _, err := fmt.Sscanf(lines.Text(), "replicas %d surge %s unavailable %s", &l.replicas, &surge, &unavailable); err != nil {
				fail("%v", err)
			}
			if l, err = resolveLimits(l.replicas, intOrString(surge), intOrString(unavailable)); err != nil {
				fail("%v", err)
			}
		case "broken":
			broken = map[string]bool{}
			for _, name := range words[1:] {
				broken[name] = true
			}
		case "proportional":
			proportional = true
		case "step":
			apply(l, sets, order, proportional)
			proportional = false
			if got := show(sets, order); got != strings.Join(words[1:], " ") {
				fail("the plan asks for %s", got)
			}
			checkLimits(t, l, sets)
			for name, s := range sets {
				s.actual = s.wanted
				s.available = min(s.available, s.wanted)
				if !broken[name] {
					s.available = s.wanted
				}
			}
		case "done":
			if before := show(sets, order); true {
				apply(l, sets, order, false)
				if after := show(sets, order); before != after {
					fail("it goes on to %s", after)
				}
			}
		default:
			s := &replicas{name: words[0], age: int64(len(order))}
			if _, err := fmt.Sscanf(strings.Join(words[1:], " "), "%d available %d", &s.wanted, &s.available); err != nil {
				fail("%v", err)
			}
			s.actual = s.wanted
			sets[s.name] = s
			order = append(order, s.name)
		}
	}
}

func apply(l limits, sets map[string]*replicas, order []string, proportional bool) {
	var all, old []replicas
	for _, name := range order {
		all = append(all, *sets[name])
		if name != "new" {
			old = append(old, *sets[name])
		}
	}
	steps := planProportional(l, all)
	if !proportional {
		steps = planRolling(l, *sets["new"], old)
	}
	for _, s := range steps {
		sets[s.name].wanted = s.to
	}
}

func show(sets map[string]*replicas, order []string) string {
	parts := make([]string, len(order))
	for i, name := range order {
		parts[i] = fmt.Sprintf("%s=%d", name, sets[name].wanted)
	}
	return strings.Join(parts, " ")
}

func checkLimits(t *testing.T, l limits, sets map[string]*replicas) {
	t.Helper()
	var wanted, available, before int32
	for _, s := range sets {
		wanted += s.wanted
		before += s.available
		available += min(s.available, s.wanted)
	}
	if wanted > l.replicas+l.maxSurge {
		t.Errorf("%d pods are wanted, at most %d may be", wanted, l.replicas+l.maxSurge)
	}
	if least := min(l.replicas-l.maxUnavailable, before); available < least {
		t.Errorf("%d pods stay available, at least %d must", available, least)
	}
}

func intOrString(s string) *metav1.IntOrString {
	if strings.HasSuffix(s, "%") {
		return object.Text(s)
	}
	var n int32
	fmt.Sscan(s, &n)
	return object.Count(n)
}

func TestResolveLimits(t *testing.T) {
	tests := []struct {
		n                          int32
		surge, unavailable         string
		wantSurge, wantUnavailable int32
	}{
		{10, "25%", "25%", 3, 2},
		{1, "25%", "25%", 1, 0},
		{4, "0", "0%", 0, 1},
		{3, "0", "5", 0, 3},
		{0, "25%", "25%", 0, 0},
	}
	for _, tt := range tests {
		l, err := resolveLimits(tt.n, intOrString(tt.surge), intOrString(tt.unavailable))
		if err != nil || l.maxSurge != tt.wantSurge || l.maxUnavailable != tt.wantUnavailable {
			t.Errorf("%d replicas, surge %s, unavailable %s: got %+v, %v; want %d, %d", tt.n, tt.surge, tt.unavailable, l, err, tt.wantSurge, tt.wantUnavailable)
		}
	}
	if _, err := resolveLimits(1, object.Text("a lot"), nil); err == nil {
		t.Error("a surge of \"a lot\" was accepted")
	}
}

// TestPlanWithStaleStatus has sets whose status does not show yet what was asked of them: neither
// limit may be passed.
func TestPlanWithStaleStatus(t *testing.T) {
	l := limits{replicas: 4, maxSurge: 1, maxUnavailable: 1}
	for _, tt := range []struct {
		name     string
		new, old replicas
		want     string
	}{
		{"the old set is to lose one, which it still counts as available",
			replicas{name: "new", wanted: 2}, replicas{name: "old", wanted: 3, actual: 4, available: 4}, "[]"},
		{"the old set is to lose one, which is still there",
			replicas{name: "new", wanted: 1, actual: 1, available: 1}, replicas{name: "old", wanted: 3, actual: 4, available: 4}, "[{old 2}]"},
		{"it is gone",
			replicas{name: "new", wanted: 1, actual: 1, available: 1}, replicas{name: "old", wanted: 3, actual: 3, available: 3}, "[{new 2} {old 2}]"},
	} {
		if got := fmt.Sprint(planRolling(l, tt.new, []replicas{tt.old})); got != tt.want {
			t.Errorf("%s: the plan is %s, want %s", tt.name, got, tt.want)
		}
	}
}
