package controllers

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/collector"
)

func statefulSet(name string, replicas int32, edits ...func(*appsv1.StatefulSetSpec)) *appsv1.StatefulSet {
	s := &appsv1.StatefulSet{
		Metadata: meta("default", name),
		Spec: &appsv1.StatefulSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: template(name, "echo:1"), ServiceName: "test",
		},
	}
	for _, edit := range edits {
		edit(s.Spec)
	}
	return s
}

func inParallel(s *appsv1.StatefulSetSpec) { s.PodManagementPolicy = "Parallel" }

func withClaims(deleted, scaled string) func(*appsv1.StatefulSetSpec) {
	return func(s *appsv1.StatefulSetSpec) {
		s.VolumeClaimTemplates = []*corev1.PersistentVolumeClaim{{Metadata: &metav1.ObjectMeta{Name: "data"}, Spec: &corev1.PersistentVolumeClaimSpec{
			AccessModes: []string{"ReadWriteOnce"}, Resources: &corev1.VolumeResourceRequirements{Requests: quantities("storage", "1Gi")},
		}}}
		s.PersistentVolumeClaimRetentionPolicy = &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{WhenDeleted: deleted, WhenScaled: scaled}
	}
}

// sequence follows the pods of a set and records when one becomes ready, begins to end, or is gone.
type sequence struct {
	mu     sync.Mutex
	events []string
	state  map[string]string
}

func follow(t *testing.T, h *house, app string) *sequence {
	q := &sequence{state: map[string]string{}}
	observe(t, h, "app="+app, func(o *observer) {
		q.mu.Lock()
		defer q.mu.Unlock()
		now := map[string]string{}
		for _, p := range o.pods {
			name := p.GetMetadata().GetName()
			if now[name] != "" {
				t.Errorf("two pods are named %s", name)
			}
			switch {
			case p.GetMetadata().GetDeletionTimestamp() != nil:
				now[name] = "-"
			case core.IsPodReady(p):
				now[name] = "+"
			default:
				now[name] = "?"
			}
			if is := now[name]; is != q.state[name] && is != "?" {
				q.events = append(q.events, is+name)
			}
		}
		q.state = now
	})
	return q
}

// since returns what happened since the last call, as "+web-0 -web-1".
func (q *sequence) since() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	text := strings.Join(q.events, " ")
	q.events = nil
	return text
}

func (q *sequence) until(t *testing.T, want string) {
	t.Helper()
	got := ""
	eventually(t, "pods go "+want, func() bool {
		got = strings.TrimSpace(got + " " + q.since())
		if len(got) > len(want) || !strings.HasPrefix(want, got) {
			t.Fatalf("pods went %q, want %q", got, want)
		}
		return got == want
	})
}

func annotate(t *testing.T, c *client.Client, pod, name string, on bool) {
	t.Helper()
	value := "null"
	if on {
		value = `"yes"`
	}
	patch[*corev1.Pod](t, c, "default", pod, `{"metadata":{"annotations":{%q:%s}}}`, name, value)
	if name != unhealthy {
		return
	}
	eventually(t, pod+" follows its probe", func() bool { return core.IsPodReady(get[*corev1.Pod](t, c, "default", pod)) != on })
}

func scaleSet(t *testing.T, c *client.Client, name string, n int) {
	t.Helper()
	patch[*appsv1.StatefulSet](t, c, "default", name, `{"spec":{"replicas":%d}}`, n)
}

func setStatus(t *testing.T, c *client.Client, name, what string, cond func(*appsv1.StatefulSetStatus) bool) *appsv1.StatefulSetStatus {
	t.Helper()
	var s *appsv1.StatefulSet
	eventually(t, name+": "+what, func() bool {
		s = get[*appsv1.StatefulSet](t, c, "default", name)
		return s.GetStatus().GetObservedGeneration() >= s.GetMetadata().GetGeneration() && cond(s.GetStatus())
	})
	return s.GetStatus()
}

