package apiserver

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kind"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// checkNamespace refuses a new object in a namespace that does not exist or is being deleted. The namespace may begin to
// go between the check and the commit; its deletion ends only when the collector finds nothing left in it.
func (s *Service) checkNamespace(ctx context.Context, get reader, k *kind.Kind, o kind.Object) error {
	namespace := o.GetMetadata().GetNamespace()
	if !k.Namespaced || namespace == "" {
		return nil // validation names the mistake
	}
	namespaces, _ := kind.ByGroupKind("", "Namespace")
	stored, err := get(ctx, keyOf(namespaces, "", namespace))
	if errors.Is(err, storage.ErrNotFound) {
		return apierr.NotFound(namespaces, namespace)
	}
	if err != nil {
		return storageError(err)
	}
	if stored.Meta().GetDeletionTimestamp() != nil {
		return apierr.NamespaceTerminating(k, o.GetMetadata().GetName(), namespace)
	}
	return nil
}

// admit completes an object with what depends on other objects, and returns the writes that must go with it. old is nil
// for a new object.
func (s *Service) admit(ctx context.Context, get reader, o, old kind.Object) ([]storage.Write, error) {
	switch o := o.(type) {
	case *corev1.Service:
		before, _ := old.(*corev1.Service)
		addresses, err := s.allocations.allocate(ctx, get, o, before)
		if err != nil {
			return nil, err
		}
		ports, err := s.nodePorts.allocate(ctx, get, o, before)
		return append(addresses, ports...), err
	case *corev1.Pod:
		if old == nil {
			return nil, restrictMirror(ctx, get, o)
		}
	case *corev1.Node:
		before, _ := old.(*corev1.Node)
		return nil, restrictNode(ctx, o, before)
	case *gatewayv1.GatewayAccess:
		return nil, s.checkLockout(ctx, o)
	}
	return nil, nil
}

// restrictMirror lets a node create no pods but those that show what it runs by files of its own: bound to it, owned by its
// node object, and without any reference that would open other objects to the node.
func restrictMirror(ctx context.Context, get reader, pod *corev1.Pod) error {
	name, agent := callerOf(ctx).Node()
	if !agent {
		return nil
	}
	k := kind.Of(pod)
	refuse := func(why string) error { return apierr.Forbidden(k, pod.GetMetadata().GetName(), why) }
	nodes, _ := kind.ByGroupKind("", "Node")
	node, err := get(ctx, keyOf(nodes, "", name))
	if err != nil {
		return refuse("node " + name + " is not registered")
	}
	owners := pod.GetMetadata().GetOwnerReferences()
	switch {
	case !kind.IsMirrorPod(pod):
		return refuse("a node may only create mirror pods, with annotation " + kind.MirrorAnnotation)
	case pod.GetSpec().GetNodeName() != name:
		return refuse("a node may only create mirror pods that are bound to it")
	case len(owners) != 1 || owners[0].GetKind() != "Node" || owners[0].GetName() != name || owners[0].GetUid() != node.Meta().GetUid():
		return refuse("a mirror pod must have its node, and nothing else, as its owner")
	case pod.GetSpec().GetServiceAccountName() != "":
		return refuse("a mirror pod may not have a service account")
	case kind.PodRefersTo(pod.GetSpec()) != "":
		return refuse("a mirror pod may not refer to config maps or secrets")
	}
	return nil
}

// restrictNode keeps an agent from steering pods to its node, or away from it, and from choosing its own range of
// addresses, as Kubernetes' NodeRestriction does.
func restrictNode(ctx context.Context, node, old *corev1.Node) error {
	if _, agent := callerOf(ctx).Node(); !agent || old == nil {
		return nil
	}
	k := kind.Of(node)
	switch {
	case !slices.EqualFunc(node.GetSpec().GetTaints(), old.GetSpec().GetTaints(), func(a, b *corev1.Taint) bool { return proto.Equal(a, b) }):
		return apierr.Forbidden(k, old.GetMetadata().GetName(), "a node may not change its own taints")
	case node.GetSpec().GetPodCidr() != old.GetSpec().GetPodCidr() || !slices.Equal(node.GetSpec().GetPodCidrs(), old.GetSpec().GetPodCidrs()):
		return apierr.Forbidden(k, old.GetMetadata().GetName(), "a node may not change its own pod range")
	}
	return nil
}
