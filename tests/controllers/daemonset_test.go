package controllers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

func daemonSet(name string) *appsv1.DaemonSet {
	return &appsv1.DaemonSet{Metadata: meta("default", name), Spec: &appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: template(name, "echo:1"),
	}}
}

// bindToNamed binds pods to the node that their affinity names, as the scheduler does, until the
// test ends.
func bindToNamed(t *testing.T, h *house) {
	t.Helper()
	c := h.admin()
	keys := make(chan *corev1.Pod, 1<<12)
	pods := client.NewInformer(c, client.InformerOptions[*corev1.Pod]{})
	pods.OnChange(func(_, now *corev1.Pod) {
		if now != nil && now.GetSpec().GetNodeName() == "" {
			keys <- now
		}
	})
	run(t, pods.Run)
	run(t, func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case p := <-keys:
				required := p.GetSpec().GetAffinity().GetNodeAffinity().GetRequiredDuringSchedulingIgnoredDuringExecution()
				for _, term := range required.GetNodeSelectorTerms() {
					node := term.GetMatchFields()[0].GetValues()[0]
					m := p.GetMetadata()
					// It fails for a pod that is bound or deleted meanwhile.
					_, _ = client.Transact(ctx, c, client.OpBind(m.GetNamespace(), m.GetName(), m.GetUid(), node))
				}
			}
		}
	})
}

// byNode returns the pods of a set that are not being deleted, by node.
func byNode(t *testing.T, c *client.Client, name string) map[string][]*corev1.Pod {
	t.Helper()
	found := map[string][]*corev1.Pod{}
	for _, p := range podsOf(t, c, "default", "app="+name) {
		if p.GetMetadata().GetDeletionTimestamp() == nil {
			found[p.GetSpec().GetNodeName()] = append(found[p.GetSpec().GetNodeName()], p)
		}
	}
	return found
}

// runsOn waits until a set is all available, with one pod on each of the nodes alone.
func runsOn(t *testing.T, c *client.Client, name string, nodes ...string) *appsv1.DaemonSet {
	t.Helper()
	var set *appsv1.DaemonSet
	var at map[string][]*corev1.Pod
	defer func() {
		if t.Failed() {
			t.Logf("status %v, pods on %v", set.GetStatus(), slices.Sorted(maps.Keys(at)))
		}
	}()
	eventually(t, fmt.Sprintf("%s runs on %v", name, nodes), func() bool {
		set, at = get[*appsv1.DaemonSet](t, c, "default", name), byNode(t, c, name)
		for _, pods := range at {
			if len(pods) != 1 {
				return false
			}
		}
		s, n := set.GetStatus(), int32(len(nodes))
		return slices.Equal(slices.Sorted(maps.Keys(at)), nodes) && s.GetObservedGeneration() >= set.GetMetadata().GetGeneration() &&
			s.GetDesiredNumberScheduled() == n && s.GetCurrentNumberScheduled() == n && s.GetUpdatedNumberScheduled() == n &&
			s.GetNumberAvailable() == n && s.GetNumberReady() == n && s.GetNumberMisscheduled() == 0 && s.GetNumberUnavailable() == 0
	})
	return set
}

// revisionsOf returns the revisions of a set by image.
func revisionsOf(t *testing.T, c *client.Client, name string) map[string]*appsv1.ControllerRevision {
	t.Helper()
	all, _, err := client.List[*appsv1.ControllerRevision](t.Context(), c, client.ListOptions{Namespace: "default", LabelSelector: "app=" + name})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*appsv1.ControllerRevision{}
	for _, r := range all {
		for _, image := range []string{"echo:1", "echo:2", "echo:3", "broken:1"} {
			if strings.Contains(string(r.GetData().GetRaw()), image) {
				found[image] = r
			}
		}
	}
	return found
}