func readyOf(n int32) func(*appsv1.StatefulSetStatus) bool {
	return func(s *appsv1.StatefulSetStatus) bool { return s.GetReplicas() == n && s.GetReadyReplicas() == n }
}

func noneReady(s *appsv1.StatefulSetStatus) bool { return s.GetReadyReplicas() == 0 }

func imagesOf(t *testing.T, c *client.Client, app string) string {
	t.Helper()
	var out []string
	for _, p := range podsOf(t, c, "default", "app="+app) {
		out = append(out, p.GetSpec().GetContainers()[0].GetImage())
	}
	return strings.Join(out, " ")
}

func setImageOf(t *testing.T, c *client.Client, name, image string) {
	t.Helper()
	patch[*appsv1.StatefulSet](t, c, "default", name, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":%q}]}}}}`, image)
}

// TestStatefulSets plays the specs of [sig-apps] StatefulSet Basic StatefulSet functionality
// [StatefulSetBasic], under their names, and more.
func TestStatefulSets(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	runWorkloads(t, h, "master-1")
	runAgents(t, h, true)
	pod := func(t *testing.T, name string) *corev1.Pod {
		t.Helper()
		return get[*corev1.Pod](t, c, "default", name)
	}

	t.Run("should perform rolling updates and roll backs of template modifications", func(t *testing.T) {
		t.Parallel()
		q := follow(t, h, "ss2")
		create(t, c, statefulSet("ss2", 3))
		q.until(t, "+ss2-0 +ss2-1 +ss2-2")
		first := setStatus(t, c, "ss2", "ready", readyOf(3))
		if first.GetCurrentRevision() == "" || first.GetCurrentRevision() != first.GetUpdateRevision() {
			t.Errorf("revisions %q and %q", first.GetCurrentRevision(), first.GetUpdateRevision())
		}
		if m := pod(t, "ss2-1"); m.GetMetadata().GetLabels()["controller-revision-hash"] != first.GetCurrentRevision() || m.GetSpec().GetHostname() != "ss2-1" ||
			m.GetSpec().GetSubdomain() != "test" || m.GetMetadata().GetLabels()["apps.kubernetes.io/pod-index"] != "1" {
			t.Errorf("pod %v", m)
		}
		for i, image := range []string{"echo:2", "echo:1"} {
			annotate(t, c, "ss2-1", unhealthy, true)
			setStatus(t, c, "ss2", "the controller sees an unhealthy pod", func(s *appsv1.StatefulSetStatus) bool { return s.GetReadyReplicas() == 2 })
			q.since()
			setImageOf(t, c, "ss2", image)
			status := setStatus(t, c, "ss2", "the update is seen", func(s *appsv1.StatefulSetStatus) bool { return s.GetUpdateRevision() != s.GetCurrentRevision() })
			if i == 1 && status.GetUpdateRevision() != first.GetUpdateRevision() {
				t.Errorf("the rollback has the revision %s, want %s", status.GetUpdateRevision(), first.GetUpdateRevision())
			}
			throughout(t, 200*time.Millisecond, "an unhealthy pod holds up the update", func() error {
				if s := q.since(); s != "" {
					return fmt.Errorf("pods went %s", s)
				}
				return nil
			})
			annotate(t, c, "ss2-1", unhealthy, false)
			q.until(t, "+ss2-1 -ss2-2 +ss2-2 -ss2-1 +ss2-1 -ss2-0 +ss2-0")
			done := setStatus(t, c, "ss2", "updated", func(s *appsv1.StatefulSetStatus) bool {
				return s.GetUpdatedReplicas() == 3 && s.GetCurrentRevision() == s.GetUpdateRevision()
			})
			if done.GetCurrentReplicas() != 3 || imagesOf(t, c, "ss2") != strings.Repeat(image+" ", 2)+image {
				t.Errorf("status %v, images %s", done, imagesOf(t, c, "ss2"))
			}
		}
		expectEvent(t, c, "default", "ss2", "Normal SuccessfulCreate: Create Pod ss2-0 in StatefulSet ss2 successful")
		expectEvent(t, c, "default", "ss2", "Normal SuccessfulDelete: Delete Pod ss2-2 in StatefulSet ss2 successful")
		revisions, _, err := client.List[*appsv1.ControllerRevision](t.Context(), c, client.ListOptions{Namespace: "default", LabelSelector: "app=ss2"})
		if err != nil || len(revisions) != 2 {
			t.Errorf("%d revisions, %v", len(revisions), err)
		}
	})

	t.Run("should perform canary updates and phased rolling updates of template modifications", func(t *testing.T) {
		t.Parallel()
		create(t, c, statefulSet("canary", 3, func(s *appsv1.StatefulSetSpec) {
			s.UpdateStrategy = &appsv1.StatefulSetUpdateStrategy{Type: "RollingUpdate", RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: proto.Int32(3)}}
		}))
		setStatus(t, c, "canary", "ready", readyOf(3))
		part := func(n int) {
			patch[*appsv1.StatefulSet](t, c, "default", "canary", `{"spec":{"updateStrategy":{"rollingUpdate":{"partition":%d}}}}`, n)
		}
		is := func(want string) {
			eventually(t, "images "+want, func() bool { return imagesOf(t, c, "canary") == want })
			setStatus(t, c, "canary", "ready", readyOf(3))
		}
		setImageOf(t, c, "canary", "echo:2")
		setStatus(t, c, "canary", "the update is seen", func(s *appsv1.StatefulSetStatus) bool { return s.GetUpdateRevision() != s.GetCurrentRevision() })
		is("echo:1 echo:1 echo:1") // not applied when the partition is greater than the number of replicas
		part(2)
		is("echo:1 echo:1 echo:2")
		for _, name := range []string{"canary-0", "canary-2"} { // restored at their revisions
			uid := pod(t, name).GetMetadata().GetUid()
			if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", name); err != nil {
				t.Fatal(err)
			}
			eventually(t, name+" is there again", func() bool {
				p, err := client.Get[*corev1.Pod](t.Context(), c, "default", name)
				return err == nil && p.GetMetadata().GetUid() != uid && core.IsPodReady(p)
			})
		}
		is("echo:1 echo:1 echo:2")
		part(1)
		is("echo:1 echo:2 echo:2")
		part(0)
		is("echo:2 echo:2 echo:2")
		setStatus(t, c, "canary", "complete", func(s *appsv1.StatefulSetStatus) bool { return s.GetUpdateRevision() == s.GetCurrentRevision() })
	})

	t.Run("Scaling should happen in predictable order and halt if any stateful pod is unhealthy", func(t *testing.T) {
		t.Parallel()
		q := follow(t, h, "ss")
		create(t, c, statefulSet("ss", 1))
		q.until(t, "+ss-0")
		halts := func() {
			t.Helper()
			throughout(t, 200*time.Millisecond, "nothing is scaled", func() error {
				if s := q.since(); s != "" {
					return fmt.Errorf("pods went %s", s)
				}
				return nil
			})
		}
		annotate(t, c, "ss-0", unhealthy, true)
		setStatus(t, c, "ss", "the controller sees an unhealthy pod", noneReady)
		scaleSet(t, c, "ss", 3)
		halts()
		annotate(t, c, "ss-0", unhealthy, false)
		q.until(t, "+ss-0 +ss-1 +ss-2")
		for n := range 3 {
			annotate(t, c, fmt.Sprint("ss-", n), unhealthy, true)
		}
		setStatus(t, c, "ss", "the controller sees three unhealthy pods", noneReady)
		scaleSet(t, c, "ss", 0)
		halts()
		const restore = `{"metadata":{"annotations":{"` + unhealthy + `":null}}}`
		patch[*corev1.Pod](t, c, "default", "ss-2", restore)
		q.until(t, "+ss-2 -ss-2")
		halts()
		patch[*corev1.Pod](t, c, "default", "ss-1", restore)
		q.until(t, "+ss-1 -ss-1 -ss-0")
		setStatus(t, c, "ss", "empty", readyOf(0))
	})

	t.Run("Burst scaling should run to completion even with unhealthy pods", func(t *testing.T) {
		t.Parallel()
		create(t, c, statefulSet("burst", 1, inParallel))
		setStatus(t, c, "burst", "ready", readyOf(1))
		annotate(t, c, "burst-0", unhealthy, true)
		scaleSet(t, c, "burst", 3)
		setStatus(t, c, "burst", "all but the unhealthy", func(s *appsv1.StatefulSetStatus) bool { return s.GetReplicas() == 3 && s.GetReadyReplicas() == 2 })
		for _, name := range []string{"burst-1", "burst-2"} {
			annotate(t, c, name, unhealthy, true)
		}
		scaleSet(t, c, "burst", 0)
		setStatus(t, c, "burst", "empty", readyOf(0))
		create(t, c, statefulSet("bursts", 4, inParallel, func(s *appsv1.StatefulSetSpec) {
			s.UpdateStrategy = &appsv1.StatefulSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{MaxUnavailable: object.Count(2)}}
		}))
		setStatus(t, c, "bursts", "ready", readyOf(4))
		setImageOf(t, c, "bursts", "broken:2")
		setStatus(t, c, "bursts", "two are broken", func(s *appsv1.StatefulSetStatus) bool {
			return s.GetUpdatedReplicas() == 2 && s.GetReadyReplicas() == 2
		})
		setImageOf(t, c, "bursts", "echo:3") // With Parallel, what is broken gives way by itself.
		setStatus(t, c, "bursts", "recovered", func(s *appsv1.StatefulSetStatus) bool {
			return s.GetUpdatedReplicas() == 4 && s.GetReadyReplicas() == 4
		})
	})

	t.Run("Should recreate evicted statefulset", func(t *testing.T) {
		t.Parallel()
		create(t, c, statefulSet("evicted", 1))
		setStatus(t, c, "evicted", "ready", readyOf(1))
		p := pod(t, "evicted-0")
		p.Status.Phase, p.Status.Reason = "Failed", "Evicted"
		if _, err := client.UpdateStatus(t.Context(), c, p); err != nil && !apierr.IsConflict(err) {
			t.Fatal(err)
		}
		eventually(t, "another in its place", func() bool {
			now, err := client.Get[*corev1.Pod](t.Context(), c, "default", "evicted-0")
			return err == nil && now.GetMetadata().GetUid() != p.GetMetadata().GetUid() && core.IsPodReady(now)
		})
	})

	t.Run("should have a working scale subresource", func(t *testing.T) {
		t.Parallel()
		s := create(t, c, statefulSet("scaled", 1))
		setStatus(t, c, "scaled", "ready", readyOf(1))
		k := kinds.Of(s)
		if n := k.Replicas(s); !k.HasSubresource("scale") || n != 1 {
			t.Errorf("scale has %d replicas", n)
		}
		s = get[*appsv1.StatefulSet](t, c, "default", "scaled")
		k.SetReplicas(s, 2)
		if _, err := client.Update(t.Context(), c, s); err != nil {
			t.Fatal(err)
		}
		setStatus(t, c, "scaled", "scaled", readyOf(2))
		if s = get[*appsv1.StatefulSet](t, c, "default", "scaled"); k.StatusReplicas(s) != 2 {
			t.Errorf("scale has %d replicas in its status", k.StatusReplicas(s))
		}
	})

	t.Run("should list, patch and delete a collection of StatefulSets", func(t *testing.T) {
		t.Parallel()
		s := statefulSet("collected", 1)
		s.Metadata.Labels = map[string]string{"e2e": "testing"}
		create(t, c, s)
		setStatus(t, c, "collected", "ready", readyOf(1))
		patch[*appsv1.StatefulSet](t, c, "default", "collected",
			`{"metadata":{"labels":{"collected":"patched"}},"spec":{"replicas":2,"template":{"spec":{"terminationGracePeriodSeconds":0,"containers":[{"name":"c","image":"echo:2"}]}}}}`)
		setStatus(t, c, "collected", "patched", func(s *appsv1.StatefulSetStatus) bool {
			return s.GetReadyReplicas() == 2 && s.GetUpdatedReplicas() == 2
		})
		o := client.ListOptions{Namespace: "default", LabelSelector: "collected=patched"}
		if all, _, err := client.List[*appsv1.StatefulSet](t.Context(), c, o); err != nil || len(all) != 1 || all[0].GetSpec().GetReplicas() != 2 {
			t.Errorf("%d sets, %v", len(all), err)
		}
		if _, err := client.DeleteCollection[*appsv1.StatefulSet](t.Context(), c, o); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the set is gone", func() bool { return gone[*appsv1.StatefulSet](t, c, "default", "collected") })
	})

	t.Run("should validate Statefulset Status endpoints", func(t *testing.T) {
		t.Parallel()
		create(t, c, statefulSet("status", 1))
		setStatus(t, c, "status", "ready", readyOf(1))
		s := get[*appsv1.StatefulSet](t, c, "default", "status")
		s.Status.Conditions = []*appsv1.StatefulSetCondition{{Type: "StatusUpdate", Status: "True", Reason: "E2E", Message: "Set from e2e test"}}
		if _, err := client.UpdateStatus(t.Context(), c, s); err != nil {
			t.Fatal(err)
		}
		_, err := client.Patch[*appsv1.StatefulSet](t.Context(), c, "default", "status",
			[]byte(`{"status":{"conditions":[{"type":"StatusPatched","status":"True"}]}}`), client.Subresource("status"))
		if err != nil {
			t.Fatal(err)
		}
		scaleSet(t, c, "status", 2)
		now := setStatus(t, c, "status", "ready", readyOf(2)) // The controller keeps what others say.
		if len(now.GetConditions()) != 1 || now.GetConditions()[0].GetType() != "StatusPatched" {
			t.Errorf("conditions %v", now.GetConditions())
		}
	})

	t.Run("a broken revision blocks its rollback until its pod is deleted", func(t *testing.T) {
		t.Parallel()
		create(t, c, statefulSet("broken", 2))
		setStatus(t, c, "broken", "ready", readyOf(2))
		setImageOf(t, c, "broken", "broken:2")
		setStatus(t, c, "broken", "broken", func(s *appsv1.StatefulSetStatus) bool {
			return s.GetUpdatedReplicas() == 1 && s.GetReadyReplicas() == 1
		})
		setImageOf(t, c, "broken", "echo:1")
		setStatus(t, c, "broken", "rolled back", func(s *appsv1.StatefulSetStatus) bool { return s.GetUpdatedReplicas() == 1 })
		uid := pod(t, "broken-1").GetMetadata().GetUid()
		throughout(t, 300*time.Millisecond, "the broken pod stays", func() error {
			if pod(t, "broken-1").GetMetadata().GetUid() != uid {
				return fmt.Errorf("it was replaced")
			}
			return nil
		})
		if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", "broken-1"); err != nil {
			t.Fatal(err)
		}
		setStatus(t, c, "broken", "whole", func(s *appsv1.StatefulSetStatus) bool {
			return s.GetReadyReplicas() == 2 && s.GetUpdatedReplicas() == 2
		})
	})

	t.Run("the pod of an unreachable node is not doubled", func(t *testing.T) {
		t.Parallel()
		create(t, c, statefulSet("apart", 2))
		setStatus(t, c, "apart", "ready", readyOf(2))
		annotate(t, c, "apart-1", outOfReach, true)
		uid := pod(t, "apart-1").GetMetadata().GetUid()
		if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", "apart-1"); err != nil {
			t.Fatal(err)
		}
		throughout(t, 500*time.Millisecond, "the old object is waited for", func() error {
			p, err := client.Get[*corev1.Pod](t.Context(), c, "default", "apart-1")
			if err != nil || p.GetMetadata().GetUid() != uid || p.GetMetadata().GetDeletionTimestamp() == nil {
				return fmt.Errorf("%v, %v", p.GetMetadata(), err)
			}
			return nil
		})
		// As the garbage collection of pods does when the node is out of service.
		if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", "apart-1", client.GracePeriod(0)); err != nil {
			t.Fatal(err)
		}
		setStatus(t, c, "apart", "whole", readyOf(2))
	})

	t.Run("adoption and release", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"adopt-0", "adopt-x"} {
			p := pod0(name, "adopt")
			create(t, c, p)
		}
		s := create(t, c, statefulSet("adopt", 2))
		setStatus(t, c, "adopt", "ready", readyOf(2))
		eventually(t, "the adopted pod has its labels", func() bool {
			// It has no revision and is replaced soon.
			p, err := client.Get[*corev1.Pod](t.Context(), c, "default", "adopt-0")
			return err == nil && kinds.IsControlledBy(p, s) && p.GetMetadata().GetLabels()["statefulset.kubernetes.io/pod-name"] == "adopt-0"
		})
		if kinds.IsControlledBy(pod(t, "adopt-x"), s) {
			t.Error("the set adopted a pod that is not one of its numbers")
		}
	})
}

