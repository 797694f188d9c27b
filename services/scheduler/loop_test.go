package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/scheduler/framework"
	"github.com/xebec-project/xebec/services/scheduler/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quantities(of map[string]string) map[string]*metav1.Quantity {
	out := map[string]*metav1.Quantity{}
	for name, amount := range of {
		out[name] = &metav1.Quantity{String_: amount}
	}
	return out
}

// newNode returns a node that offers cpu and room for 110 pods.
func newNode(name, cpu string, changes ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		Metadata: &metav1.ObjectMeta{Name: name}, Spec: &corev1.NodeSpec{},
		Status: &corev1.NodeStatus{Allocatable: quantities(map[string]string{"cpu": cpu, "memory": "8Gi", "pods": "110"})},
	}
	for _, change := range changes {
		change(n)
	}
	return n
}

func cordoned(n *corev1.Node) { n.Spec.Unschedulable = true }

func tainted(n *corev1.Node) {
	n.Spec.Taints = []*corev1.Taint{{Key: "k", Value: "v", Effect: "NoSchedule"}}
}

func labelled(key, value string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Metadata.Labels = map[string]string{key: value} }
}

// newPod returns a pod that requests cpu.
func newPod(name, cpu string, changes ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: name, Uid: name, Generation: 1},
		Spec: &corev1.PodSpec{
			SchedulerName: DefaultName,
			Containers: []*corev1.Container{{
				Name: "c", Image: "echo:1", Resources: &corev1.ResourceRequirements{Requests: quantities(map[string]string{"cpu": cpu})},
			}},
		},
		Status: &corev1.PodStatus{Phase: "Pending"},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

func on(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }

func selecting(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{key: value} }
}

func onHostPort(port int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Ports = []*corev1.ContainerPort{{ContainerPort: port, HostPort: port, Protocol: "TCP"}}
	}
}

// idleLoop returns a loop without goroutines, which the test drives by informer events and calls of
// schedule.
func idleLoop(t testing.TB) *loop {
	t.Helper()
	return idleLoopWith(t, DefaultConfig())
}

func idleLoopWith(t testing.TB, cfg Config) *loop {
	t.Helper()
	_, c := clienttest.Start(t)
	pods := client.NewInformer(c, client.InformerOptions[*corev1.Pod]{})
	return newLoop(cfg, c, pods, events.NewRecorder(events.Config{Client: c}), zap.NewNop())
}

// scheduled runs one batch and returns its assignments as "pod@node", sorted.
func scheduled(l *loop) (string, []framework.Assignment, map[string]*queue.Pod) {
	assignments, pods := l.schedule()
	var names []string
	for _, a := range assignments {
		names = append(names, a.Pod.Name+"@"+a.Node)
	}
	slices.Sort(names)
	return strings.Join(names, " "), assignments, pods
}

// afterBackoff lets every back-off end.
func afterBackoff() { <-time.After(queue.BackoffMax) }

