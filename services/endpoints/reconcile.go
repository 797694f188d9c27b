package endpoints

import (
	"context"
	"fmt"
	"maps"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
)

// reconciler makes the slices of one service at a time what they should be.
type reconciler struct {
	writer
	services  *client.Informer[*corev1.Service]
	pods      *client.Informer[*corev1.Pod]
	slices    *client.Informer[*discoveryv1.EndpointSlice]
	events    *events.Recorder
	selectors *selectors
	most      int
}

// writer carries out plans.
type writer struct {
	client *client.Client
	// written has the last writes to the slices of services.
	written controller.Written
}

// podChanged passes to enqueue the services that the pod was or is behind, if the change is one
// that a slice shows.
func (r *reconciler) podChanged(old, now *corev1.Pod, enqueue func(controller.Key)) {
	if old != nil && now != nil {
		if sameForSlices(old, now) {
			return
		}
		if maps.Equal(old.GetMetadata().GetLabels(), now.GetMetadata().GetLabels()) {
			old = nil // The same services: once is enough.
		}
	}
	for _, pod := range []*corev1.Pod{now, old} {
		if pod == nil {
			continue
		}
		m := pod.GetMetadata()
		for _, name := range r.selectors.matching(m.GetNamespace(), m.GetLabels()) {
			enqueue(controller.Key{Namespace: m.GetNamespace(), Name: name})
		}
	}
}

// sameForSlices reports whether two versions of a slim pod make the same endpoint.
func sameForSlices(a, b *corev1.Pod) bool {
	return a.GetMetadata().GetUid() == b.GetMetadata().GetUid() &&
		(a.GetMetadata().GetDeletionTimestamp() != nil) == (b.GetMetadata().GetDeletionTimestamp() != nil) &&
		maps.Equal(a.GetMetadata().GetLabels(), b.GetMetadata().GetLabels()) &&
		proto.Equal(a.GetStatus(), b.GetStatus()) && proto.Equal(a.GetSpec(), b.GetSpec())
}

func (r *reconciler) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	if r.written.IsBehind(key, r.slices.Revision()) {
		return controller.Result{RequeueAfter: controller.WrittenPause}, nil
	}
	have := r.slices.ByIndex(byService, key.String())
	svc, ok := r.services.Get(key.Namespace, key.Name)
	var p plan
	switch {
	case !ok || svc.GetMetadata().GetDeletionTimestamp() != nil:
		// The collector removes the slices with their owner: what is left here is one that lost its owner
		// reference.
		p.remove = orphans(have)
	case len(svc.GetSpec().GetSelector()) == 0 || svc.GetSpec().GetType() == core.ServiceExternalName:
		// A service without a selector has slices of others; ours are from when it had one.
		p.remove = have
	default:
		p = planSlices(svc, r.pods.ByIndex(byNamespace, key.Namespace), have, r.most)
	}
	if p.empty() {
		return controller.Result{}, nil
	}
	err := r.write(ctx, key, p)
	if err != nil && svc != nil && !apierr.IsRetryable(err) && !apierr.IsConflict(err) && !apierr.IsElectionLost(err) && ctx.Err() == nil {
		r.events.Event(svc, events.Warning, "FailedToUpdateEndpointSlices",
			"Error updating Endpoint Slices for Service %s: %v", key, apierr.Message(err))
	}
	return controller.Result{}, err
}

func orphans(have []*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice {
	var found []*discoveryv1.EndpointSlice
	for _, e := range have {
		if len(e.GetMetadata().GetOwnerReferences()) == 0 {
			found = append(found, e)
		}
	}
	return found
}

// write carries out a plan. What adds endpoints comes before what takes some away, so that none is
// missing in between.
func (r *writer) write(ctx context.Context, key controller.Key, p plan) error {
	for _, e := range p.create {
		stored, err := client.Create(ctx, r.client, e)
		if err != nil {
			return fmt.Errorf("create a slice of %s: %w", key, err)
		}
		r.written.Note(key, stored.GetMetadata().GetResourceVersion())
	}
	for _, e := range p.update {
		stored, err := client.Update(ctx, r.client, e)
		if err != nil {
			return fmt.Errorf("update slice %s: %w", client.KeyOf(e), err)
		}
		r.written.Note(key, stored.GetMetadata().GetResourceVersion())
	}
	for _, e := range p.remove {
		m := e.GetMetadata()
		_, err := client.Delete[*discoveryv1.EndpointSlice](ctx, r.client, m.GetNamespace(), m.GetName(), client.IfUID(m.GetUid()))
		if err != nil && !apierr.IsNotFound(err) {
			return fmt.Errorf("delete slice %s: %w", client.KeyOf(e), err)
		}
	}
	return nil
}
