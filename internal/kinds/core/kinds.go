package core

import (
	"github.com/xebec-project/xebec/internal/scheme"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Kinds are the kinds of the core group, by name.
var Kinds = []*scheme.Kind{
	{
		Version: "v1", Name: "ConfigMap", Plural: "configmaps", Singular: "configmap", ShortNames: []string{"cm"},
		Namespaced: true,
		New:        func() scheme.Object { return new(corev1.ConfigMap) },
		Columns:    configMapColumns, Rules: configMapRules,
	},
	{
		Version: "v1", Name: "Endpoints", Plural: "endpoints", Singular: "endpoints", ShortNames: []string{"ep"},
		Namespaced: true,
		New:        func() scheme.Object { return new(corev1.Endpoints) },
		Columns:    endpointsColumns, Rules: endpointsRules,
	},
	EventKind,
	{
		Version: "v1", Name: "Namespace", Plural: "namespaces", Singular: "namespace", ShortNames: []string{"ns"},
		Subresources: scheme.StatusOnly,
		New:          func() scheme.Object { return new(corev1.Namespace) },
		Columns:      namespaceColumns, Fields: namespaceFields, Rules: namespaceRules,
	},
	{
		Version: "v1", Name: "Node", Plural: "nodes", Singular: "node", ShortNames: []string{"no"},
		Subresources: nodeSubresources,
		New:          func() scheme.Object { return new(corev1.Node) },
		Columns:      nodeColumns, Fields: nodeFields, Rules: nodeRules,
	},
	{
		Version: "v1", Name: "PersistentVolume", Plural: "persistentvolumes", Singular: "persistentvolume",
		ShortNames: []string{"pv"}, Subresources: scheme.StatusOnly,
		New:     func() scheme.Object { return new(corev1.PersistentVolume) },
		Columns: persistentVolumeColumns, Rules: persistentVolumeRules,
	},
	{
		Version: "v1", Name: "PersistentVolumeClaim", Plural: "persistentvolumeclaims", Singular: "persistentvolumeclaim",
		ShortNames: []string{"pvc"}, Namespaced: true, Subresources: scheme.StatusOnly,
		New:     func() scheme.Object { return new(corev1.PersistentVolumeClaim) },
		Columns: claimColumns, Rules: claimRules,
	},
	{
		Version: "v1", Name: "Pod", Plural: "pods", Singular: "pod", ShortNames: []string{"po"},
		Namespaced: true, Subresources: podSubresources, Categories: scheme.All,
		New:     func() scheme.Object { return new(corev1.Pod) },
		Columns: podColumns, Fields: podFields, Rules: podRules,
		GracePeriod: podGracePeriod,
	},
	{
		Version: "v1", Name: "PodTemplate", Plural: "podtemplates", Singular: "podtemplate",
		Namespaced: true,
		New:        func() scheme.Object { return new(corev1.PodTemplate) },
		Columns:    podTemplateColumns, Rules: podTemplateRules,
	},
	{
		Version: "v1", Name: "ReplicationController", Plural: "replicationcontrollers", Singular: "replicationcontroller",
		ShortNames: []string{"rc"},
		Namespaced: true, Subresources: replicationControllerSubresources, Categories: scheme.All, Scale: replicationControllerScale,
		New:     func() scheme.Object { return new(corev1.ReplicationController) },
		Columns: replicationControllerColumns, Fields: replicationControllerFields, Rules: replicationControllerRules,
	},
	{
		Version: "v1", Name: "Secret", Plural: "secrets", Singular: "secret",
		Namespaced: true,
		New:        func() scheme.Object { return new(corev1.Secret) },
		Columns:    secretColumns, Fields: secretFields, Rules: secretRules,
	},
	{
		Version: "v1", Name: "Service", Plural: "services", Singular: "service", ShortNames: []string{"svc"},
		Namespaced: true, Subresources: scheme.StatusOnly, Categories: scheme.All,
		New:     func() scheme.Object { return new(corev1.Service) },
		Columns: serviceColumns, Fields: serviceFields, Rules: serviceRules,
	},
	{
		Version: "v1", Name: "ServiceAccount", Plural: "serviceaccounts", Singular: "serviceaccount", ShortNames: []string{"sa"},
		Namespaced:   true,
		Subresources: serviceAccountSubresources,
		New:          func() scheme.Object { return new(corev1.ServiceAccount) },
		Columns:      serviceAccountColumns, Rules: serviceAccountRules,
	},
}
