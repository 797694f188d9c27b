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
	"github.com/xebec-project/xebec/internal/elected"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/collector"
	"github.com/xebec-project/xebec/services/workloads"
)

func runWorkloads(t *testing.T, h *house, host string) (stop func()) {
	t.Helper()
	svc, err := workloads.New(workloads.Config{}, workloads.Deps{Host: host, Client: h.service("workloads"), Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	return run(t, svc.Run)
}

func template(app, image string) *corev1.PodTemplateSpec {
	return &corev1.PodTemplateSpec{
		Metadata: &metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec:     &corev1.PodSpec{Containers: []*corev1.Container{{Name: "c", Image: image}}},
	}
}

func deployment(namespace, name string, replicas int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		Metadata: meta(namespace, name),
		Spec: &appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: template(name, "echo:1"),
		},
	}
}

// setImage begins a rollout.
func setImage(t *testing.T, c *client.Client, name, image string) {
	t.Helper()
	patch[*appsv1.Deployment](t, c, "default", name, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":%q}]}}}}`, image)
}

func deploymentCondition(d *appsv1.Deployment, typ string) *appsv1.DeploymentCondition {
	for _, c := range d.GetStatus().GetConditions() {
		if c.GetType() == typ {
			return c
		}
	}
	return nil
}

// rolledOut waits until a deployment is all of its present template, as kubectl rollout status
// does.
func rolledOut(t *testing.T, c *client.Client, name string) *appsv1.Deployment {
	t.Helper()
	var d *appsv1.Deployment
	eventually(t, name+" rolled out", func() bool {
		d = get[*appsv1.Deployment](t, c, "default", name)
		s, n := d.GetStatus(), d.GetSpec().GetReplicas()
		return s.GetObservedGeneration() >= d.GetMetadata().GetGeneration() && s.GetUpdatedReplicas() == n && s.GetReplicas() == n && s.GetAvailableReplicas() == n &&
			deploymentCondition(d, "Progressing").GetReason() == "NewReplicaSetAvailable"
	})
	return d
}

// setsOf returns a deployment's sets by image.
func setsOf(t *testing.T, c *client.Client, name string) map[string]*appsv1.ReplicaSet {
	t.Helper()
	all, _, err := client.List[*appsv1.ReplicaSet](t.Context(), c, client.ListOptions{Namespace: "default", LabelSelector: "app=" + name})
	if err != nil {
		t.Fatal(err)
	}
	sets := map[string]*appsv1.ReplicaSet{}
	for _, rs := range all {
		sets[rs.GetSpec().GetTemplate().GetSpec().GetContainers()[0].GetImage()] = rs
	}
	return sets
}

func revision(o scheme.Object) string {
	return o.GetMetadata().GetAnnotations()["deployment.kubernetes.io/revision"]
}

func TestDeployments(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	runWorkloads(t, h, "master-1")
	runAgents(t, h, true)

	t.Run("create, scale, roll, roll back", func(t *testing.T) {
		d := deployment("default", "web", 4)
		d.Spec.Strategy = &appsv1.DeploymentStrategy{Type: "RollingUpdate", RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: object.Count(1), MaxUnavailable: object.Count(1)}}
		create(t, c, d)
		d = rolledOut(t, c, "web")
		first := setsOf(t, c, "web")["echo:1"]
		if revision(d) != "1" || revision(first) != "1" || deploymentCondition(d, "Available").GetStatus() != "True" {
			t.Errorf("revision %q of the deployment, %q of its set, conditions %v", revision(d), revision(first), d.GetStatus().GetConditions())
		}
		expectEvent(t, c, "default", "web", "Normal ScalingReplicaSet: Scaled up replica set "+first.GetMetadata().GetName()+" from 0 to 4")
		expectEvent(t, c, "default", first.GetMetadata().GetName(), "Normal SuccessfulCreate: Created pod: "+first.GetMetadata().GetName()+"-")
		for _, n := range []int{7, 4} {
			patch[*appsv1.Deployment](t, c, "default", "web", `{"spec":{"replicas":%d}}`, n)
			rolledOut(t, c, "web")
			eventually(t, fmt.Sprintf("%d pods", n), func() bool { return len(podsOf(t, c, "default", "app=web")) == n })
		}

		var most, least atomic.Int64
		whole := false
		observe(t, h, "app=web", func(o *observer) {
			active, ready := o.count()
			if whole = whole || ready == 4; !whole {
				return
			}
			most.Store(max(most.Load(), int64(active)))
			if l := least.Load(); l == 0 || int64(ready) < l {
				least.Store(int64(ready))
			}
		})
		for i, image := range []string{"echo:2", "echo:1", "echo:3"} {
			setImage(t, c, "web", image)
			d = rolledOut(t, c, "web")
			if want := fmt.Sprint(i + 2); revision(d) != want {
				t.Errorf("%s is revision %s, want %s", image, revision(d), want)
			}
		}
		if most.Load() > 5 || least.Load() < 3 {
			t.Errorf("at most %d pods were active and at least %d ready; at most 5 and at least 3 are allowed", most.Load(), least.Load())
		}
		t.Logf("at most %d pods active, at least %d ready", most.Load(), least.Load())
		sets := setsOf(t, c, "web")
		again := sets["echo:1"]
		if len(sets) != 3 || again.GetMetadata().GetUid() != first.GetMetadata().GetUid() || revision(again) != "3" || again.GetMetadata().GetAnnotations()["deployment.kubernetes.io/revision-history"] != "1" {
			t.Errorf("%d sets; the first, after the rollback: %v", len(sets), again.GetMetadata())
		}
	})

	t.Run("a lost pod is no rollout", func(t *testing.T) {
		create(t, c, deployment("default", "steady", 2))
		rolledOut(t, c, "steady")
		victim := podsOf(t, c, "default", "app=steady")[0]
		if _, err := client.Delete[*corev1.Pod](t.Context(), c, "default", victim.GetMetadata().GetName()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another in its place", func() bool {
			pods := podsOf(t, c, "default", "app=steady")
			return len(pods) == 2 && !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return p.Metadata.Uid == victim.Metadata.Uid })
		})
		if got := deploymentCondition(get[*appsv1.Deployment](t, c, "default", "steady"), "Progressing").GetReason(); got != "NewReplicaSetAvailable" {
			t.Errorf("Progressing says %s", got)
		}
	})

	t.Run("recreate", func(t *testing.T) {
		d := deployment("default", "alone", 3)
		d.Spec.Strategy = &appsv1.DeploymentStrategy{Type: "Recreate"}
		create(t, c, d)
		rolledOut(t, c, "alone")
		var mixed atomic.Int64
		observe(t, h, "app=alone", func(o *observer) {
			images := map[string]bool{}
			for _, p := range o.pods { // those that are being stopped count: they still run
				images[p.GetSpec().GetContainers()[0].GetImage()] = true
			}
			mixed.Store(max(mixed.Load(), int64(len(images))))
		})
		setImage(t, c, "alone", "echo:2")
		rolledOut(t, c, "alone")
		if mixed.Load() > 1 {
			t.Error("pods of both templates ran at once")
		}
	})

	t.Run("pause and resume", func(t *testing.T) {
		create(t, c, deployment("default", "held", 2))
		rolledOut(t, c, "held")
		patch[*appsv1.Deployment](t, c, "default", "held", `{"spec":{"paused":true}}`)
		setImage(t, c, "held", "echo:2")
		patch[*appsv1.Deployment](t, c, "default", "held", `{"spec":{"replicas":4}}`)
		eventually(t, "the paused one has grown", func() bool { return len(podsOf(t, c, "default", "app=held")) == 4 })
		eventually(t, "the condition", func() bool {
			return deploymentCondition(get[*appsv1.Deployment](t, c, "default", "held"), "Progressing").GetReason() == "DeploymentPaused"
		})
		if sets := setsOf(t, c, "held"); len(sets) != 1 {
			t.Errorf("a paused deployment has %d sets", len(sets))
		}
		for _, n := range []int{0, 3} {
			patch[*appsv1.Deployment](t, c, "default", "held", `{"spec":{"replicas":%d}}`, n)
			eventually(t, "the paused one has changed its size", func() bool { return len(podsOf(t, c, "default", "app=held")) == n })
		}
		patch[*appsv1.Deployment](t, c, "default", "held", `{"spec":{"paused":false}}`)
		rolledOut(t, c, "held")
		if sets := setsOf(t, c, "held"); sets["echo:2"].GetStatus().GetReplicas() != 3 {
			t.Errorf("resumed: %v", sets)
		}
	})

	t.Run("deadline and recovery", func(t *testing.T) {
		d := deployment("default", "slow", 2)
		d.Spec.ProgressDeadlineSeconds = proto.Int32(1)
		d.Spec.RevisionHistoryLimit = proto.Int32(1)
		create(t, c, d)
		rolledOut(t, c, "slow")
		setImage(t, c, "slow", "broken:2")
		eventually(t, "the deadline passes", func() bool {
			p := deploymentCondition(get[*appsv1.Deployment](t, c, "default", "slow"), "Progressing")
			return p.GetReason() == "ProgressDeadlineExceeded" && p.GetStatus() == "False"
		})
		if d := get[*appsv1.Deployment](t, c, "default", "slow"); d.GetStatus().GetAvailableReplicas() != 2 {
			t.Errorf("the broken image took available pods away: %v", d.GetStatus())
		}
		for n := 3; n < 6; n++ {
			setImage(t, c, "slow", fmt.Sprint("echo:", n))
			rolledOut(t, c, "slow")
		}
		eventually(t, "one old set is left", func() bool {
			sets := setsOf(t, c, "slow")
			return len(sets) == 2 && sets["echo:4"] != nil && sets["echo:5"] != nil
		})
	})

	t.Run("minReadySeconds", func(t *testing.T) {
		d := deployment("default", "careful", 1)
		// Long enough to be seen in between, on a busy machine too.
		d.Spec.MinReadySeconds = 3
		begun := time.Now()
		create(t, c, d)
		eventually(t, "ready and not available", func() bool {
			s := get[*appsv1.Deployment](t, c, "default", "careful").GetStatus()
			return s.GetReadyReplicas() == 1 && s.GetAvailableReplicas() == 0
		})
		rolledOut(t, c, "careful")
		if d := time.Since(begun); d < 3*time.Second {
			t.Errorf("available after %v", d)
		}
	})

	t.Run("hash collision", func(t *testing.T) {
		create(t, c, &corev1.Namespace{Metadata: meta("", "other")})
		create(t, c, deployment("default", "hashed", 1))
		rolledOut(t, c, "hashed")
		name := setsOf(t, c, "hashed")["echo:1"].GetMetadata().GetName()
		create(t, c, &appsv1.ReplicaSet{Metadata: meta("other", name), Spec: &appsv1.ReplicaSetSpec{
			Replicas: proto.Int32(0), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "stranger"}}, Template: template("stranger", "echo:9"),
		}})
		create(t, c, deployment("other", "hashed", 1))
		eventually(t, "a set of another name", func() bool {
			d := get[*appsv1.Deployment](t, c, "other", "hashed")
			return d.GetStatus().GetCollisionCount() == 1 && d.GetStatus().GetReadyReplicas() == 1
		})
	})

	t.Run("nothing is written when nothing happens", func(t *testing.T) {
		versions := func() string {
			var all []string
			for _, d := range []string{"web", "alone", "held", "slow", "steady"} {
				all = append(all, get[*appsv1.Deployment](t, c, "default", d).GetMetadata().GetResourceVersion())
				for _, image := range slices.Sorted(maps.Keys(setsOf(t, c, d))) {
					all = append(all, setsOf(t, c, d)[image].GetMetadata().GetResourceVersion())
				}
			}
			return strings.Join(all, " ")
		}
		before := versions()
		throughout(t, 500*time.Millisecond, "the versions stay", func() error {
			if now := versions(); now != before {
				return fmt.Errorf("from %s to %s", before, now)
			}
			return nil
		})
	})
}

