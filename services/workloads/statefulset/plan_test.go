package statefulset

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/kindtest"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// set returns a set with the defaults.
func set(replicas int32, edits ...func(*appsv1.StatefulSetSpec)) *appsv1.StatefulSet {
	s := kindtest.StatefulSet()
	s.Metadata.Uid = "uid-web"
	s.Spec.Replicas = &replicas
	kinds.Of(s).Default(s)
	for _, edit := range edits {
		edit(s.Spec)
	}
	return s
}

func parallel(s *appsv1.StatefulSetSpec) { s.PodManagementPolicy = apps.Parallel }

func claimed(s *appsv1.StatefulSetSpec) {
	s.VolumeClaimTemplates = []*corev1.PersistentVolumeClaim{kindtest.Claim()}
}

func partition(n int32) func(*appsv1.StatefulSetSpec) {
	return func(s *appsv1.StatefulSetSpec) { s.UpdateStrategy.RollingUpdate.Partition = &n }
}

func unavailable(n int32) func(*appsv1.StatefulSetSpec) {
	return func(s *appsv1.StatefulSetSpec) { s.UpdateStrategy.RollingUpdate.MaxUnavailable = object.Count(n) }
}

func from(n int32) func(*appsv1.StatefulSetSpec) {
	return func(s *appsv1.StatefulSetSpec) { s.Ordinals = &appsv1.StatefulSetOrdinals{Start: n} }
}

func policy(deleted, scaled string) func(*appsv1.StatefulSetSpec) {
	return func(s *appsv1.StatefulSetSpec) {
		s.PersistentVolumeClaimRetentionPolicy.WhenDeleted, s.PersistentVolumeClaimRetentionPolicy.WhenScaled = deleted, scaled
	}
}

// pods reads pods such as "0:a 1:b! 2:b-": number, revision and a mark: none for available, ! for
// not ready, - for being deleted, x for failed, ~ for ready since a second, ? without labels.
func pods(s *appsv1.StatefulSet, text string) []*corev1.Pod {
	var out []*corev1.Pod
	for word := range strings.FieldsSeq(text) {
		number, rest, _ := strings.Cut(word, ":")
		name := s.GetMetadata().GetName() + "-" + number
		p := &corev1.Pod{
			Metadata: &metav1.ObjectMeta{Name: name, Namespace: "default", Uid: "uid-" + name, Labels: map[string]string{
				apps.LabelControllerRevisionHash: rest[:1], apps.LabelStatefulSetPodName: name}},
			Status: &corev1.PodStatus{Phase: "Running", Conditions: []*corev1.PodCondition{
				{Type: "Ready", Status: "True", LastTransitionTime: timestamppb.New(now.Add(-time.Hour))}}},
		}
		switch rest[1:] {
		case "!":
			p.Status.Phase, p.Status.Conditions[0].Status = "Pending", "False"
		case "-":
			p.Metadata.DeletionTimestamp = timestamppb.New(now)
		case "x":
			p.Status.Phase, p.Status.Conditions[0].Status = "Failed", "False"
		case "~":
			p.Status.Conditions[0].LastTransitionTime = timestamppb.New(now.Add(-time.Second))
		case "?":
			delete(p.Metadata.Labels, apps.LabelStatefulSetPodName)
		}
		out = append(out, p)
	}
	return out
}

// claims reads claims such as "0 1:web 2:pod": number and the owner's sort.
func claims(s *appsv1.StatefulSet, text string) func(string) (*corev1.PersistentVolumeClaim, bool) {
	all := map[string]*corev1.PersistentVolumeClaim{}
	for word := range strings.FieldsSeq(text) {
		number, owner, _ := strings.Cut(word, ":")
		c := &corev1.PersistentVolumeClaim{Metadata: &metav1.ObjectMeta{Name: "data-web-" + number, Namespace: "default"}}
		switch owner {
		case "set":
			c.Metadata.OwnerReferences = []*metav1.OwnerReference{kinds.NewControllerRef(s)}
		case "pod":
			c.Metadata.OwnerReferences = []*metav1.OwnerReference{kinds.NewControllerRef(pods(s, number+":a")[0])}
		case "other":
			c.Metadata.OwnerReferences = []*metav1.OwnerReference{{ApiVersion: "v1", Kind: "ConfigMap", Name: "x", Uid: "y", Controller: proto.Bool(true)}}
		case "gone":
			c.Metadata.DeletionTimestamp = timestamppb.New(now)
		}
		all[c.Metadata.Name] = c
	}
	return func(name string) (*corev1.PersistentVolumeClaim, bool) { c, ok := all[name]; return c, ok }
}

