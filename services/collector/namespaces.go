package collector

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/object"
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

const (
	// contentInterval is how often a namespace that does not empty is looked at again.
	contentInterval = 5 * time.Second

	conditionContentFailure = "NamespaceDeletionContentFailure"
	conditionContent        = "NamespaceContentRemaining"
	conditionFinalizers     = "NamespaceFinalizersRemaining"
)

// namespaces empties terminating namespaces and removes their finalizer.
type namespaces struct {
	client   *client.Client
	informer *client.Informer[*corev1.Namespace]
	kinds    *scheme.Scheme
}

// left enqueues a terminating namespace when an object in it was removed or created.
func (n *namespaces) left(c *controller.Controller, old, now scheme.Object) {
	if (old == nil) == (now == nil) {
		return
	}
	obj := now
	if obj == nil {
		obj = old
	}
	name := obj.GetMetadata().GetNamespace()
	if ns, ok := n.informer.Get("", name); ok && ns.GetMetadata().GetDeletionTimestamp() != nil {
		// A burst of changes is one reconciliation.
		c.EnqueueAfter(controller.Key{Name: name}, 20*time.Millisecond)
	}
}

func (n *namespaces) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	ns, ok := n.informer.Get("", key.Name)
	if !ok || ns.GetMetadata().GetDeletionTimestamp() == nil || !holds(ns) {
		return controller.Result{}, nil
	}
	rest, err := n.empty(ctx, key.Name)
	if err == nil && rest.none() {
		return controller.Result{}, n.release(ctx, ns)
	}
	return controller.Result{RequeueAfter: contentInterval}, errors.Join(err, n.report(ctx, ns, rest, err))
}

// holds reports whether a namespace is not released yet. Our finalizer stands among the metadata's;
// in objects that come from a Kubernetes cluster it stands in the spec.
func holds(ns *corev1.Namespace) bool {
	return slices.Contains(ns.GetMetadata().GetFinalizers(), object.FinalizerKubernetes) ||
		slices.Contains(ns.GetSpec().GetFinalizers(), object.FinalizerKubernetes)
}

// remains are the objects left in a namespace.
type remains struct {
	objects    map[string]int // by plural
	finalizers map[string]int // by finalizer
}

func (r remains) none() bool { return len(r.objects) == 0 }

// empty deletes all objects of a namespace and returns what is left: what takes its time to stop,
// or is held.
func (n *namespaces) empty(ctx context.Context, namespace string) (remains, error) {
	r := remains{map[string]int{}, map[string]int{}}
	var errs []error
	for _, k := range namespacedKinds(n.kinds) {
		left, err := n.emptyOf(ctx, k, namespace)
		if err != nil {
			errs = append(errs, fmt.Errorf("delete the %s of namespace %s: %w", k.Plural, namespace, err))
		}
		for _, obj := range left {
			r.objects[k.Resource()]++
			for _, f := range obj.GetMetadata().GetFinalizers() {
				r.finalizers[f]++
			}
		}
	}
	return r, errors.Join(errs...)
}

func (n *namespaces) emptyOf(ctx context.Context, k *scheme.Kind, namespace string) ([]scheme.Object, error) {
	in := client.ListOptions{Namespace: namespace}
	found, _, err := client.ListKind(ctx, n.client, k, in)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	// What is marked for deletion already needs no second call.
	if slices.ContainsFunc(found, func(o scheme.Object) bool { return o.GetMetadata().GetDeletionTimestamp() == nil }) {
		if _, err := client.DeleteCollectionKind(ctx, n.client, k, in); err != nil {
			return found, err
		}
		if found, _, err = client.ListKind(ctx, n.client, k, in); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// release removes the finalizer of an empty namespace, which removes the namespace.
func (n *namespaces) release(ctx context.Context, seen *corev1.Namespace) error {
	ns := client.Clone(seen)
	ours := func(f string) bool { return f == object.FinalizerKubernetes }
	ns.Metadata.Finalizers = slices.DeleteFunc(ns.Metadata.Finalizers, ours)
	if ns.Spec != nil {
		ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, ours)
	}
	if _, err := client.Update(ctx, n.client, ns); err != nil && !apierr.IsNotFound(err) {
		return fmt.Errorf("release the empty namespace %s: %w", seen.GetMetadata().GetName(), err)
	}
	return nil
}

// report shows in the namespace's conditions what it waits for.
func (n *namespaces) report(ctx context.Context, seen *corev1.Namespace, r remains, failure error) error {
	ns := client.Clone(seen)
	if ns.Status == nil {
		ns.Status = &corev1.NamespaceStatus{}
	}
	ns.Status.Phase = core.NamespaceTerminating
	message := "All content successfully deleted, may be waiting on finalization"
	if failure != nil {
		message = "Failed to delete all resource types: " + failure.Error()
	}
	changed := setCondition(ns.Status, conditionContentFailure, failure != nil, "ContentDeletionFailed", "ContentDeleted", message)
	message = "All content successfully removed"
	if !r.none() {
		message = "Some resources are remaining: " + count(r.objects, "%s has %d resource instances")
	}
	changed = setCondition(ns.Status, conditionContent, !r.none(), "SomeResourcesRemain", "ContentRemoved", message) || changed
	message = "All content-preserving finalizers finished"
	if len(r.finalizers) > 0 {
		message = "Some content in the namespace has finalizers remaining: " + count(r.finalizers, "%s in %d resource instances")
	}
	changed = setCondition(ns.Status, conditionFinalizers, len(r.finalizers) > 0,
		"SomeFinalizersRemain", "ContentHasNoFinalizers", message) || changed
	if !changed && seen.GetStatus().GetPhase() == ns.Status.Phase {
		return nil
	}
	if _, err := client.UpdateStatus(ctx, n.client, ns); err != nil && !apierr.IsNotFound(err) {
		return fmt.Errorf("report what is left in namespace %s: %w", ns.GetMetadata().GetName(), err)
	}
	return nil
}

func count(of map[string]int, format string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, fmt.Sprintf(format, name, of[name]))
	}
	return strings.Join(parts, ", ")
}

// setCondition sets a condition and reports whether that changed anything.
func setCondition(s *corev1.NamespaceStatus, name string, holds bool, reasonIf, reasonIfNot, message string) bool {
	status, reason := condition.False, reasonIfNot
	if holds {
		status, reason = condition.True, reasonIf
	}
	i := slices.IndexFunc(s.Conditions, func(c *corev1.NamespaceCondition) bool { return c.GetType() == name })
	if i < 0 {
		s.Conditions = append(s.Conditions, &corev1.NamespaceCondition{Type: name})
		i = len(s.Conditions) - 1
	}
	c := s.Conditions[i]
	if c.Status == status && c.Reason == reason && c.Message == message {
		return false
	}
	if c.Status != status {
		c.LastTransitionTime = timestamppb.New(time.Now().Truncate(time.Second))
	}
	c.Status, c.Reason, c.Message = status, reason, message
	return true
}