// TestOnlyEventsThatHelpWakePods has pods that fit nowhere, each for another reason, and changes
// the cluster. Pods that a change cannot help stay where they are.
func TestOnlyEventsThatHelpWakePods(t *testing.T) {
	gpu := func(n *corev1.Node) { n.Status.Allocatable["example.com/gpu"] = &metav1.Quantity{String_: "1"} }
	for _, tt := range []struct {
		name   string
		change func(l *loop)
		// ready are the pods that are tried again.
		ready string
	}{
		{"nothing changes", func(l *loop) { l.nodeChanged(newNode("big", "8", cordoned), newNode("big", "8", cordoned)) }, ""},
		{"a node is uncordoned", func(l *loop) { l.nodeChanged(newNode("big", "8", cordoned), newNode("big", "8")) }, "large port small ssd"},
		{"a taint is removed", func(l *loop) { l.nodeChanged(newNode("tainted", "8", tainted), newNode("tainted", "8")) }, "large port small ssd"},
		{"another taint is added", func(l *loop) {
			l.nodeChanged(nil, newNode("tainted", "8", tainted, func(n *corev1.Node) {
				n.Spec.Taints = append(n.Spec.Taints, &corev1.Taint{Key: "x", Effect: "NoSchedule"})
			}))
		}, ""},
		{"a label is added that no pod selects", func(l *loop) { l.nodeChanged(nil, newNode("full", "1", labelled("disk", "hdd"))) }, ""},
		{"a selected label is added", func(l *loop) { l.nodeChanged(nil, newNode("full", "1", labelled("disk", "ssd"))) }, "ssd"},
		{"a node grows a little", func(l *loop) { l.nodeChanged(nil, newNode("full", "2")) }, "small"},
		{"a node grows much", func(l *loop) { l.nodeChanged(nil, newNode("full", "8")) }, "large small"},
		{"a node shrinks", func(l *loop) { l.nodeChanged(nil, newNode("full", "500m")) }, ""},
		{"a node offers another resource", func(l *loop) { l.nodeChanged(nil, newNode("full", "1", gpu)) }, ""},
		{"a node is added", func(l *loop) { l.nodeChanged(nil, newNode("new", "16")) }, "large port small ssd"},
		{"a node is deleted", func(l *loop) { l.nodeChanged(newNode("tainted", "8", tainted), nil) }, ""},
		{"a pod is deleted", func(l *loop) { l.podChanged(newPod("hog", "600m", on("full")), nil) }, "small"},
		{"a pod finishes", func(l *loop) {
			l.podChanged(nil, newPod("listener", "400m", on("full"), onHostPort(80), func(p *corev1.Pod) {
				p.Status = &corev1.PodStatus{Phase: "Succeeded"}
			}))
		}, "port"},
		{"a pod is resized to less", func(l *loop) { l.podChanged(nil, newPod("hog", "10m", on("full"))) }, "small"},
		{"a pod is resized to more", func(l *loop) { l.podChanged(nil, newPod("hog", "700m", on("full"))) }, ""},
		{"a pod is bound", func(l *loop) { l.podChanged(nil, newPod("other", "1m", on("full"))) }, ""},
		{"the pod itself changes", func(l *loop) {
			l.podChanged(newPod("small", "500m"), newPod("small", "500m", func(p *corev1.Pod) { p.Metadata.Generation = 2 }))
		}, "small"},
		{"the status of the pod changes", func(l *loop) { l.podChanged(newPod("small", "500m"), newPod("small", "500m")) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := idleLoop(t)
				l.nodeChanged(nil, newNode("big", "8", cordoned))
				l.nodeChanged(nil, newNode("tainted", "8", tainted))
				l.nodeChanged(nil, newNode("full", "1"))
				l.podChanged(nil, newPod("hog", "600m", on("full")))
				l.podChanged(nil, newPod("listener", "400m", on("full"), onHostPort(80)))
				l.podChanged(nil, newPod("small", "500m"))
				l.podChanged(nil, newPod("large", "4"))
				l.podChanged(nil, newPod("port", "0", onHostPort(80)))
				l.podChanged(nil, newPod("ssd", "0", selecting("disk", "ssd")))
				if got, _, _ := scheduled(l); got != "" {
					t.Fatalf("assigned %s", got)
				}
				tt.change(l)
				afterBackoff()
				var ready []string
				for _, w := range l.queue.Pop(100, time.Now()) {
					ready = append(ready, w.Name)
				}
				slices.Sort(ready)
				if got := strings.Join(ready, " "); got != tt.ready {
					t.Errorf("tried again: %q, want %q", got, tt.ready)
				}
			})
		})
	}
}

// TestWaitingPods decides which pods enter the queue.
func TestWaitingPods(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*corev1.Pod)
		waits  bool
	}{
		{"a pod", func(*corev1.Pod) {}, true},
		{"another scheduler's pod", func(p *corev1.Pod) { p.Spec.SchedulerName = "other" }, false},
		{"a gated pod", func(p *corev1.Pod) { p.Spec.SchedulingGates = []*corev1.PodSchedulingGate{{Name: "g"}} }, false},
		{"a pod that is being deleted", func(p *corev1.Pod) { p.Metadata.DeletionTimestamp = timestamppb.Now() }, false},
		{"a finished pod", func(p *corev1.Pod) { p.Status = &corev1.PodStatus{Phase: "Failed"} }, false},
		{"a bound pod", on("n"), false},
		{"a pod with an invalid quantity", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["cpu"] = &metav1.Quantity{String_: "many"}
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := idleLoop(t)
			l.nodeChanged(nil, newNode("n", "8"))
			l.podChanged(nil, newPod("p", "1", tt.change))
			got, _, _ := scheduled(l)
			if (got == "p@n") != tt.waits {
				t.Errorf("assigned %q", got)
			}
			// A pod leaves the queue by the same rules.
			l.podChanged(nil, newPod("q", "1"))
			l.podChanged(newPod("q", "1"), newPod("q", "1", tt.change, func(p *corev1.Pod) { p.Metadata.Generation = 2 }))
			if tt.name == "a pod with an invalid quantity" {
				return // The last valid version counts.
			}
			if got, _, _ := scheduled(l); (got == "q@n") != tt.waits {
				t.Errorf("after the change, assigned %q", got)
			}
		})
	}
}