func setDaemonImage(t *testing.T, c *client.Client, name, image string) {
	t.Helper()
	patch[*appsv1.DaemonSet](t, c, "default", name, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":%q}]}}}}`, image)
}

// TestDaemonSets plays the steps of Kubernetes' specs about DaemonSets and ControllerRevisions; the
// names of subtests say which.
func TestDaemonSets(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	runWorkloads(t, h, "master-1")
	runAgents(t, h, false)
	runCollector(t, h)
	bindToNamed(t, h)
	three := []string{"node-1", "node-2", "node-3"}
	for _, name := range three {
		node(t, c, name)
	}

	t.Run("should run and stop simple daemon", func(t *testing.T) {
		set := create(t, c, daemonSet("simple"))
		runsOn(t, c, "simple", three...)
		expectEvent(t, c, "default", "simple", "Normal SuccessfulCreate: Created pod: simple-")
		victim := byNode(t, c, "simple")["node-2"][0]
		if !kinds.IsControlledBy(victim, set) {
			t.Errorf("owners %v", victim.GetMetadata().GetOwnerReferences())
		}
		if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", victim.GetMetadata().GetName()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another is created", func() bool {
			pods := byNode(t, c, "simple")["node-2"]
			return len(pods) == 1 && pods[0].GetMetadata().GetUid() != victim.GetMetadata().GetUid()
		})
		runsOn(t, c, "simple", three...)
	})

	t.Run("should run and stop complex daemon", func(t *testing.T) {
		set := daemonSet("complex")
		set.Spec.Template.Spec.NodeSelector = map[string]string{"color": "blue"}
		create(t, c, set)
		eventually(t, "observed without nodes", func() bool {
			s := get[*appsv1.DaemonSet](t, c, "default", "complex").GetStatus()
			return s.GetObservedGeneration() == 1 && s.GetDesiredNumberScheduled() == 0
		})
		patch[*corev1.Node](t, c, "", "node-1", `{"metadata":{"labels":{"color":"blue"}}}`)
		runsOn(t, c, "complex", "node-1")
		patch[*corev1.Node](t, c, "", "node-1", `{"metadata":{"labels":{"color":"green"}}}`)
		eventually(t, "the pod is deleted", func() bool { return len(podsOf(t, c, "default", "app=complex")) == 0 })
		patch[*appsv1.DaemonSet](t, c, "default", "complex", `{"spec":{"template":{"spec":{"nodeSelector":{"color":"green"}}}}}`)
		runsOn(t, c, "complex", "node-1")
	})

	t.Run("should run by node affinity, and not on tainted nodes", func(t *testing.T) {
		set := daemonSet("affine")
		set.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []*corev1.NodeSelectorTerm{{MatchFields: []*corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: "NotIn", Values: []string{"node-3"}}}}},
		}}}
		create(t, c, set)
		runsOn(t, c, "affine", "node-1", "node-2")
		patch[*corev1.Node](t, c, "", "node-2", `{"spec":{"taints":[{"key":"k","effect":"NoSchedule"}]}}`)
		eventually(t, "the pod stays, misscheduled", func() bool {
			s := get[*appsv1.DaemonSet](t, c, "default", "affine").GetStatus()
			return s.GetDesiredNumberScheduled() == 1 && s.GetNumberMisscheduled() == 1
		})
		patch[*corev1.Node](t, c, "", "node-2", `{"spec":{"taints":[{"key":"k","effect":"NoExecute"}]}}`)
		runsOn(t, c, "affine", "node-1")
		patch[*corev1.Node](t, c, "", "node-2", `{"spec":{"taints":null}}`)
		runsOn(t, c, "affine", "node-1", "node-2")
	})

	t.Run("should retry creating failed daemon pods", func(t *testing.T) {
		create(t, c, daemonSet("failing"))
		runsOn(t, c, "failing", three...)
		p := byNode(t, c, "failing")["node-1"][0]
		p.Status.Phase = core.PodFailed
		if _, err := client.UpdateStatus(t.Context(), c, p); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the failed pod is replaced", func() bool {
			pods := byNode(t, c, "failing")["node-1"]
			return len(pods) == 1 && pods[0].GetMetadata().GetUid() != p.GetMetadata().GetUid()
		})
		expectEvent(t, c, "default", "failing", "Warning FailedDaemonPod: Found failed daemon pod default/"+p.GetMetadata().GetName()+" on node node-1, will try to kill it")
		runsOn(t, c, "failing", three...)
	})

	t.Run("should update pod when spec was updated and update strategy is RollingUpdate", func(t *testing.T) {
		create(t, c, daemonSet("rolling"))
		runsOn(t, c, "rolling", three...)
		first := revisionsOf(t, c, "rolling")["echo:1"]
		var least atomic.Int64
		least.Store(3)
		observe(t, h, "app=rolling", func(o *observer) {
			if _, ready := o.count(); len(o.pods) == 3 {
				least.Store(min(least.Load(), int64(ready)))
			}
		})
		setDaemonImage(t, c, "rolling", "echo:2")
		runsOn(t, c, "rolling", three...)
		second := revisionsOf(t, c, "rolling")["echo:2"]
		hash := second.GetMetadata().GetLabels()["controller-revision-hash"]
		if first.GetRevision() != 1 || second.GetRevision() != 2 || second.GetMetadata().GetName() != "rolling-"+hash {
			t.Errorf("revisions %v and %v", first, second)
		}
		for _, p := range podsOf(t, c, "default", "app=rolling") {
			if p.GetMetadata().GetLabels()["controller-revision-hash"] != hash || p.GetSpec().GetContainers()[0].GetImage() != "echo:2" {
				t.Errorf("pod %v", p)
			}
		}
		if least.Load() < 2 {
			t.Errorf("%d pods were ready, want 2 at least", least.Load())
		}
	})

	t.Run("should rollback without unnecessary restarts", func(t *testing.T) {
		create(t, c, daemonSet("restored"))
		runsOn(t, c, "restored", three...)
		setDaemonImage(t, c, "restored", "broken:1")
		eventually(t, "one pod has the broken image, and no more", func() bool {
			broken := 0
			for _, p := range podsOf(t, c, "default", "app=restored") {
				if p.GetSpec().GetContainers()[0].GetImage() == "broken:1" && p.GetSpec().GetNodeName() != "" {
					broken++
				}
			}
			return broken == 1
		})
		kept := map[string]bool{}
		for _, p := range podsOf(t, c, "default", "app=restored") {
			if p.GetSpec().GetContainers()[0].GetImage() == "echo:1" {
				kept[p.GetMetadata().GetUid()] = true
			}
		}
		first := revisionsOf(t, c, "restored")["echo:1"]
		if _, err := client.Patch[*appsv1.DaemonSet](t.Context(), c, "default", "restored", first.GetData().GetRaw(), client.StrategicPatch); err != nil {
			t.Fatal(err)
		}
		runsOn(t, c, "restored", three...)
		for _, p := range podsOf(t, c, "default", "app=restored") {
			delete(kept, p.GetMetadata().GetUid())
		}
		if len(kept) > 0 {
			t.Errorf("%d pods that had not been updated were restarted", len(kept))
		}
		if r := revisionsOf(t, c, "restored")["echo:1"]; r.GetRevision() != 3 || r.GetMetadata().GetUid() != first.GetMetadata().GetUid() {
			t.Errorf("the revision after the rollback: %v", r)
		}
	})

	t.Run("should surge pods onto nodes when spec was updated and update strategy is RollingUpdate", func(t *testing.T) {
		set := daemonSet("surging")
		set.Spec.UpdateStrategy = &appsv1.DaemonSetUpdateStrategy{RollingUpdate: &appsv1.RollingUpdateDaemonSet{
			MaxUnavailable: object.Count(0), MaxSurge: object.Count(1),
		}}
		create(t, c, set)
		runsOn(t, c, "surging", three...)
		var least, most atomic.Int64
		least.Store(3)
		observe(t, h, "app=surging", func(o *observer) {
			active, ready := o.count()
			if most.Store(max(most.Load(), int64(active))); len(o.pods) >= 3 {
				least.Store(min(least.Load(), int64(ready)))
			}
		})
		setDaemonImage(t, c, "surging", "echo:2")
		runsOn(t, c, "surging", three...)
		if least.Load() < 3 || most.Load() > 4 {
			t.Errorf("%d pods were ready at least and %d active at most, want 3 and 4", least.Load(), most.Load())
		}
	})

	t.Run("should not update pod when spec was updated and update strategy is OnDelete", func(t *testing.T) {
		set := daemonSet("by-hand")
		set.Spec.UpdateStrategy = &appsv1.DaemonSetUpdateStrategy{Type: "OnDelete"}
		create(t, c, set)
		runsOn(t, c, "by-hand", three...)
		setDaemonImage(t, c, "by-hand", "echo:2")
		eventually(t, "observed", func() bool {
			s := get[*appsv1.DaemonSet](t, c, "default", "by-hand").GetStatus()
			return s.GetObservedGeneration() == 2 && s.GetUpdatedNumberScheduled() == 0 && s.GetNumberAvailable() == 3
		})
		for _, p := range podsOf(t, c, "default", "app=by-hand") {
			if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", p.GetMetadata().GetName()); err != nil {
				t.Fatal(err)
			}
		}
		runsOn(t, c, "by-hand", three...)
	})

	t.Run("should verify changes to a daemon set status", func(t *testing.T) {
		create(t, c, daemonSet("status"))
		set := runsOn(t, c, "status", three...)
		set.Status.Conditions = append(set.Status.Conditions, &appsv1.DaemonSetCondition{Type: "StatusUpdate", Status: "True", Reason: "E2E", Message: "Set from e2e test"})
		if _, err := client.UpdateStatus(t.Context(), c, set); err != nil {
			t.Fatal(err)
		}
		throughout(t, 300*time.Millisecond, "the condition stays", func() error {
			if all := get[*appsv1.DaemonSet](t, c, "default", "status").GetStatus().GetConditions(); len(all) != 1 {
				return fmt.Errorf("conditions %v", all)
			}
			return nil
		})
	})

	t.Run("should manage the lifecycle of a ControllerRevision", func(t *testing.T) {
		set := create(t, c, daemonSet("recorded"))
		runsOn(t, c, "recorded", three...)
		first := revisionsOf(t, c, "recorded")["echo:1"]
		if !kinds.IsControlledBy(first, set) {
			t.Errorf("owners %v", first.GetMetadata().GetOwnerReferences())
		}
		first = patch[*appsv1.ControllerRevision](t, c, "default", first.GetMetadata().GetName(), `{"metadata":{"labels":{"patched":"yes"}}}`)
		copied := &appsv1.ControllerRevision{Metadata: meta("default", "copy"), Data: first.GetData(), Revision: first.GetRevision() + 1}
		copied.Metadata.Labels = map[string]string{"by": "hand"}
		copied = create(t, c, copied)
		copied.Revision = 4
		if _, err := client.Update(t.Context(), c, copied); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Patch[*appsv1.ControllerRevision](t.Context(), c, "default", "copy", []byte(`{"data":{}}`)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Patch[*appsv1.ControllerRevision](t.Context(), c, "default", "copy", []byte(`{"data":{"other":1}}`)); err == nil || !strings.Contains(err.Error(), "field is immutable") {
			t.Errorf("a change of the data: %v", err)
		}
		if _, err := client.Delete[*appsv1.ControllerRevision](t.Context(), c, "default", first.GetMetadata().GetName()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the deleted revision is created again", func() bool {
			r := revisionsOf(t, c, "recorded")["echo:1"]
			return r != nil && r.GetMetadata().GetUid() != first.GetMetadata().GetUid()
		})
	})

	t.Run("history is limited, and revisions of running pods stay", func(t *testing.T) {
		set := daemonSet("limited")
		set.Spec.RevisionHistoryLimit = proto.Int32(0)
		set.Spec.UpdateStrategy = &appsv1.DaemonSetUpdateStrategy{Type: "OnDelete"}
		create(t, c, set)
		runsOn(t, c, "limited", three...)
		setDaemonImage(t, c, "limited", "echo:2")
		eventually(t, "two revisions", func() bool { return len(revisionsOf(t, c, "limited")) == 2 })
		patch[*appsv1.DaemonSet](t, c, "default", "limited", `{"spec":{"updateStrategy":{"type":"RollingUpdate"}}}`)
		runsOn(t, c, "limited", three...)
		eventually(t, "one is left", func() bool {
			all := revisionsOf(t, c, "limited")
			return len(all) == 1 && all["echo:2"] != nil
		})
	})

	t.Run("a set adopts the pods and revisions that another left", func(t *testing.T) {
		uids := func() string {
			var all []string
			for _, p := range podsOf(t, c, "default", "app=adopting") {
				all = append(all, p.GetMetadata().GetUid())
			}
			slices.Sort(all)
			return strings.Join(all, " ")
		}
		create(t, c, daemonSet("adopting"))
		runsOn(t, c, "adopting", three...)
		before, revision := uids(), revisionsOf(t, c, "adopting")["echo:1"]
		if _, err := client.Delete[*appsv1.DaemonSet](t.Context(), c, "default", "adopting", client.Orphan); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the set is gone", func() bool { return gone[*appsv1.DaemonSet](t, c, "default", "adopting") })
		set := create(t, c, daemonSet("adopting"))
		runsOn(t, c, "adopting", three...)
		if after := uids(); after != before {
			t.Errorf("pods were %s, and are %s", before, after)
		}
		if r := revisionsOf(t, c, "adopting")["echo:1"]; r.GetMetadata().GetUid() != revision.GetMetadata().GetUid() || !kinds.IsControlledBy(r, set) {
			t.Errorf("the revision: %v", r)
		}
	})

	t.Run("nodes that come and go", func(t *testing.T) {
		create(t, c, daemonSet("following"))
		runsOn(t, c, "following", three...)
		node(t, c, "node-4")
		runsOn(t, c, "following", "node-1", "node-2", "node-3", "node-4")
		if _, err := client.Delete[*corev1.Node](t.Context(), c, "", "node-4"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "three are wanted", func() bool {
			return get[*appsv1.DaemonSet](t, c, "default", "following").GetStatus().GetDesiredNumberScheduled() == 3
		})
		if n := len(byNode(t, c, "following")["node-4"]); n != 1 {
			t.Errorf("%d pods of the deleted node are left; they are for the garbage collection of pods", n)
		}
	})

	t.Run("should list and delete a collection of DaemonSets", func(t *testing.T) {
		for _, name := range []string{"many-1", "many-2"} {
			set := daemonSet(name)
			set.Metadata.Labels = map[string]string{"collection": "yes"}
			create(t, c, set)
			runsOn(t, c, name, three...)
		}
		all, _, err := client.List[*appsv1.DaemonSet](t.Context(), c, client.ListOptions{LabelSelector: "collection=yes"})
		if err != nil || len(all) != 2 {
			t.Fatalf("listed %d, %v", len(all), err)
		}
		if _, err := client.DeleteCollection[*appsv1.DaemonSet](t.Context(), c, client.ListOptions{Namespace: "default", LabelSelector: "collection=yes"}); err != nil {
			t.Fatal(err)
		}
		if !gone[*appsv1.DaemonSet](t, c, "default", "many-1") || !gone[*appsv1.DaemonSet](t, c, "default", "many-2") {
			t.Error("the collection is still there")
		}
	})
}
