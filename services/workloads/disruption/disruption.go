// Package disruption keeps the status of PodDisruptionBudgets, by which the API decides on
// evictions: how many of the pods are healthy, how many must be, and how many may be evicted.
//
// plan.go decides and touches nothing; scale.go finds what the owners of pods want; stale.go clears
// the condition DisruptionTarget of pods that were not deleted after all.
package disruption

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/object"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	policyv1 "github.com/xebec-project/xebec/proto/xebec/policy/v1"
)

// retryFailed is when a budget is looked at again whose demands could not be computed.
const retryFailed = 10 * time.Second

// byNamespace is the index of pods and budgets by their namespace.
const byNamespace = "namespace"

// Config is what the controller needs from its service.
type Config struct {
	// Workers is how many budgets are reconciled at once; 0 means controller.DefaultWorkers.
	Workers int
	// Events records what happened to budgets.
	Events *events.Recorder
	// Pods mirrors all pods, with the index of Indexed.
	Pods *client.Informer[*corev1.Pod]
	// ReplicaSets mirrors all ReplicaSets.
	ReplicaSets *client.Informer[*appsv1.ReplicaSet]
}

// Indexed adds the index of pods that the controller needs to those of an informer.
func Indexed(indexers map[string]func(*corev1.Pod) []string) map[string]func(*corev1.Pod) []string {
	indexers[byNamespace] = func(p *corev1.Pod) []string { return []string{p.GetMetadata().GetNamespace()} }
	return indexers
}

// Add adds the controller to a term, which runs it.
func Add(t *controller.Term, cfg Config) {
	r := &reconciler{
		client: t.Client(), events: cfg.Events, pods: cfg.Pods, owners: newOwners(t, cfg.ReplicaSets),
		budgets: controller.Informer(t, client.InformerOptions[*policyv1.PodDisruptionBudget]{
			Indexers: map[string]func(*policyv1.PodDisruptionBudget) []string{
				byNamespace: func(b *policyv1.PodDisruptionBudget) []string { return []string{b.GetMetadata().GetNamespace()} },
			},
		}),
	}
	c := t.Controller("disruption", cfg.Workers, r.reconcile)
	controller.For(c, r.budgets)
	controller.Map(c, cfg.Pods, r.budgetsOf)
	addStale(t, cfg)
}

type reconciler struct {
	client  *client.Client
	events  *events.Recorder
	budgets *client.Informer[*policyv1.PodDisruptionBudget]
	pods    *client.Informer[*corev1.Pod]
	owners  *owners
}

// budgetsOf returns the budgets that select a pod.
func (r *reconciler) budgetsOf(p *corev1.Pod) []controller.Key {
	var keys []controller.Key
	for _, b := range r.budgets.ByIndex(byNamespace, p.GetMetadata().GetNamespace()) {
		selector, err := object.LabelSelector(b.GetSpec().GetSelector())
		if err == nil && selector.Matches(labels.Set(p.GetMetadata().GetLabels())) {
			keys = append(keys, client.KeyOf(b))
		}
	}
	if len(keys) > 1 {
		r.events.Event(p, events.Warning, "MultiplePodDisruptionBudgets",
			"Pod %q/%q matches multiple PodDisruptionBudgets, so that it cannot be evicted: %s and %s are two of them",
			p.GetMetadata().GetNamespace(), p.GetMetadata().GetName(), keys[0].Name, keys[1].Name)
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	b, ok := r.budgets.Get(key.Namespace, key.Name)
	if !ok {
		return controller.Result{}, nil
	}
	now := time.Now()
	pods, selector, err := r.selected(b)
	if err != nil {
		r.events.Event(b, events.Warning, "NoPods", "Failed to get pods: %v", err)
		return controller.Result{RequeueAfter: retryFailed}, r.updateStatus(ctx, b, failed(b, err, now))
	}
	if len(pods) == 0 {
		r.events.Event(b, events.Normal, "NoPods", "No matching pods found")
	}
	c, err := countsOf(b.GetSpec(), pods, r.owners.scaler(ctx))
	if err != nil {
		r.events.Event(b, events.Warning, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", err)
		return controller.Result{RequeueAfter: retryFailed}, r.updateStatus(ctx, b, failed(b, err, now))
	}
	if c.unmanaged {
		r.events.Event(b, events.Warning, "UnmanagedPods", "Pods selected by this PodDisruptionBudget (selector: %s) were found "+
			"to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. "+
			"To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.", selector)
	}
	p := planFor(b, pods, c, now)
	for _, pod := range p.notDeleted {
		r.events.Event(pod, events.Warning, "NotDeleted", "Pod was expected by PDB %s to be deleted but it wasn't", key)
	}
	return controller.Result{RequeueAfter: p.recheck}, r.updateStatus(ctx, b, p.status)
}

// selected returns the pods that a budget selects.
func (r *reconciler) selected(b *policyv1.PodDisruptionBudget) ([]*corev1.Pod, labels.Selector, error) {
	selector, err := object.LabelSelector(b.GetSpec().GetSelector())
	if err != nil {
		return nil, nil, err
	}
	var pods []*corev1.Pod
	for _, p := range r.pods.ByIndex(byNamespace, b.GetMetadata().GetNamespace()) {
		if selector.Matches(labels.Set(p.GetMetadata().GetLabels())) {
			pods = append(pods, p)
		}
	}
	return pods, selector, nil
}

// updateStatus stores a status that differs. An eviction since the budget was read makes a
// conflict, after which the budget is looked at again.
func (r *reconciler) updateStatus(ctx context.Context, b *policyv1.PodDisruptionBudget, status *policyv1.PodDisruptionBudgetStatus) error {
	if proto.Equal(status, b.GetStatus()) {
		return nil
	}
	updated := client.Clone(b)
	updated.Status = status
	if _, err := client.UpdateStatus(ctx, r.client, updated); err != nil && !apierr.IsNotFound(err) {
		return fmt.Errorf("update status: %w", err)
	}
	return nil
}

func cloneStatus(b *policyv1.PodDisruptionBudget) *policyv1.PodDisruptionBudgetStatus {
	if b.GetStatus() == nil {
		return &policyv1.PodDisruptionBudgetStatus{}
	}
	return proto.CloneOf(b.GetStatus())
}
