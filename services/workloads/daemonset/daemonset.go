// Package daemonset keeps a pod of each DaemonSet on every node that its template allows.
//
// plan.go decides what to do and touches nothing. pod.go says which nodes a template allows and
// makes the pods, which the scheduler binds; failures.go spaces out the deletion of failed pods;
// status.go computes the status. Revisions of the template are in internal/controller/history.
package daemonset

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/controller/history"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/apps"
	"github.com/xebec-project/xebec/internal/kinds/core"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
	"github.com/xebec-project/xebec/services/workloads/podcontrol"
)

// Config is what the controller needs from its service.
type Config struct {
	// Workers is how many DaemonSets are reconciled at once; 0 means controller.DefaultWorkers.
	Workers int
	// Events records what happened to pods.
	Events *events.Recorder
	// Pods and Revisions mirror all objects of their kinds, with the index of controller.ByController.
	Pods      *client.Informer[*corev1.Pod]
	Revisions *client.Informer[*appsv1.ControllerRevision]
}

// Add adds the controller to a term, which runs it.
func Add(t *controller.Term, cfg Config) {
	sets := controller.Informer(t, client.InformerOptions[*appsv1.DaemonSet]{})
	selector := func(set *appsv1.DaemonSet) *metav1.LabelSelector { return set.GetSpec().GetSelector() }
	r := &reconciler{
		client: t.Client(), events: cfg.Events, sets: sets, failures: newFailures(),
		nodes: controller.Informer(t, client.InformerOptions[*corev1.Node]{Transform: slim}),
		pods: podcontrol.New(podcontrol.Config[*appsv1.DaemonSet]{
			Client: t.Client(), Events: cfg.Events, Owners: sets, Pods: cfg.Pods, Selector: selector,
		}),
		revisions: history.New(history.Config[*appsv1.DaemonSet]{
			Client: t.Client(), Owners: sets, Revisions: cfg.Revisions, Selector: selector, HashLabel: apps.LabelControllerRevision,
			Template: func(set *appsv1.DaemonSet) *corev1.PodTemplateSpec { return set.GetSpec().GetTemplate() },
		}),
	}
	c := t.Controller("daemonset", cfg.Workers, r.reconcile)
	controller.For(c, sets)
	r.pods.Watch(c)
	r.revisions.Watch(c)
	r.nodes.OnChange(func(old, now *corev1.Node) {
		if old == nil || now == nil || !proto.Equal(slimmed(old), slimmed(now)) {
			for _, set := range sets.List() {
				c.Enqueue(client.KeyOf(set))
			}
		}
	})
}

// slim drops what placement does not read, which is most of a node.
func slim(n *corev1.Node) {
	n.Metadata.ManagedFields, n.Status = nil, nil
	n.Spec = &corev1.NodeSpec{Taints: n.GetSpec().GetTaints()}
}

// slimmed is what placement reads of a node.
func slimmed(n *corev1.Node) *corev1.Node {
	m := n.GetMetadata()
	return &corev1.Node{Metadata: &metav1.ObjectMeta{Uid: m.GetUid(), Labels: m.GetLabels()}, Spec: n.GetSpec()}
}

type reconciler struct {
	client    *client.Client
	events    *events.Recorder
	sets      *client.Informer[*appsv1.DaemonSet]
	nodes     *client.Informer[*corev1.Node]
	pods      *podcontrol.Control[*appsv1.DaemonSet]
	revisions *history.History[*appsv1.DaemonSet]
	failures  *failures
}

func (r *reconciler) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	set, ok := r.sets.Get(key.Namespace, key.Name)
	if !ok {
		r.pods.Forget(key)
		r.revisions.Forget(key)
		r.failures.forget(key)
		return controller.Result{}, nil
	}
	// While the set is deleted its revisions may be gone already, and nothing is known of its pods.
	if set.GetMetadata().GetDeletionTimestamp() != nil {
		return controller.Result{}, nil
	}
	revisions, wait, err := r.revisions.Claim(ctx, set)
	if wait > 0 || err != nil {
		return controller.Result{RequeueAfter: wait}, err
	}
	pods, wait, err := r.pods.Claim(ctx, set)
	if wait > 0 || err != nil {
		return controller.Result{RequeueAfter: wait}, err
	}
	current, collisions, err := r.revisions.Record(ctx, set, revisions, set.GetStatus().GetCollisionCount())
	if err != nil {
		return controller.Result{}, err
	}
	hashes, err := r.hashes(set, revisions, current)
	if err != nil {
		return controller.Result{}, err
	}
	now := time.Now()
	nodes, lost := r.observe(set, pods, hashes, now)
	held, failed := r.act(ctx, set, nodes, lost, r.revisions.HashOf(current), now)
	if failed == nil {
		failed = r.trim(ctx, set, revisions, pods, current)
	}
	if err := r.updateStatus(ctx, set, newStatus(set, nodes, collisions)); err != nil && failed == nil {
		failed = err
	}
	return controller.Result{RequeueAfter: sooner(held, nextAvailable(set, nodes, now))}, failed
}