// text writes steps as "claim 0, create 0:b, own 1 set, delete 2".
func text(steps []step) string {
	var out []string
	for _, s := range steps {
		number := strings.TrimPrefix(s.pod.GetMetadata().GetName(), "web-")
		for _, c := range s.newClaims {
			out = append(out, "claim "+strings.TrimPrefix(c.GetMetadata().GetName(), "data-web-")+ownerText(c.GetMetadata().GetOwnerReferences()))
		}
		for _, o := range s.owners {
			out = append(out, "own "+strings.TrimPrefix(o.claim.GetMetadata().GetName(), "data-web-")+ownerText(o.owners))
		}
		switch {
		case s.blocked != "":
			out = append(out, "blocked "+number)
		case s.verb == create:
			out = append(out, "create "+number+":"+revisionOf(s.pod))
		case s.verb != none:
			out = append(out, strings.ToLower(string(s.verb))+" "+number)
		}
	}
	return strings.Join(out, ", ")
}

func ownerText(owners []*metav1.OwnerReference) (text string) {
	for _, o := range owners {
		text += " " + o.GetKind()
	}
	return text
}

func TestPlan(t *testing.T) {
	with := func(edits ...func(*appsv1.StatefulSetSpec)) []func(*appsv1.StatefulSetSpec) { return edits }
	onDelete := func(s *appsv1.StatefulSetSpec) {
		s.UpdateStrategy = &appsv1.StatefulSetUpdateStrategy{Type: apps.StrategyOnDelete}
	}
	slow := func(s *appsv1.StatefulSetSpec) { s.MinReadySeconds = 10 }
	for _, tt := range []struct {
		name         string
		replicas     int32
		edits        []func(*appsv1.StatefulSetSpec)
		pods, claims string
		want         string
	}{
		{"the first pod", 3, nil, "", "", "create 0:b"},
		{"one at a time", 3, nil, "0:b!", "", ""},
		{"the next when the first is available", 3, nil, "0:b", "", "create 1:b"},
		{"not before minReadySeconds", 3, with(slow), "0:b~", "", ""},
		{"a gap is filled first", 3, nil, "0:b 2:b", "", "create 1:b"},
		{"numbers from a start", 2, with(from(5)), "5:b", "", "create 6:b"},
		{"a moved start", 2, with(from(1)), "0:b 1:b 2:b", "", "delete 0"},
		{"all at once", 3, with(parallel), "", "", "create 0:b, create 1:b, create 2:b"},
		{"all missing at once", 3, with(parallel), "1:b!", "", "create 0:b, create 2:b"},
		{"a failed pod", 2, nil, "0:bx", "", "delete 0"},
		{"a failed pod that ends", 2, with(parallel), "0:bx 1:b", "", "delete 0"},
		{"a pod that ends is waited for", 2, nil, "0:b- 1:b", "", ""},
		{"a pod that ends is not doubled", 2, with(parallel), "0:b- 1:b", "", ""},
		{"the highest goes first", 1, nil, "0:b 1:b 2:b", "", "delete 2"},
		{"one after the other", 1, nil, "0:b 1:b 2:b-", "", ""},
		{"an unavailable pod stops scaling down", 1, nil, "0:b! 1:b 2:b", "", ""},
		{"an unavailable surplus pod goes", 1, nil, "0:b 1:b!", "", "delete 1"},
		{"a lower unavailable surplus pod stops the others", 1, nil, "0:b 1:b! 2:b!", "", ""},
		{"a surplus pod that failed", 1, nil, "0:b 1:bx 2:bx", "", "delete 2"},
		{"all surplus at once", 0, with(parallel), "0:b 1:b! 2:b", "", "delete 2, delete 1, delete 0"},
		{"a foreign number", 1, nil, "0:b 01:b x:b", "", ""},

		{"update from the highest", 3, nil, "0:a 1:a 2:a", "", "delete 2"},
		{"update waits", 3, nil, "0:a 1:a 2:b!", "", ""},
		{"update goes on", 3, nil, "0:a 1:a 2:b", "", "delete 1"},
		{"OnDelete", 2, with(onDelete), "0:a 1:a", "", ""},
		{"OnDelete makes new ones", 2, with(onDelete), "0:a", "", "create 1:b"},
		{"partition", 3, with(partition(2)), "0:a 1:a 2:a", "", "delete 2"},
		{"partition reached", 3, with(partition(2)), "0:a 1:a 2:b", "", ""},
		{"below the partition at the old revision", 3, with(partition(2)), "0:a 2:b", "", "create 1:a"},
		{"partition counts from the start", 3, with(partition(2), from(4)), "4:a 6:b", "", "create 5:a"},
		{"partition beyond replicas", 2, with(partition(9)), "0:a", "", "create 1:a"},
		{"two at a time", 4, with(unavailable(2)), "0:a 1:a 2:a 3:a", "", "delete 3, delete 2"},
		{"others that are unavailable count", 4, with(unavailable(2), parallel), "0:b! 1:a 2:a 3:a", "", "delete 3"},
		{"no more than allowed", 4, with(unavailable(2), parallel), "0:a 1:a 2:b! 3:b!", "", ""},
		{"what is broken is replaced", 3, with(unavailable(1), parallel), "0:a! 1:a! 2:a!", "", "delete 2, delete 1, delete 0"},

		// Kubernetes' known issue: a pod that never became ready keeps the rollback from starting.
		{"rollback of a broken revision", 3, nil, "0:b 1:b 2:a!", "", ""},
		{"the broken pod was deleted", 3, nil, "0:b 1:b", "", "create 2:b"},
		{"rollback with Parallel", 3, with(parallel), "0:b 1:b 2:a!", "", "delete 2"},

		{"claims come first", 1, with(claimed), "", "", "claim 0, create 0:b"},
		{"claims that are there", 1, with(claimed), "", "0", "create 0:b"},
		{"claims of a set to be deleted with", 1, with(claimed, policy("Delete", "Retain")), "", "", "claim 0 StatefulSet, create 0:b"},
		{"a changed policy", 2, with(claimed, policy("Delete", "Retain")), "0:b 1:b", "0 1:set", "own 0 StatefulSet"},
		{"a policy that was reset", 1, with(claimed), "0:b", "0:set", "own 0"},
		{"claims go with surplus pods", 1, with(claimed, policy("Retain", "Delete")), "0:b 1:b", "0 1", "own 1 Pod, delete 1"},
		{"both policies", 1, with(claimed, policy("Delete", "Delete")), "0:b 1:b", "0:set 1:set", "own 1 Pod, delete 1"},
		{"a claim of another controller", 1, with(claimed, policy("Delete", "Delete")), "0:b", "0:other", ""},
		{"a claim that goes with a former pod", 1, with(claimed, policy("Retain", "Delete")), "", "0:pod", ""},
		{"a claim that is being deleted", 1, with(claimed), "", "0:gone", "blocked 0"},
		{"a claim that was deleted under a pending pod", 1, with(claimed), "0:b!", "", "claim 0"},
		{"an adopted pod", 1, nil, "0:b?", "", "update 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := set(tt.replicas, tt.edits...)
			got := text(plan(state{
				set: s, current: revision{"a", s.GetSpec().GetTemplate()}, update: revision{"b", s.GetSpec().GetTemplate()},
				pods: pods(s, tt.pods), claims: claims(s, tt.claims), now: now,
			}))
			if got != tt.want {
				t.Errorf("plan is %q, want %q", got, tt.want)
			}
		})
	}
	s := set(3)
	s.Metadata.DeletionTimestamp = timestamppb.New(now)
	if got := plan(state{set: s}); len(got) > 0 {
		t.Errorf("a set that is being deleted has the plan %s", text(got))
	}
}

