package apiserver

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/wire"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	"github.com/xebec-project/xebec/services/apiserver/storage"
)

// podIndex answers the authorizer's questions from the watch cache.
type podIndex struct {
	store    *storage.Store
	nodeName wire.Field
}

// NodeUses reports whether a pod bound to the node refers to the object. It looks at the pods of
// one namespace, and waits for the cache to be current before it says no: the node may know of a
// binding that this cache does not hold yet.
func (p *podIndex) NodeUses(ctx context.Context, node, resource, namespace, name string) (bool, error) {
	used, err := p.nodeUses(ctx, node, resource, namespace, name, true)
	if err != nil || used {
		return used, err
	}
	return p.nodeUses(ctx, node, resource, namespace, name, false)
}

func (p *podIndex) nodeUses(ctx context.Context, node, resource, namespace, name string, stale bool) (bool, error) {
	list, err := p.store.List(ctx, storage.ListOptions{Kind: "Pod", Namespace: namespace, Stale: stale,
		Match: func(o *storage.Object) bool { return o.Field(p.nodeName) == node }})
	if err != nil {
		return false, storage.APIError(err)
	}
	for _, o := range list.Objects {
		pod := &corev1.Pod{}
		if err := proto.Unmarshal(o.Bytes, pod); err != nil {
			return false, err
		}
		if podUses(pod.GetSpec(), resource, name) {
			return true, nil
		}
	}
	return false, nil
}

func podUses(spec *corev1.PodSpec, resource, name string) bool {
	switch resource {
	case "serviceaccounts":
		return spec.GetServiceAccountName() == name
	case "configmaps":
		return usesConfigMap(spec, name)
	case "secrets":
		return usesSecret(spec, name)
	}
	return false
}

func usesConfigMap(spec *corev1.PodSpec, name string) bool {
	for _, v := range spec.GetVolumes() {
		if v.GetVolumeSource().GetConfigMap().GetLocalObjectReference().GetName() == name {
			return true
		}
		for _, source := range v.GetVolumeSource().GetProjected().GetSources() {
			if source.GetConfigMap().GetLocalObjectReference().GetName() == name {
				return true
			}
		}
	}
	for _, c := range containersOf(spec) {
		for _, e := range c.GetEnvFrom() {
			if e.GetConfigMapRef().GetLocalObjectReference().GetName() == name {
				return true
			}
		}
		for _, e := range c.GetEnv() {
			if e.GetValueFrom().GetConfigMapKeyRef().GetLocalObjectReference().GetName() == name {
				return true
			}
		}
	}
	return false
}

func usesSecret(spec *corev1.PodSpec, name string) bool {
	for _, s := range spec.GetImagePullSecrets() {
		if s.GetName() == name {
			return true
		}
	}
	for _, v := range spec.GetVolumes() {
		if v.GetVolumeSource().GetSecret().GetSecretName() == name {
			return true
		}
		for _, source := range v.GetVolumeSource().GetProjected().GetSources() {
			if source.GetSecret().GetLocalObjectReference().GetName() == name {
				return true
			}
		}
	}
	for _, c := range containersOf(spec) {
		for _, e := range c.GetEnvFrom() {
			if e.GetSecretRef().GetLocalObjectReference().GetName() == name {
				return true
			}
		}
		for _, e := range c.GetEnv() {
			if e.GetValueFrom().GetSecretKeyRef().GetLocalObjectReference().GetName() == name {
				return true
			}
		}
	}
	return false
}

func containersOf(spec *corev1.PodSpec) []*corev1.Container {
	return slices.Concat(spec.GetInitContainers(), spec.GetContainers(), core.EphemeralContainers(spec))
}
