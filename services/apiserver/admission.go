package apiserver

import (
	"context"
	"maps"

	"github.com/xebec-project/xebec/internal/apierr"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
	"github.com/xebec-project/xebec/services/apiserver/admission"
)

// admitNode holds what a node writes against what it may write (noderestriction.go).
func (s *Service) admitNode(ctx context.Context, a *admission.Attributes) error {
	if a.Operation == admission.Delete || a.Subresource == "binding" {
		return nil // rights decide alone
	}
	if a.Subresource == "status" {
		return s.admitNodeStatus(ctx, a)
	}
	switch o := a.Object.(type) {
	case *corev1.Pod:
		if a.Operation == admission.Create {
			return restrictMirror(ctx, a.Get, o)
		}
	case *corev1.Node:
		before, _ := a.Old.(*corev1.Node)
		return s.restrictNode(ctx, o, before)
	case *corev1.Event:
		before, _ := a.Old.(*corev1.Event)
		return restrictEvent(ctx, a.Get, o, before)
	}
	return nil
}

// admitNodeStatus is admitNode for a status, with which metadata may be written.
func (s *Service) admitNodeStatus(ctx context.Context, a *admission.Attributes) error {
	_, node := callerOf(ctx).Node()
	switch o := a.Object.(type) {
	case *corev1.Node:
		return s.restrictNode(ctx, o, a.Old.(*corev1.Node))
	case *corev1.Pod:
		if node && !maps.Equal(o.GetMetadata().GetLabels(), a.Old.GetMetadata().GetLabels()) {
			return apierr.Forbidden(a.Kind, a.Name, "a node may not change labels of a pod by its status")
		}
	}
	return s.restrictStatus(ctx, a.Get, a.Object, a.Old)
}

// admitLockout holds an access list of the gateways against its writer and the nodes (lockout.go).
func (s *Service) admitLockout(ctx context.Context, a *admission.Attributes) error {
	if o, ok := a.Object.(*gatewayv1.GatewayAccess); ok {
		return s.checkLockout(ctx, o)
	}
	return nil
}