func TestNewPod(t *testing.T) {
	s := set(1, claimed, from(3))
	s.Spec.ServiceName = "db"
	s.Spec.Template.Spec.Hostname = "ignored"
	s.Spec.Template.Spec.Volumes = []*corev1.Volume{{Name: "data"}, {Name: "tmp"}}
	p := newPod(s, revision{"web-1", s.GetSpec().GetTemplate()}, 3)
	if m := p.GetMetadata(); m.GetName() != "web-3" || m.GetGenerateName() != "" || fmt.Sprint(m.GetLabels()) !=
		"map[app:web apps.kubernetes.io/pod-index:3 controller-revision-hash:web-1 statefulset.kubernetes.io/pod-name:web-3]" {
		t.Errorf("metadata %v", m)
	}
	v := p.GetSpec().GetVolumes()
	if p.GetSpec().GetHostname() != "web-3" || p.GetSpec().GetSubdomain() != "db" || len(v) != 2 ||
		v[0].GetVolumeSource().GetPersistentVolumeClaim().GetClaimName() != "data-web-3" || v[1].GetName() != "tmp" {
		t.Errorf("spec %v", p.GetSpec())
	}
	c := newClaim(s, s.GetSpec().GetVolumeClaimTemplates()[0], 3)
	if c.GetMetadata().GetName() != "data-web-3" || c.GetMetadata().GetLabels()["app"] != "web" {
		t.Errorf("claim %v", c.GetMetadata())
	}
}

func TestStatus(t *testing.T) {
	s := set(3)
	s.Spec.MinReadySeconds = 10
	at := func(s *appsv1.StatefulSet, text string) state {
		return state{set: s, current: revision{name: "a"}, update: revision{name: "b"}, pods: pods(s, text), now: now}
	}
	status, again := newStatus(at(s, "0:a 1:b~ 2:b- 3:b!"), 2)
	if status.GetReplicas() != 4 || status.GetReadyReplicas() != 3 || status.GetAvailableReplicas() != 2 || status.GetCurrentReplicas() != 1 ||
		status.GetUpdatedReplicas() != 2 || status.GetCurrentRevision() != "a" || status.GetUpdateRevision() != "b" || status.GetCollisionCount() != 2 || again != 9*time.Second {
		t.Errorf("status %v, again after %v", status, again)
	}
	if status, _ := newStatus(at(set(2), "0:b 1:b"), 0); status.GetCurrentRevision() != "b" || status.GetCurrentReplicas() != 2 {
		t.Errorf("the update is complete: %v", status)
	}
	onDelete := set(2)
	onDelete.Spec.UpdateStrategy = &appsv1.StatefulSetUpdateStrategy{Type: apps.StrategyOnDelete}
	if status, _ := newStatus(at(onDelete, "0:b 1:b"), 0); status.GetCurrentRevision() != "a" {
		t.Errorf("OnDelete completes no update: %v", status)
	}
}