// pod0 is a pod without a controller.
func pod0(name, app string) *corev1.Pod {
	t := template(app, "echo:1")
	m := meta("default", name)
	m.Labels = t.GetMetadata().GetLabels()
	return &corev1.Pod{Metadata: m, Spec: t.GetSpec()}
}

// TestStatefulSetClaims has claims made for pods, and deleted with them or with the set, as the
// retention policy says.
func TestStatefulSetClaims(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	runWorkloads(t, h, "master-1")
	runAgents(t, h, true)
	svc, err := collector.New(collector.Config{}, collector.Deps{
		Deps: elected.Deps{Host: "master-1", Client: h.service("collector"), Logger: logger(t)}, Scheme: kinds.NewScheme(),
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, svc.Run)
	claims := func(app string) string {
		all, _, err := client.List[*corev1.PersistentVolumeClaim](t.Context(), c, client.ListOptions{Namespace: "default", LabelSelector: "app=" + app})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, claim := range all {
			names = append(names, claim.GetMetadata().GetName())
			if claim.GetStatus().GetPhase() != "Pending" {
				t.Errorf("claim %v", claim)
			}
		}
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	for _, tt := range []struct{ name, deleted, scaled, afterScaling, afterDeletion string }{
		{"keep", "Retain", "Retain", "data-keep-0 data-keep-1", "data-keep-0 data-keep-1"},
		{"gone", "Delete", "Delete", "data-gone-0", ""},
	} {
		create(t, c, statefulSet(tt.name, 2, withClaims(tt.deleted, tt.scaled)))
		setStatus(t, c, tt.name, "ready", readyOf(2))
		if p := get[*corev1.Pod](t, c, "default", tt.name+"-1"); p.GetSpec().GetVolumes()[0].GetVolumeSource().GetPersistentVolumeClaim().GetClaimName() != "data-"+tt.name+"-1" {
			t.Errorf("volumes %v", p.GetSpec().GetVolumes())
		}
		expectEvent(t, c, "default", tt.name, fmt.Sprintf("Normal SuccessfulCreate: Create Claim data-%s-0 Pod %[1]s-0 in StatefulSet %[1]s success", tt.name))
		scaleSet(t, c, tt.name, 1)
		setStatus(t, c, tt.name, "scaled", readyOf(1))
		eventually(t, "the claims after scaling", func() bool { return claims(tt.name) == tt.afterScaling })
		if tt.scaled == "Delete" { // The number gets a new claim.
			scaleSet(t, c, tt.name, 2)
			setStatus(t, c, tt.name, "scaled back", readyOf(2))
		}
		if _, err := client.Delete[*appsv1.StatefulSet](t.Context(), c, "default", tt.name, client.Background); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the claims after the deletion", func() bool {
			return len(podsOf(t, c, "default", "app="+tt.name)) == 0 && claims(tt.name) == tt.afterDeletion
		})
	}
}