func TestReplicaSets(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	runWorkloads(t, h, "master-1")
	runAgents(t, h, true)
	set := func(name string, n int32) *appsv1.ReplicaSet {
		return &appsv1.ReplicaSet{Metadata: meta("default", name), Spec: &appsv1.ReplicaSetSpec{
			Replicas: &n, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}, Template: template(name, "echo:1"),
		}}
	}
	ready := func(name string, n int32) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s has %d ready pods", name, n), func() bool {
			s := get[*appsv1.ReplicaSet](t, c, "default", name).GetStatus()
			return s.GetReplicas() == n && s.GetReadyReplicas() == n
		})
	}

	t.Run("adoption and release", func(t *testing.T) {
		// The pods are there first: the set takes them, and makes only what is missing.
		for n := range 2 {
			p := pod("default", fmt.Sprint("orphan-", n))
			p.Metadata.Labels = map[string]string{"app": "adopter"}
			create(t, c, p)
		}
		var most atomic.Int64
		observe(t, h, "app=adopter", func(o *observer) { most.Store(max(most.Load(), int64(len(o.pods)))) })
		rs := create(t, c, set("adopter", 3))
		ready("adopter", 3)
		if most.Load() > 3 {
			t.Errorf("%d pods were there at once: the adopted ones were not counted", most.Load())
		}
		p := get[*corev1.Pod](t, c, "default", "orphan-0")
		if !kinds.IsControlledBy(p, rs) {
			t.Errorf("owners of the adopted pod: %v", p.GetMetadata().GetOwnerReferences())
		}
		patch[*corev1.Pod](t, c, "default", "orphan-0", `{"metadata":{"labels":{"app":"free"}}}`)
		eventually(t, "the pod is let go", func() bool {
			return len(get[*corev1.Pod](t, c, "default", "orphan-0").GetMetadata().GetOwnerReferences()) == 0
		})
		ready("adopter", 3)
		// A pod that comes to match later is one too many; its set takes it and lets one go.
		patch[*corev1.Pod](t, c, "default", "orphan-0", `{"metadata":{"labels":{"app":"adopter"}}}`)
		eventually(t, "three again", func() bool { return len(podsOf(t, c, "default", "app=adopter")) == 3 })
	})

	t.Run("those of low cost go first", func(t *testing.T) {
		create(t, c, set("ranked", 4))
		ready("ranked", 4)
		cheap := podsOf(t, c, "default", "app=ranked")[2].GetMetadata().GetName()
		patch[*corev1.Pod](t, c, "default", cheap, `{"metadata":{"annotations":{"controller.kubernetes.io/pod-deletion-cost":"-10"}}}`)
		patch[*appsv1.ReplicaSet](t, c, "default", "ranked", `{"spec":{"replicas":3}}`)
		ready("ranked", 3)
		eventually(t, "the cheap one is gone", func() bool { return gone[*corev1.Pod](t, c, "default", cheap) })
		expectEvent(t, c, "default", "ranked", "Normal SuccessfulDelete: Deleted pod: "+cheap)
	})

	t.Run("a failure shows and settles", func(t *testing.T) {
		create(t, c, &corev1.Namespace{Metadata: meta("", "leaving")})
		d := deployment("leaving", "web", 1)
		create(t, c, d)
		eventually(t, "it runs", func() bool {
			return get[*appsv1.Deployment](t, c, "leaving", "web").GetStatus().GetReadyReplicas() == 1
		})
		if _, err := client.Delete[*corev1.Namespace](t.Context(), c, "", "leaving"); err != nil {
			t.Fatal(err)
		}
		patch[*appsv1.Deployment](t, c, "leaving", "web", `{"spec":{"replicas":3}}`)
		eventually(t, "the deployment says that pods cannot be made", func() bool {
			f := deploymentCondition(get[*appsv1.Deployment](t, c, "leaving", "web"), "ReplicaFailure")
			return f.GetStatus() == "True" && f.GetReason() == "FailedCreate" && strings.Contains(f.GetMessage(), "because it is being terminated")
		})
		sets, _, err := client.List[*appsv1.ReplicaSet](t.Context(), c, client.ListOptions{Namespace: "leaving"})
		if err != nil || len(sets) != 1 {
			t.Fatal(sets, err)
		}
		version := sets[0].GetMetadata().GetResourceVersion()
		throughout(t, 500*time.Millisecond, "the set is not written again", func() error {
			if now := get[*appsv1.ReplicaSet](t, c, "leaving", sets[0].Metadata.Name).GetMetadata().GetResourceVersion(); now != version {
				return fmt.Errorf("from %s to %s", version, now)
			}
			return nil
		})
	})

	t.Run("a thousand pods in a few transactions", func(t *testing.T) {
		begun := time.Now()
		create(t, c, &corev1.Namespace{Metadata: meta("", "crowd")})
		rs := set("many", 1000)
		rs.Metadata.Namespace = "crowd"
		create(t, c, rs)
		eventually(t, "1000 pods", func() bool {
			return get[*appsv1.ReplicaSet](t, c, "crowd", "many").GetStatus().GetReplicas() == 1000
		})
		t.Logf("made and counted within %v", time.Since(begun))
		pods := podsOf(t, c, "crowd", "app=many")
		if len(pods) != 1000 {
			t.Errorf("%d pods", len(pods))
		}
		begun = time.Now()
		patch[*appsv1.ReplicaSet](t, c, "crowd", "many", `{"spec":{"replicas":0}}`)
		var last *appsv1.ReplicaSetStatus
		defer func() {
			if t.Failed() {
				t.Logf("status %v, %d pods left", last, len(podsOf(t, c, "crowd", "app=many")))
			}
		}()
		eventually(t, "none", func() bool {
			last = get[*appsv1.ReplicaSet](t, c, "crowd", "many").GetStatus()
			return last.GetReplicas() == 0 && last.GetTerminatingReplicas() == 0 && len(podsOf(t, c, "crowd", "app=many")) == 0
		})
		t.Logf("gone within %v", time.Since(begun))
	})
}