// sooner is the shorter of two times, of which 0 is never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// hashes are those by which pods of the present template name its revision. There are several when
// a revision with the same template was adopted.
func (r *reconciler) hashes(
	set *appsv1.DaemonSet, revisions []*appsv1.ControllerRevision, current *appsv1.ControllerRevision,
) (map[string]bool, error) {
	hashes := map[string]bool{r.revisions.HashOf(current): true}
	data, err := history.Data(set.GetSpec().GetTemplate())
	if err != nil {
		return nil, err
	}
	for _, equal := range history.FindEqual(revisions, data) {
		hashes[r.revisions.HashOf(equal)] = true
	}
	return hashes, nil
}

// observe returns the nodes by name with the set's pods, and the pods without a node whose node is
// gone. Bound pods of such nodes are left to the garbage collection of pods.
func (r *reconciler) observe(
	set *appsv1.DaemonSet, owned []*corev1.Pod, hashes map[string]bool, now time.Time,
) (nodes []*node, lost []*pod) {
	place := placementOf(set)
	byName := map[string]*node{}
	for _, n := range r.nodes.List() {
		name := n.GetMetadata().GetName()
		byName[name] = &node{name: name}
		byName[name].runs, byName[name].stays = place.on(n)
	}
	for _, p := range owned {
		if p.GetMetadata().GetDeletionTimestamp() != nil && core.IsPodFinished(p) {
			continue // A finalizer holds it; there is nothing left to do.
		}
		wait, ready := podcontrol.AvailableIn(p, set.GetSpec().GetMinReadySeconds(), now)
		current := hashes[p.GetMetadata().GetLabels()[apps.LabelControllerRevision]]
		seen := &pod{Pod: p, current: current, ready: ready, available: ready && wait <= 0}
		switch n, ok := byName[nodeOf(p)]; {
		case ok:
			n.pods = append(n.pods, seen)
		case p.GetSpec().GetNodeName() == "" && nodeOf(p) != "" && !seen.deleting():
			lost = append(lost, seen)
		}
	}
	nodes = slices.SortedFunc(maps.Values(byName), func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	for _, n := range nodes {
		slices.SortFunc(n.pods, byAge)
	}
	return nodes, lost
}

// act plans and takes a step. It returns when the first failed pod that has to stay may go, 0 for
// never.
func (r *reconciler) act(
	ctx context.Context, set *appsv1.DaemonSet, nodes []*node, lost []*pod, hash string, now time.Time,
) (held time.Duration, err error) {
	desired := 0
	for _, n := range nodes {
		if n.runs {
			desired++
		}
	}
	l, err := limitsOf(set, desired)
	if err != nil {
		return 0, fmt.Errorf("update strategy: %w", err)
	}
	key := client.KeyOf(set)
	a := plan(nodes, l, func(node string) bool {
		left := r.failures.left(key, node, now)
		if left > 0 {
			held = sooner(held, left)
		}
		return left > 0
	})
	for _, p := range a.failed {
		r.failures.note(key, nodeOf(p.Pod), now)
		r.events.Event(set, events.Warning, "FailedDaemonPod", "Found failed daemon pod %s on node %s, will try to kill it",
			client.KeyOf(p.Pod), nodeOf(p.Pod))
	}
	for _, p := range a.succeeded {
		r.events.Event(set, events.Normal, "SucceededDaemonPod", "Found succeeded daemon pod %s on node %s, will try to delete it",
			client.KeyOf(p.Pod), nodeOf(p.Pod))
	}
	if len(a.create) > 0 {
		err = r.pods.CreatePods(ctx, set, len(a.create), func(i int) *corev1.Pod { return newPod(set, hash, a.create[i]) })
	}
	if err == nil && len(a.remove)+len(lost) > 0 {
		victims := []*corev1.Pod{}
		for _, p := range append(a.remove, lost...) {
			victims = append(victims, p.Pod)
		}
		err = r.pods.DeletePods(ctx, set, victims)
	}
	return held, err
}

// trim deletes the oldest revisions beyond the history limit that no pod has.
func (r *reconciler) trim(
	ctx context.Context, set *appsv1.DaemonSet, revisions []*appsv1.ControllerRevision, pods []*corev1.Pod, current *appsv1.ControllerRevision,
) error {
	live := map[string]bool{}
	for _, p := range pods {
		live[p.GetMetadata().GetLabels()[apps.LabelControllerRevision]] = true
	}
	old := slices.DeleteFunc(slices.Clone(revisions), func(x *appsv1.ControllerRevision) bool {
		return x.GetMetadata().GetUid() == current.GetMetadata().GetUid()
	})
	surplus := history.Surplus(old, int(set.GetSpec().GetRevisionHistoryLimit()), func(x *appsv1.ControllerRevision) bool {
		return live[r.revisions.HashOf(x)]
	})
	if len(surplus) == 0 {
		return nil
	}
	return r.revisions.Trim(ctx, set, surplus)
}

func (r *reconciler) updateStatus(ctx context.Context, set *appsv1.DaemonSet, status *appsv1.DaemonSetStatus) error {
	if proto.Equal(status, set.GetStatus()) {
		return nil
	}
	updated := client.Clone(set)
	updated.Status = status
	if _, err := client.UpdateStatus(ctx, r.client, updated); err != nil && !apierr.IsNotFound(err) {
		return fmt.Errorf("update status: %w", err)
	}
	return nil
}
