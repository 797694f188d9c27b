package daemonset

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func affinityTo(key, value string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []*corev1.NodeSelectorTerm{{
			MatchExpressions: []*corev1.NodeSelectorRequirement{{Key: key, Operator: "In", Values: []string{value}}},
		}},
	}}}
}

func TestPodsNameTheirNode(t *testing.T) {
	set := kindtest.DaemonSet()
	set.Spec.Template.Spec.Affinity = affinityTo("disk", "fast")
	set.Spec.Template.Spec.Tolerations = []*corev1.Toleration{
		{Key: "node.kubernetes.io/not-ready", Operator: "Exists", Effect: "NoExecute", TolerationSeconds: proto.Int64(5)},
		{Key: "own", Operator: "Exists"},
	}
	before := proto.CloneOf(set)
	p := newPod(set, "abc", "node-1")
	if p.GetMetadata().GetLabels()["controller-revision-hash"] != "abc" || p.GetMetadata().GetLabels()["app"] != "web" || nodeOf(p) != "node-1" {
		t.Errorf("got %v", p)
	}
	if terms := p.GetSpec().GetAffinity().GetNodeAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution().GetNodeSelectorTerms(); len(terms) != 1 || len(terms[0].GetMatchExpressions()) > 0 {
		t.Errorf("terms %v", terms)
	}
	var keys []string
	for _, x := range p.GetSpec().GetTolerations() {
		keys = append(keys, strings.TrimPrefix(x.GetKey(), "node.kubernetes.io/")+":"+x.GetEffect())
		if x.TolerationSeconds != nil {
			t.Errorf("tolerated for a while only: %v", x)
		}
	}
	want := "own: not-ready:NoExecute unreachable:NoExecute disk-pressure:NoSchedule memory-pressure:NoSchedule pid-pressure:NoSchedule unschedulable:NoSchedule"
	if got := strings.Join(keys, " "); got != want {
		t.Errorf("tolerations %s", got)
	}
	set.Spec.Template.Spec.HostNetwork = true
	if all := newPod(set, "abc", "node-1").GetSpec().GetTolerations(); all[len(all)-1].GetKey() != "node.kubernetes.io/network-unavailable" {
		t.Errorf("with the network of the node: %v", all)
	}
	set.Spec.Template.Spec.HostNetwork = false
	if !proto.Equal(set, before) {
		t.Error("the pod shares memory with the template")
	}
	p.Spec.NodeName = "node-2"
	if nodeOf(p) != "node-2" || nodeOf(&corev1.Pod{}) != "" {
		t.Error("the node of a bound pod, or of none")
	}
}