// TestBatches counts the transactions by the revisions at which pods appear.
func TestBatches(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	revisions := map[string]int{}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	runWorkloads(t, h, "master-1")
	create(t, c, deployment("default", "many", 1000))
	seen := 0
	for e, err := range client.Watch[*corev1.Pod](ctx, c, client.WatchOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == apiv1.EventType_EVENT_TYPE_ADDED {
			revisions[e.Object.GetMetadata().GetResourceVersion()]++
			seen++
		}
		if seen == 1000 {
			break
		}
	}
	if len(revisions) > 5 {
		t.Errorf("1000 pods took %d transactions", len(revisions))
	}
}

// TestWorkloadsHandOver stops leaders while they work, and expects neither a pod too many nor one
// too few.
func TestWorkloadsHandOver(t *testing.T) {
	h := newHouse(t)
	c := h.admin()
	stops := map[string]func(){}
	for _, host := range []string{"master-1", "master-2"} {
		stops["workloads@"+host] = runWorkloads(t, h, host)
	}
	runAgents(t, h, true)
	var most atomic.Int64
	observe(t, h, "app=web", func(o *observer) {
		active, _ := o.count()
		most.Store(max(most.Load(), int64(active)))
	})
	leader := func() string {
		l, err := client.Get[*coordinationv1.Lease](t.Context(), c, "kube-system", "workloads")
		if err != nil {
			return ""
		}
		return l.GetSpec().GetHolderIdentity()
	}
	create(t, c, deployment("default", "web", 20))
	eventually(t, "pods begin to come", func() bool { return len(podsOf(t, c, "default", "app=web")) > 0 })
	for n := range 4 {
		setImage(t, c, "web", fmt.Sprint("echo:", n+2))
		eventually(t, "the rollout has begun", func() bool { return setsOf(t, c, "web")[fmt.Sprint("echo:", n+2)] != nil })
		was := leader()
		if stop := stops[was]; stop != nil {
			stop()
			stops[was] = runWorkloads(t, h, strings.TrimPrefix(was, "workloads@"))
		}
	}
	rolledOut(t, c, "web")
	if most.Load() > 25 {
		t.Errorf("%d pods were active at once, at most 25 are allowed", most.Load())
	}
}

