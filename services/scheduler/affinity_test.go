package scheduler

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func withLabel(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Metadata.Labels = map[string]string{key: value} }
}

// term returns a term about pods with a label app, nearby by the label zone.
func term(app string) *corev1.PodAffinityTerm {
	return &corev1.PodAffinityTerm{TopologyKey: "zone", LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}
}

func nearPods(terms ...*corev1.PodAffinityTerm) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
	}
}

func apartFrom(terms ...*corev1.PodAffinityTerm) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
	}
}

// readyAfter returns the names of the pods that are tried again after a change.
func readyAfter(l *loop, change func()) string {
	change()
	afterBackoff()
	var ready []string
	for _, w := range l.queue.Pop(100, time.Now()) {
		ready = append(ready, w.Name)
	}
	slices.Sort(ready)
	return strings.Join(ready, " ")
}

// TestOnlyPodsThatHelpWakePods has pods that fit nowhere because of other pods, and changes those.
// "near-db" wants a database in its zone, "near-red" one in a namespace of a team. "apart-web"
// wants no web server, and a web server does not want "lonely".
func TestOnlyPodsThatHelpWakePods(t *testing.T) {
	team := term("db")
	team.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "red"}}
	namespace := func(name, team string) *corev1.Namespace {
		return &corev1.Namespace{Metadata: &metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team}}}
	}
	in := func(name string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Metadata.Namespace = name } }
	web := newPod("web", "1", on("a"), withLabel("app", "web"), apartFrom(term("lonely")))
	for _, tt := range []struct {
		name   string
		change func(l *loop)
		ready  string
	}{
		{"a pod that no term chooses is bound", func(l *loop) { l.podChanged(nil, newPod("x", "1", on("a"))) }, ""},
		{"a wanted pod is bound", func(l *loop) { l.podChanged(nil, newPod("x", "1", on("a"), withLabel("app", "db"))) }, "near-db"},
		{"a wanted pod is created", func(l *loop) { l.podChanged(nil, newPod("x", "1", withLabel("app", "db"))) }, "x"},
		{"a pod becomes a wanted one", func(l *loop) {
			l.podChanged(web, newPod("web", "1", on("a"), withLabel("app", "db"), apartFrom(term("lonely"))))
		}, "apart-web near-db"},
		{"a pod is bound that is wanted in another namespace", func(l *loop) {
			l.podChanged(nil, newPod("x", "1", on("a"), withLabel("app", "db"), in("other")))
		}, ""},
		{"a pod is bound in the namespace of the team", func(l *loop) {
			l.podChanged(nil, newPod("x", "1", on("a"), withLabel("app", "db"), in("red")))
		}, "near-red"},
		{"a namespace becomes one of the team", func(l *loop) { l.namespaceChanged(nil, namespace("other", "red")) }, "near-red"},
		{"the namespace is the same", func(l *loop) { l.namespaceChanged(nil, namespace("red", "red")) }, ""},
		{"the avoided pod is deleted", func(l *loop) { l.podChanged(web, nil) }, "apart-web lonely"},
		{"the avoided pod begins to terminate", func(l *loop) {
			l.podChanged(web, newPod("web", "1", on("a"), withLabel("app", "web"), apartFrom(term("lonely")), func(p *corev1.Pod) {
				p.Metadata.DeletionTimestamp = timestamppb.Now()
			}))
		}, ""},
		{"a pod changes its labels", func(l *loop) {
			l.podChanged(newPod("lonely", "1", withLabel("app", "lonely")), newPod("lonely", "1", withLabel("app", "other")))
		}, "lonely"},
		{"a node is added in another zone", func(l *loop) { l.nodeChanged(nil, newNode("b", "8", labelled("zone", "b"))) }, "apart-web lonely"},
		{"a node is added in the same zone", func(l *loop) { l.nodeChanged(nil, newNode("b", "8", labelled("zone", "a"))) }, ""},
		{"the node leaves its zone", func(l *loop) { l.nodeChanged(nil, newNode("a", "8")) }, "apart-web lonely near-db near-red"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := idleLoop(t)
				l.namespaceChanged(nil, namespace("red", "red"))
				l.nodeChanged(nil, newNode("a", "8", labelled("zone", "a")))
				l.podChanged(nil, web)
				l.podChanged(nil, newPod("near-db", "1", nearPods(term("db"))))
				l.podChanged(nil, newPod("near-red", "1", nearPods(team)))
				l.podChanged(nil, newPod("apart-web", "1", apartFrom(term("web"))))
				l.podChanged(nil, newPod("lonely", "1", withLabel("app", "lonely")))
				if got, _, _ := scheduled(l); got != "" {
					t.Fatalf("assigned %s", got)
				}
				if got := readyAfter(l, func() { tt.change(l) }); got != tt.ready {
					t.Errorf("tried again: %q, want %q", got, tt.ready)
				}
			})
		})
	}
}

// TestOnlyChangesOfTheSpreadWakePods has a pod that would exceed the skew of its constraint for
// lack of domains, and changes the counted pods and the domains.
func TestOnlyChangesOfTheSpreadWakePods(t *testing.T) {
	spread := func(p *corev1.Pod) {
		p.Metadata.Labels = map[string]string{"app": "web"}
		p.Spec.TopologySpreadConstraints = []*corev1.TopologySpreadConstraint{{
			TopologyKey: "zone", MaxSkew: 1, MinDomains: proto.Int32(2), WhenUnsatisfiable: "DoNotSchedule", LabelSelector: term("web").LabelSelector,
		}}
	}
	counted := newPod("counted", "1", on("a"), withLabel("app", "web"))
	for _, tt := range []struct {
		name   string
		change func(l *loop)
		ready  string
	}{
		{"a pod that does not count is bound", func(l *loop) { l.podChanged(nil, newPod("x", "1", on("a"))) }, ""},
		{"a pod that counts is bound", func(l *loop) { l.podChanged(nil, newPod("x", "1", on("a"), withLabel("app", "web"))) }, "waiting"},
		{"a pod that counts is deleted", func(l *loop) { l.podChanged(counted, nil) }, "waiting"},
		{"a pod that counts is changed", func(l *loop) { l.podChanged(counted, newPod("counted", "2", on("a"), withLabel("app", "web"))) }, ""},
		{"a pod stops counting", func(l *loop) { l.podChanged(counted, newPod("counted", "1", on("a"))) }, "waiting"},
		{"a pod that counts begins to terminate", func(l *loop) {
			l.podChanged(counted, newPod("counted", "1", on("a"), withLabel("app", "web"), func(p *corev1.Pod) {
				p.Metadata.DeletionTimestamp = timestamppb.Now()
			}))
		}, "waiting"},
		{"a node without the label is added", func(l *loop) { l.nodeChanged(nil, newNode("c", "8")) }, ""},
		{"a node is added in a zone", func(l *loop) { l.nodeChanged(nil, newNode("c", "8", labelled("zone", "c"))) }, "waiting"},
		{"a zone is deleted", func(l *loop) { l.nodeChanged(newNode("a", "8", labelled("zone", "a")), nil) }, "waiting"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := idleLoop(t)
				l.nodeChanged(nil, newNode("a", "8", labelled("zone", "a")))
				l.podChanged(nil, counted)
				l.podChanged(nil, newPod("waiting", "1", spread))
				if got, _, _ := scheduled(l); got != "" {
					t.Fatalf("assigned %s", got)
				}
				if got := readyAfter(l, func() { tt.change(l) }); got != tt.ready {
					t.Errorf("tried again: %q, want %q", got, tt.ready)
				}
			})
		})
	}
}
