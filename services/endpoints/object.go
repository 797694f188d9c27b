package endpoints

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/events"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// endpointsBatch is for how long changes of pods are collected before the Endpoints of their
// service are written: each write of such an object carries all addresses of the service, and no
// node waits for it.
const endpointsBatch = 500 * time.Millisecond

// objects keeps the Endpoints objects of services that have a selector, for programs that do not
// know EndpointSlices.
type objects struct {
	client    *client.Client
	services  *client.Informer[*corev1.Service]
	pods      *client.Informer[*corev1.Pod]
	endpoints *client.Informer[*corev1.Endpoints]
	events    *events.Recorder
	written   controller.Written

	mu sync.Mutex
	// deleted are services whose Endpoints have to be deleted, also those that a user wrote.
	deleted map[controller.Key]bool
}

// serviceChanged follows the deletion of services.
func (o *objects) serviceChanged(old, now *corev1.Service) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case now != nil:
		delete(o.deleted, client.KeyOf(now))
	case old != nil:
		o.deleted[client.KeyOf(old)] = true
	}
}

func (o *objects) wasDeleted(key controller.Key) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.deleted[key]
}

func (o *objects) reconcile(ctx context.Context, key controller.Key) (controller.Result, error) {
	if o.written.IsBehind(key, o.endpoints.Revision()) {
		return controller.Result{RequeueAfter: controller.WrittenPause}, nil
	}
	have, exists := o.endpoints.Get(key.Namespace, key.Name)
	svc, known := o.services.Get(key.Namespace, key.Name)
	switch {
	case !known || svc.GetMetadata().GetDeletionTimestamp() != nil:
		return controller.Result{}, o.remove(ctx, key, have, exists)
	case len(svc.GetSpec().GetSelector()) == 0 || svc.GetSpec().GetType() == core.ServiceExternalName:
		return controller.Result{}, nil // Users may write the Endpoints of such a service.
	}
	now := wantedEndpoints(svc, o.pods.ByIndex(byNamespace, key.Namespace), have)
	if exists && now == have {
		return controller.Result{}, nil
	}
	stored, err := o.write(ctx, now, exists)
	if err == nil {
		o.written.Note(key, stored.GetMetadata().GetResourceVersion())
		return controller.Result{}, nil
	}
	if !apierr.IsRetryable(err) && !apierr.IsConflict(err) && !apierr.IsElectionLost(err) && ctx.Err() == nil {
		reason, verb := "FailedToCreateEndpoint", "create endpoint for service"
		if exists {
			reason, verb = "FailedToUpdateEndpoint", "update endpoint"
		}
		o.events.Event(svc, events.Warning, reason, "Failed to %s %s: %v", verb, key, apierr.Message(err))
	}
	return controller.Result{}, fmt.Errorf("write the Endpoints of %s: %w", key, err)
}

func (o *objects) write(ctx context.Context, e *corev1.Endpoints, exists bool) (*corev1.Endpoints, error) {
	if exists {
		return client.Update(ctx, o.client, e)
	}
	return client.Create(ctx, o.client, e)
}

// remove deletes the Endpoints of a service that is gone: its own, and those that a user wrote when
// the deletion of the service was seen. Endpoints that never had a service stay.
func (o *objects) remove(ctx context.Context, key controller.Key, have *corev1.Endpoints, exists bool) error {
	if !exists {
		return nil
	}
	if !o.wasDeleted(key) && have.GetMetadata().GetLabels()[core.LabelEndpointsManagedBy] != core.EndpointsController {
		return nil
	}
	_, err := client.Delete[*corev1.Endpoints](ctx, o.client, key.Namespace, key.Name, client.IfUID(have.GetMetadata().GetUid()))
	if err != nil && !apierr.IsNotFound(err) {
		return fmt.Errorf("delete the Endpoints of %s: %w", key, err)
	}
	return nil
}