// TestCascade deletes a deployment, and expects its sets and pods to go with it, or to stay when
// they are orphaned.
func TestCascade(t *testing.T) {
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
	for name, policy := range map[string]client.DeleteOption{"back": client.Background, "front": client.Foreground} {
		create(t, c, deployment("default", name, 3))
		rolledOut(t, c, name)
		if _, err := client.Delete[*appsv1.Deployment](t.Context(), c, "default", name, policy); err != nil {
			t.Fatal(err)
		}
		eventually(t, "all gone", func() bool {
			return gone[*appsv1.Deployment](t, c, "default", name) && len(setsOf(t, c, name)) == 0 && len(podsOf(t, c, "default", "app="+name)) == 0
		})
	}
	create(t, c, deployment("default", "left", 3))
	rolledOut(t, c, "left")
	set := setsOf(t, c, "left")["echo:1"]
	pods := podsOf(t, c, "default", "app=left")
	for _, kindOf := range []string{"the deployment", "the set"} {
		if kindOf == "the deployment" {
			_, err = client.Delete[*appsv1.Deployment](t.Context(), c, "default", "left", client.Orphan)
		} else {
			_, err = client.Delete[*appsv1.ReplicaSet](t.Context(), c, "default", set.Metadata.Name, client.Orphan)
		}
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, kindOf+" is gone", func() bool {
			if kindOf == "the deployment" {
				return gone[*appsv1.Deployment](t, c, "default", "left")
			}
			return gone[*appsv1.ReplicaSet](t, c, "default", set.Metadata.Name)
		})
	}
	throughout(t, 500*time.Millisecond, "orphaned pods stay as they are", func() error {
		for _, p := range pods {
			now, err := client.Get[*corev1.Pod](t.Context(), c, "default", p.Metadata.Name)
			if err != nil || now.GetMetadata().GetDeletionTimestamp() != nil || len(now.GetMetadata().GetOwnerReferences()) != 0 {
				return fmt.Errorf("%v, %v", now.GetMetadata(), err)
			}
		}
		return nil
	})
	create(t, c, deployment("default", "left", 3))
	rolledOut(t, c, "left") // it takes them back
	if d := get[*appsv1.Deployment](t, c, "default", "left"); d.GetStatus().GetReplicas() != 3 {
		t.Errorf("status %v", d.GetStatus())
	}
}
