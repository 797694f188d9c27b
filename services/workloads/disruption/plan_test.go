package disruption

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/object"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// newPod makes a pod of a text: name, owner or "-", and words such as ready and deleted.
func newPod(text string) *corev1.Pod {
	words := strings.Fields(text)
	p := &corev1.Pod{Metadata: &metav1.ObjectMeta{Namespace: "default", Name: words[0]}, Status: &corev1.PodStatus{Phase: "Running"}}
	if owner := words[1]; owner != "-" {
		p.Metadata.OwnerReferences = []*metav1.OwnerReference{{Kind: "ReplicaSet", ApiVersion: "apps/v1", Name: owner, Uid: owner, Controller: proto.Bool(true)}}
	}
	for _, word := range words[2:] {
		switch word {
		case "ready":
			p.Status.Conditions = append(p.Status.Conditions, &corev1.PodCondition{Type: "Ready", Status: "True"})
		case "new":
			p.Metadata.CreationTimestamp = timestamppb.New(noon)
		case "deleted":
			p.Metadata.DeletionTimestamp = timestamppb.New(noon)
		}
	}
	return p
}

func newPods(texts ...string) (pods []*corev1.Pod) {
	for _, text := range texts {
		pods = append(pods, newPod(text))
	}
	return pods
}

func TestCountsOf(t *testing.T) {
	scaleOf := func(_ string, owner *metav1.OwnerReference) (*scale, error) {
		switch owner.GetName() {
		case "old", "new":
			return &scale{"deployment", 10}, nil // two sets of one Deployment
		case "other":
			return &scale{"other", 5}, nil
		case "broken":
			return nil, errors.New("Job of batch/v1 does not implement the scale subresource")
		}
		return nil, nil
	}
	for _, tt := range []struct {
		name                         string
		minAvailable, maxUnavailable *metav1.IntOrString
		pods                         []*corev1.Pod
		want                         counts
		err                          string
	}{
		{"no limit", nil, nil, newPods("a old"), counts{}, ""},
		{"a number of pods of any owner", object.Count(3), nil, newPods("a old", "b -"), counts{2, 3, false}, ""},
		{"a percentage, rounded up", object.Text("21%"), nil, newPods("a old", "b new"), counts{10, 3, false}, ""},
		{"several owners", object.Text("50%"), nil, newPods("a old", "b other", "c other"), counts{15, 8, false}, ""},
		{"maxUnavailable", nil, object.Count(2), newPods("a old"), counts{10, 8, false}, ""},
		{"maxUnavailable as a percentage, rounded up", nil, object.Text("15%"), newPods("a old"), counts{10, 8, false}, ""},
		{"more than all", nil, object.Count(20), newPods("a old"), counts{10, 0, false}, ""},
		{"pods without owners", nil, object.Count(1), newPods("a -", "b other"), counts{5, 4, true}, ""},
		{"no pods", nil, object.Count(1), nil, counts{}, ""},
		{"an owner without a scale", nil, object.Count(1), newPods("a broken"), counts{}, "does not implement the scale subresource"},
		{"an owner that is gone", object.Text("50%"), nil, newPods("a gone"), counts{}, `found no controllers for pod "a"`},
		{"no percentage", object.Text("half"), nil, newPods("a old"), counts{}, `"half" is neither a number nor a percentage`},
	} {
		got, err := countsOf(&policyv1.PodDisruptionBudgetSpec{MinAvailable: tt.minAvailable, MaxUnavailable: tt.maxUnavailable}, tt.pods, scaleOf)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || got != tt.want {
			t.Errorf("%s: %+v, %v; want %+v, %q", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func TestPlanFor(t *testing.T) {
	evicted := func(ago time.Duration) map[string]*timestamppb.Timestamp {
		return map[string]*timestamppb.Timestamp{"a": timestamppb.New(noon.Add(-ago)), "gone": timestamppb.New(noon)}
	}
	for _, tt := range []struct {
		name             string
		pods             []*corev1.Pod
		disrupted        map[string]*timestamppb.Timestamp
		counts           counts
		healthy, allowed int32
		reason           string
		keeps            bool
		recheck          time.Duration
		notDeleted       int
	}{
		{"enough pods", newPods("a - ready", "b - ready", "c - ready"), nil, counts{3, 2, false}, 3, 1, "SufficientPods", false, 0, 0},
		{"too few", newPods("a - ready", "b -", "c - ready deleted"), nil, counts{3, 2, false}, 1, 0, "InsufficientPods", false, 0, 0},
		{"none expected", newPods("a - ready"), nil, counts{0, 0, false}, 1, 0, "InsufficientPods", false, 0, 0},
		{"evicted lately", newPods("a - ready", "b - ready"), evicted(time.Minute), counts{2, 1, false}, 1, 0, "InsufficientPods", true, time.Minute, 0},
		{"evicted and being deleted", newPods("a - ready deleted", "b - ready"), evicted(time.Minute), counts{2, 0, false}, 1, 1, "SufficientPods", false, 0, 0},
		{"evicted, and another of the name was created", newPods("a - ready new", "b - ready"), evicted(time.Second), counts{2, 1, false}, 2, 1, "SufficientPods", false, 0, 0},
		{"evicted in the second in which it was created", newPods("a - ready new", "b - ready"), evicted(0), counts{2, 1, false}, 1, 0, "InsufficientPods", true, 2 * time.Minute, 0},
		{"evicted and not deleted", newPods("a - ready", "b - ready"), evicted(2 * time.Minute), counts{2, 1, false}, 2, 1, "SufficientPods", false, 0, 1},
	} {
		b := &policyv1.PodDisruptionBudget{
			Metadata: &metav1.ObjectMeta{Name: "web", Generation: 7}, Status: &policyv1.PodDisruptionBudgetStatus{DisruptedPods: tt.disrupted},
		}
		before := proto.CloneOf(b)
		got := planFor(b, tt.pods, tt.counts, noon)
		s := got.status
		_, keeps := s.GetDisruptedPods()["a"]
		switch {
		case s.GetCurrentHealthy() != tt.healthy || s.GetDisruptionsAllowed() != tt.allowed || s.GetConditions()[0].GetReason() != tt.reason:
			t.Errorf("%s: the status is %v", tt.name, s)
		case s.GetObservedGeneration() != 7 || s.GetConditions()[0].GetObservedGeneration() != 7 || s.GetExpectedPods() != tt.counts.expected || s.GetDesiredHealthy() != tt.counts.desired:
			t.Errorf("%s: the status is %v", tt.name, s)
		case keeps != tt.keeps || s.GetDisruptedPods()["gone"] != nil || got.recheck != tt.recheck || len(got.notDeleted) != tt.notDeleted:
			t.Errorf("%s: the plan is %+v", tt.name, got)
		case !proto.Equal(b, before):
			t.Errorf("%s: the budget was changed", tt.name)
		}
		// The next look changes nothing.
		b.Status = s
		if again := planFor(b, tt.pods, tt.counts, noon); !proto.Equal(again.status, s) {
			t.Errorf("%s: the status is %v, then %v", tt.name, s, again.status)
		}
		before = proto.CloneOf(b)
		if planFor(b, nil, counts{1, 1, false}, noon); !proto.Equal(b, before) {
			t.Errorf("%s: the condition of the budget was changed in place", tt.name)
		}
	}
}

func TestFailedAllowsNothing(t *testing.T) {
	b := &policyv1.PodDisruptionBudget{Status: &policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 3, CurrentHealthy: 5}}
	s := failed(b, errors.New("why"), noon)
	c := s.GetConditions()[0]
	if s.GetDisruptionsAllowed() != 0 || s.GetCurrentHealthy() != 5 || c.GetStatus() != "False" || c.GetReason() != "SyncFailed" || c.GetMessage() != "why" {
		t.Errorf("the status is %v", s)
	}
	if b.GetStatus().GetDisruptionsAllowed() != 3 {
		t.Error("the budget was changed")
	}
}

func TestStaleIn(t *testing.T) {
	for name, tt := range map[string]struct {
		condition *corev1.PodCondition
		change    func(*corev1.Pod)
		left      time.Duration
		has       bool
	}{
		"none":             {nil, nil, 0, false},
		"lately":           {&corev1.PodCondition{Status: "True", Reason: "DeletionByTaintManager", LastTransitionTime: timestamppb.New(noon.Add(-time.Minute))}, nil, time.Minute, true},
		"long ago":         {&corev1.PodCondition{Status: "True", LastTransitionTime: timestamppb.New(noon.Add(-time.Hour))}, nil, -58 * time.Minute, true},
		"reset":            {&corev1.PodCondition{Status: "False"}, nil, 0, false},
		"by the agent":     {&corev1.PodCondition{Status: "True", Reason: "TerminationByKubelet"}, nil, 0, false},
		"ended":            {&corev1.PodCondition{Status: "True"}, func(p *corev1.Pod) { p.Status.Phase = "Failed" }, 0, false},
		"is being deleted": {&corev1.PodCondition{Status: "True"}, func(p *corev1.Pod) { p.Metadata.DeletionTimestamp = timestamppb.New(noon) }, 0, false},
	} {
		p := newPod("a - ready")
		if tt.condition != nil {
			tt.condition.Type = "DisruptionTarget"
			p.Status.Conditions = append(p.Status.Conditions, tt.condition)
		}
		if tt.change != nil {
			tt.change(p)
		}
		if left, has := staleIn(p, noon); left != tt.left || has != tt.has {
			t.Errorf("%s: %v, %t; want %v, %t", name, left, has, tt.left, tt.has)
		}
	}
}