func TestInvalidNodeIsIgnored(t *testing.T) {
	l := idleLoop(t)
	l.nodeChanged(nil, newNode("n", "8"))
	l.nodeChanged(newNode("n", "8"), newNode("n", "many"))
	l.podChanged(nil, newPod("p", "1"))
	if got, _, _ := scheduled(l); got != "" {
		t.Errorf("assigned %s", got)
	}
	l.nodeChanged(newNode("n", "many"), newNode("n", "8"))
	if got := l.queue.Pop(1, time.Now().Add(queue.BackoffMax)); len(got) != 1 {
		t.Error("the pod was not tried again when the node became valid")
	}
}

func TestReservedPodsCountAtOnce(t *testing.T) {
	l := idleLoop(t)
	for _, name := range []string{"a", "b"} {
		l.nodeChanged(nil, newNode(name, "1"))
	}
	for i := range 3 {
		l.podChanged(nil, newPod(fmt.Sprint("p", i), "600m"))
	}
	if got, _, _ := scheduled(l); got != "p0@a p1@b" {
		t.Errorf("assigned %q", got)
	}
	if got, _, _ := scheduled(l); got != "" {
		t.Errorf("then assigned %q", got)
	}
}

func TestFailedBindingFreesTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := idleLoop(t)
		l.nodeChanged(nil, newNode("n", "1"))
		l.podChanged(nil, newPod("first", "1"))
		_, assignments, pods := scheduled(l)
		l.podChanged(nil, newPod("second", "1"))
		if got, _, _ := scheduled(l); got != "" {
			t.Fatalf("assigned %q to a full node", got)
		}
		// The first changes while it is being bound: its next attempt is with what it is then.
		l.podChanged(newPod("first", "1"), newPod("first", "2", func(p *corev1.Pod) { p.Metadata.Generation = 2 }))
		l.bound(pods["first"], assignments[0], errors.New("broken"))
		afterBackoff()
		if got, _, _ := scheduled(l); got != "second@n" {
			t.Errorf("after the failure, assigned %q", got)
		}
	})
}

// TestBindingOutcomes has outcomes arrive after the informer has shown what became of the pod.
func TestBindingOutcomes(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name   string
		before func(l *loop)
		err    error
		// used is the cpu that is used of the node, and again whether the pod is scheduled again.
		used  int64
		again bool
	}{
		{"bound", func(*loop) {}, nil, 1000, false},
		{"bound and shown", func(l *loop) { l.podChanged(nil, newPod("p", "1", on("n"))) }, nil, 1000, false},
		{"shown bound in spite of the error", func(l *loop) { l.podChanged(nil, newPod("p", "1", on("n"))) }, broken, 1000, false},
		{"shown bound to another node", func(l *loop) { l.podChanged(nil, newPod("p", "1", on("other"))) }, broken, 0, false},
		{"deleted", func(l *loop) { l.podChanged(newPod("p", "1"), nil) }, apierr.Conflict(podKind(t), "p", "its uid differs"), 0, false},
		{"being deleted", func(l *loop) {
			l.podChanged(newPod("p", "1"), newPod("p", "1", func(p *corev1.Pod) { p.Metadata.DeletionTimestamp = timestamppb.Now() }))
		}, apierr.Conflict(podKind(t), "p", "it is being deleted"), 0, false},
		{"failed", func(*loop) {}, broken, 1000, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := idleLoop(t)
				l.nodeChanged(nil, newNode("n", "1"))
				l.podChanged(nil, newPod("p", "1"))
				got, assignments, pods := scheduled(l)
				if got != "p@n" {
					t.Fatalf("assigned %q", got)
				}
				tt.before(l)
				l.bound(pods["p"], assignments[0], tt.err)
				afterBackoff()
				if got, _, _ := scheduled(l); (got == "p@n") != tt.again {
					t.Errorf("then assigned %q", got)
				}
				if got := l.cache.Snapshot().Nodes[0].Used[framework.CPU]; got != tt.used {
					t.Errorf("%dm cpu of the node are used, want %dm", got, tt.used)
				}
			})
		})
	}
}

func podKind(t *testing.T) *scheme.Kind {
	t.Helper()
	k, ok := kinds.ByGroupKind("", "Pod")
	if !ok {
		t.Fatal("pods are not a kind")
	}
	return k
}
