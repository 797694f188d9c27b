package daemonset

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// nodesOf reads nodes from a text such as "a:new b!:old,old* c-:old.": a name, ! for a node that
// takes no new pods, - for one that keeps none, and its pods from the oldest to the youngest. A pod
// is new or old, followed by . when it is not ready, ~ when it is ready and not available yet, *
// when it is being deleted, F when it failed and S when it succeeded. Its name is that of its node
// with its place.
func nodesOf(text string) []*node {
	var nodes []*node
	for word := range strings.FieldsSeq(text) {
		head, rest, _ := strings.Cut(word, ":")
		n := &node{name: strings.TrimRight(head, "!-"), runs: !strings.ContainsAny(head, "!-"), stays: !strings.Contains(head, "-")}
		for i, w := range strings.FieldsFunc(rest, func(r rune) bool { return r == ',' }) {
			p := &pod{Pod: &corev1.Pod{
				Metadata: &metav1.ObjectMeta{Name: fmt.Sprint(n.name, i), CreationTimestamp: timestamppb.New(epoch.Add(time.Duration(i) * time.Second))},
				Spec:     &corev1.PodSpec{NodeName: n.name}, Status: &corev1.PodStatus{Phase: core.PodRunning},
			}}
			p.current = strings.HasPrefix(w, "new")
			p.ready = !strings.ContainsAny(w, ".FS")
			p.available = p.ready && !strings.Contains(w, "~")
			if strings.Contains(w, "*") {
				p.Metadata.DeletionTimestamp = timestamppb.New(epoch)
			}
			if strings.Contains(w, "F") {
				p.Status.Phase = core.PodFailed
			}
			if strings.Contains(w, "S") {
				p.Status.Phase = core.PodSucceeded
			}
			n.pods = append(n.pods, p)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// String is what a plan does, such as "+a -b0".
func (a actions) String() string {
	var out []string
	for _, n := range a.create {
		out = append(out, "+"+n)
	}
	for _, p := range a.remove {
		out = append(out, "-"+p.GetMetadata().GetName())
	}
	return strings.Join(out, " ")
}

func TestPlan(t *testing.T) {
	byHand := limits{}
	one, two := limits{rolling: true, unavailable: 1}, limits{rolling: true, unavailable: 2}
	surge := limits{rolling: true, surge: 1}
	for _, tt := range []struct {
		name   string
		limits limits
		nodes  string
		held   string
		want   string
	}{
		{"a pod on each node", one, "a b! c- d:new", "", "+a"},
		{"a pod being deleted is waited for", one, "a:old*", "", ""},
		{"a node that does not belong any more", one, "a-:new b-:old* c-", "", "-a0"},
		{"a node that takes no new pods keeps its own", byHand, "a!:new b!:old", "", ""},
		{"more than one", one, "a:new,new,new.", "", "-a1 -a2"},
		{"failed and succeeded", one, "a:newF b:newS c:newF*", "", "-a0 -b0"},
		{"failed, and deleted shortly before", one, "a:newF b:newF", "a", "-b0"},
		{"OnDelete", byHand, "a:old b:new", "", ""},
		{"replace one", one, "a:old b:old c:old", "", "-a0"},
		{"replace two", two, "a:old b:old c:old", "", "-a0 -b0"},
		{"not while another is unavailable", one, "a:old b:new. c:old", "", ""},
		{"nor before it is available", one, "a:old b:new~", "", ""},
		{"nor while one is being deleted", one, "a:old b:old*", "", ""},
		{"two, and one is unavailable", two, "a:old b:new. c:old", "", "-a0"},
		{"old ones that are not available go first", one, "a:old b:old. c:old. d:new", "", "-b0 -c0"},
		{"nodes without a pod count", one, "a:old b:old c!", "", "-a0"},
		{"keeping nodes comes before updating", one, "a b:old", "", "+a"},
		{"surge on one", surge, "a:old b:old", "", "+a"},
		{"surge waits for the new pod", surge, "a:old,new. b:old", "", ""},
		{"and for minReadySeconds", surge, "a:old,new~ b:old", "", ""},
		{"then the old one goes", surge, "a:old,new b:old", "", "-a0"},
		{"an old one that is not ready goes at once", surge, "a:old.,new. b:old", "", "-a0"},
		{"old ones that are not ready are replaced beyond the limit", surge, "a:old. b:old. c:old", "", "+a +b +c"},
		{"surge fills a node whose pod is being deleted", surge, "a:new*", "", "+a"},
		{"and not one with a failed pod", surge, "a:newF", "a", ""},
		{"no third pod", surge, "a:old,new.,new.,old.", "", "-a2 -a3"},
		{"the available one stays", surge, "a:old.,old,new.", "", "-a0"},
		{"a node that takes no new pods gives its own away last", surge, "a!:old b:new.", "", ""},
		{"when enough are available", surge, "a!:old b:new", "", "-a0"},
		{"or when it does not work", surge, "a!:old. b:new.", "", "-a0"},
	} {
		got := plan(nodesOf(tt.nodes), tt.limits, func(n string) bool { return n == tt.held })
		if got.String() != tt.want {
			t.Errorf("%s: %s: got %q, want %q", tt.name, tt.nodes, got, tt.want)
		}
	}
}

func TestLimits(t *testing.T) {
	set := func(typ string, unavailable, surge *metav1.IntOrString) *appsv1.DaemonSet {
		return &appsv1.DaemonSet{Spec: &appsv1.DaemonSetSpec{UpdateStrategy: &appsv1.DaemonSetUpdateStrategy{
			Type: typ, RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: unavailable, MaxSurge: surge},
		}}}
	}
	for _, tt := range []struct {
		set  *appsv1.DaemonSet
		want limits
	}{
		{set("OnDelete", object.Count(3), nil), limits{}},
		{set("RollingUpdate", object.Count(3), object.Count(0)), limits{true, 0, 3}},
		{set("RollingUpdate", object.Text("11%"), nil), limits{true, 0, 2}},
		{set("RollingUpdate", object.Count(0), object.Text("1%")), limits{true, 1, 0}},
		{set("RollingUpdate", nil, nil), limits{true, 0, 1}},
	} {
		if got, err := limitsOf(tt.set, 10); err != nil || got != tt.want {
			t.Errorf("%v: got %v, %v; want %v", tt.set.GetSpec().GetUpdateStrategy(), got, err, tt.want)
		}
	}
	if _, err := limitsOf(set("RollingUpdate", object.Text("many"), nil), 1); err == nil {
		t.Error("no error for an invalid limit")
	}
}

// world is a cluster in which a plan is carried out.
type world struct {
	r      *rand.Rand
	nodes  []*node
	limits limits
	made   int
}

// TestPlansConverge carries plans out in random clusters: nodes come to belong and cease to, pods
// become ready, break and fail, templates change, and the controller stops after any write.
// Whatever happens, no node gets two pods of one revision, a node has two pods in a surge alone, no
// more pods than allowed are taken down, and at the end every node has the pod that it is to have.
func TestPlansConverge(t *testing.T) {
	for seed := range uint64(400) {
		w := &world{r: rand.New(rand.NewPCG(seed, 0))}
		w.limits = []limits{{}, {rolling: true, unavailable: 1}, {rolling: true, unavailable: 3}, {rolling: true, surge: 1}, {rolling: true, surge: 3}}[seed%5]
		for i := range 3 + w.r.IntN(5) {
			w.nodes = append(w.nodes, &node{name: fmt.Sprint("n", i), runs: true, stays: true})
		}
		for range 120 {
			w.disturb()
			if err := w.step(w.r.IntN(4)); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			w.progress(0.5)
		}
		for range 200 {
			if err := w.step(1 << 30); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			w.progress(1)
		}
		for _, n := range w.nodes {
			switch {
			case n.runs && (len(n.pods) != 1 || !n.pods[0].available || !n.pods[0].current && w.limits.rolling),
				!n.stays && len(n.pods) > 0:
				t.Fatalf("seed %d, limits %v: at the end %s (%t) has %v", seed, w.limits, n.name, n.runs, n.pods)
			}
		}
	}
}

// disturb changes the cluster.
func (w *world) disturb() {
	n := w.nodes[w.r.IntN(len(w.nodes))]
	switch w.r.IntN(8) {
	case 0:
		n.runs, n.stays = true, true
	case 1:
		n.stays = w.r.IntN(2) == 0
		n.runs = false
	case 2:
		if w.r.IntN(4) == 0 {
			w.each(func(p *pod) { p.current = false })
		}
	case 3:
		for _, p := range n.pods {
			p.ready, p.available = false, false
		}
	case 4:
		for _, p := range n.pods {
			p.Status.Phase, p.ready, p.available = core.PodFailed, false, false
		}
	case 5:
		for _, p := range n.pods {
			w.remove(p)
		}
	}
}

func (w *world) each(f func(*pod)) {
	for _, n := range w.nodes {
		for _, p := range n.pods {
			f(p)
		}
	}
}

func (w *world) remove(p *pod) { p.Metadata.DeletionTimestamp = timestamppb.New(epoch) }

// progress lets agents act: pods become ready, and those that are being deleted go.
func (w *world) progress(chance float64) {
	for _, n := range w.nodes {
		n.pods = slices.DeleteFunc(n.pods, func(p *pod) bool { return p.deleting() && w.r.Float64() < chance })
		for _, p := range n.pods {
			if !core.IsPodFinished(p.Pod) && w.r.Float64() < chance {
				p.available = p.ready
				p.ready = true
			}
		}
	}
}

// counts returns how many nodes lack an available pod that they are to have, and how many have an
// available old pod beside a new one that is not available yet.
func (w *world) counts() (unserved, doubled int) {
	for _, n := range w.nodes {
		serves, old, starting := false, false, false
		for _, p := range n.pods {
			if !p.deleting() {
				serves = serves || p.available
				old = old || p.available && !p.current
				starting = starting || p.current && !p.available
			}
		}
		if n.runs && !serves {
			unserved++
		}
		if old && starting {
			doubled++
		}
	}
	return unserved, doubled
}

// step carries a plan out, or no more than the first writes of it, and checks every write and the
// limits.
func (w *world) step(writes int) error {
	a := plan(w.nodes, w.limits, func(string) bool { return w.r.IntN(4) == 0 })
	down := 0
	_, doubledBefore := w.counts()
	for _, name := range a.create {
		if writes--; writes < 0 {
			return nil
		}
		n := w.nodes[slices.IndexFunc(w.nodes, func(n *node) bool { return n.name == name })]
		for _, p := range n.pods {
			switch {
			case p.deleting():
			case w.limits.surge == 0:
				return fmt.Errorf("%s has a pod and gets another without a surge", name)
			case p.current:
				return fmt.Errorf("%s gets a second pod of the present template", name)
			}
		}
		w.made++
		n.pods = append(n.pods, &pod{current: true, Pod: &corev1.Pod{
			Metadata: &metav1.ObjectMeta{Name: fmt.Sprint("p", w.made), CreationTimestamp: timestamppb.New(epoch.Add(time.Duration(w.made) * time.Second))},
			Spec:     &corev1.PodSpec{NodeName: name}, Status: &corev1.PodStatus{Phase: core.PodRunning},
		}})
	}
	for _, p := range a.remove {
		if writes--; writes < 0 {
			return nil
		}
		n := w.nodes[slices.IndexFunc(w.nodes, func(n *node) bool { return slices.Contains(n.pods, p) })]
		alone := !slices.ContainsFunc(n.pods, func(other *pod) bool { return other != p && !other.deleting() && other.available })
		if n.runs && p.available && alone {
			down++
		}
		w.remove(p)
	}
	unserved, doubled := w.counts()
	switch {
	case down > 0 && unserved > w.limits.unavailable:
		return fmt.Errorf("%d nodes lack an available pod after %s, allowed are %d", unserved, a, w.limits.unavailable)
	case len(a.create) > 0 && doubled > max(doubledBefore, w.limits.surge):
		return fmt.Errorf("%d nodes have a pod more after %s, allowed are %d", doubled, a, w.limits.surge)
	}
	return nil
}
