package disruption

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	autoscalingv1 "github.com/xebec-project/xebec/proto/xebec/autoscaling/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// owners finds the scale of the owners of pods: of the usual kinds in informers, of all others by
// their subresource scale.
type owners struct {
	client       *client.Client
	replicaSets  *client.Informer[*appsv1.ReplicaSet]
	deployments  *client.Informer[*appsv1.Deployment]
	statefulSets *client.Informer[*appsv1.StatefulSet]
	controllers  *client.Informer[*corev1.ReplicationController]
}

func newOwners(t *controller.Term, sets *client.Informer[*appsv1.ReplicaSet]) *owners {
	return &owners{
		client: t.Client(), replicaSets: sets,
		deployments: controller.Informer(t, client.InformerOptions[*appsv1.Deployment]{Transform: func(d *appsv1.Deployment) {
			d.Metadata.ManagedFields, d.Spec, d.Status = nil, &appsv1.DeploymentSpec{Replicas: d.GetSpec().Replicas}, nil
		}}),
		statefulSets: controller.Informer(t, client.InformerOptions[*appsv1.StatefulSet]{Transform: func(s *appsv1.StatefulSet) {
			s.Metadata.ManagedFields, s.Spec, s.Status = nil, &appsv1.StatefulSetSpec{Replicas: s.GetSpec().Replicas}, nil
		}}),
		controllers: controller.Informer(t, client.InformerOptions[*corev1.ReplicationController]{
			Transform: func(c *corev1.ReplicationController) {
				c.Metadata.ManagedFields, c.Spec, c.Status = nil, &corev1.ReplicationControllerSpec{Replicas: c.GetSpec().Replicas}, nil
			},
		}),
	}
}

// scaler returns the scales as of now.
func (o *owners) scaler(ctx context.Context) scaler {
	return func(namespace string, owner *metav1.OwnerReference) (*scale, error) {
		if s := o.known(namespace, owner); s != nil {
			return s, nil
		}
		return o.ask(ctx, namespace, owner)
	}
}

// known returns the scale of an owner of the usual kinds. A ReplicaSet of a Deployment has that of
// the Deployment, so that a rollout does not change it.
func (o *owners) known(namespace string, owner *metav1.OwnerReference) *scale {
	group, _, _ := strings.Cut(owner.GetApiVersion(), "/")
	switch kind := owner.GetKind(); {
	case kind == "ReplicaSet" && group == "apps":
		rs, ok := find(o.replicaSets, namespace, owner)
		if !ok {
			return nil
		}
		if above := kinds.ControllerOf(rs); above.GetKind() == "Deployment" {
			if d, ok := find(o.deployments, namespace, above); ok {
				return &scale{d.GetMetadata().GetUid(), d.GetSpec().GetReplicas()}
			}
		}
		return &scale{rs.GetMetadata().GetUid(), rs.GetSpec().GetReplicas()}
	case kind == "StatefulSet" && group == "apps":
		if s, ok := find(o.statefulSets, namespace, owner); ok {
			return &scale{s.GetMetadata().GetUid(), s.GetSpec().GetReplicas()}
		}
	case kind == "ReplicationController" && group == "v1":
		if c, ok := find(o.controllers, namespace, owner); ok {
			return &scale{c.GetMetadata().GetUid(), c.GetSpec().GetReplicas()}
		}
	}
	return nil
}

// find returns the object that a reference names, unless it is another of the same name.
func find[T scheme.Object](i *client.Informer[T], namespace string, ref *metav1.OwnerReference) (T, bool) {
	found, ok := i.Get(namespace, ref.GetName())
	return found, ok && found.GetMetadata().GetUid() == ref.GetUid()
}

// ask reads the scale of an owner of any kind.
func (o *owners) ask(ctx context.Context, namespace string, owner *metav1.OwnerReference) (*scale, error) {
	group, version, grouped := strings.Cut(owner.GetApiVersion(), "/")
	if !grouped {
		group, version = "", owner.GetApiVersion()
	}
	resp, err := o.client.Resources().Get(ctx, &apiv1.GetRequest{
		Object:      &apiv1.ObjectReference{Group: group, Version: version, Kind: owner.GetKind(), Namespace: namespace, Name: owner.GetName()},
		Subresource: "scale",
	})
	switch {
	case apierr.IsNotFound(err):
		return nil, nil
	case apierr.Code(err) == codes.Unimplemented || apierr.IsBadRequest(err):
		return nil, fmt.Errorf("%s of %s does not implement the scale subresource", owner.GetKind(), owner.GetApiVersion())
	case err != nil:
		return nil, fmt.Errorf("get the scale of %s %s: %w", owner.GetKind(), owner.GetName(), err)
	}
	found := &autoscalingv1.Scale{}
	if err := resp.GetObject().UnmarshalTo(found); err != nil {
		return nil, err
	}
	if found.GetMetadata().GetUid() != owner.GetUid() {
		return nil, nil
	}
	return &scale{owner.GetUid(), found.GetSpec().GetReplicas()}, nil
}