func TestPlacement(t *testing.T) {
	n := func(name string, labels map[string]string, taints ...*corev1.Taint) *corev1.Node {
		return &corev1.Node{Metadata: &metav1.ObjectMeta{Name: name, Labels: labels}, Spec: &corev1.NodeSpec{Taints: taints}}
	}
	fast := map[string]string{"disk": "fast"}
	for _, tt := range []struct {
		name   string
		change func(*corev1.PodSpec)
		node   *corev1.Node
		want   [2]bool
	}{
		{"any node", func(*corev1.PodSpec) {}, n("a", nil), [2]bool{true, true}},
		{"named", func(s *corev1.PodSpec) { s.NodeName = "a" }, n("a", nil), [2]bool{true, true}},
		{"another is named", func(s *corev1.PodSpec) { s.NodeName = "b" }, n("a", nil), [2]bool{false, false}},
		{"selected", func(s *corev1.PodSpec) { s.NodeSelector = fast }, n("a", fast), [2]bool{true, true}},
		{"not selected", func(s *corev1.PodSpec) { s.NodeSelector = fast }, n("a", nil), [2]bool{false, false}},
		{"affinity", func(s *corev1.PodSpec) { s.Affinity = affinityTo("disk", "fast") }, n("a", fast), [2]bool{true, true}},
		{"no affinity", func(s *corev1.PodSpec) { s.Affinity = affinityTo("disk", "slow") }, n("a", fast), [2]bool{false, false}},
		{"NoSchedule", func(*corev1.PodSpec) {}, n("a", nil, &corev1.Taint{Key: "k", Effect: "NoSchedule"}), [2]bool{false, true}},
		{"NoExecute", func(*corev1.PodSpec) {}, n("a", nil, &corev1.Taint{Key: "k", Effect: "NoExecute"}), [2]bool{false, false}},
		{"PreferNoSchedule", func(*corev1.PodSpec) {}, n("a", nil, &corev1.Taint{Key: "k", Effect: "PreferNoSchedule"}), [2]bool{true, true}},
		{"tolerated", func(s *corev1.PodSpec) { s.Tolerations = []*corev1.Toleration{{Key: "k", Operator: "Exists"}} },
			n("a", nil, &corev1.Taint{Key: "k", Effect: "NoExecute"}), [2]bool{true, true}},
		{"cordoned and not ready", func(*corev1.PodSpec) {}, n("a", nil, &corev1.Taint{Key: "node.kubernetes.io/unschedulable", Effect: "NoSchedule"},
			&corev1.Taint{Key: "node.kubernetes.io/not-ready", Effect: "NoExecute"}), [2]bool{true, true}},
	} {
		set := kindtest.DaemonSet()
		tt.change(set.Spec.Template.Spec)
		if runs, stays := placementOf(set).on(tt.node); [2]bool{runs, stays} != tt.want {
			t.Errorf("%s: runs %t, stays %t, want %v", tt.name, runs, stays, tt.want)
		}
	}
}

func TestFailedPodsAreDeletedEverMoreRarely(t *testing.T) {
	f, set := newFailures(), client.Key{Namespace: "default", Name: "web"}
	now := epoch
	for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		f.note(set, "a", now)
		if got := f.left(set, "a", now); got != want {
			t.Errorf("held for %v, want %v", got, want)
		}
		now = now.Add(want)
		if got := f.left(set, "a", now); got > 0 {
			t.Errorf("held for %v after the pause", got)
		}
	}
	for range 20 {
		f.note(set, "a", now)
	}
	if got := f.left(set, "a", now); got != longestPause {
		t.Errorf("held for %v, want %v", got, longestPause)
	}
	f.note(set, "a", now.Add(time.Hour))
	if got := f.left(set, "a", now.Add(time.Hour)); got != firstPause || f.left(set, "b", now) != 0 {
		t.Errorf("held for %v after a quiet hour", got)
	}
	if f.forget(set); len(f.sets) > 0 {
		t.Error("a forgotten set is remembered")
	}
}

func TestStatus(t *testing.T) {
	set := &appsv1.DaemonSet{Metadata: &metav1.ObjectMeta{Generation: 7}, Spec: &appsv1.DaemonSetSpec{MinReadySeconds: 10},
		Status: &appsv1.DaemonSetStatus{Conditions: []*appsv1.DaemonSetCondition{{Type: "Theirs"}}}}
	nodes := nodesOf("a b:new c:new~ d:old,new e:old. f!:new g- h!")
	want := &appsv1.DaemonSetStatus{
		ObservedGeneration: 7, DesiredNumberScheduled: 5, CurrentNumberScheduled: 4, NumberMisscheduled: 1, NumberReady: 3, NumberAvailable: 2,
		NumberUnavailable: 3, UpdatedNumberScheduled: 2, CollisionCount: proto.Int32(1), Conditions: set.GetStatus().GetConditions(),
	}
	if got := newStatus(set, nodes, 1); !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	p := nodes[1].pods[0]
	p.Status.Conditions = []*corev1.PodCondition{{Type: "Ready", Status: "True", LastTransitionTime: timestamppb.New(epoch)}}
	if got := nextAvailable(set, nodes, epoch.Add(3*time.Second)); got != 7*time.Second {
		t.Errorf("the next pod is available in %v", got)
	}
}
