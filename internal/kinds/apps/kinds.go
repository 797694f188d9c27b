package apps

import (
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
)

// Kinds are the kinds of the group apps, by name.
var Kinds = []*scheme.Kind{
	{
		Group: "apps", Version: "v1", Name: "ControllerRevision", Plural: "controllerrevisions", Singular: "controllerrevision",
		Namespaced: true,
		New:        func() scheme.Object { return new(appsv1.ControllerRevision) },
		Columns:    controllerRevisionColumns, Rules: controllerRevisionRules,
	},
	{
		Group: "apps", Version: "v1", Name: "DaemonSet", Plural: "daemonsets", Singular: "daemonset", ShortNames: []string{"ds"},
		Namespaced: true, Subresources: scheme.StatusOnly, Categories: scheme.All,
		New:     func() scheme.Object { return new(appsv1.DaemonSet) },
		Columns: daemonSetColumns, Rules: daemonSetRules,
	},
	{
		Group: "apps", Version: "v1", Name: "Deployment", Plural: "deployments", Singular: "deployment", ShortNames: []string{"deploy"},
		Namespaced: true, Subresources: replicatedSubresources, Categories: scheme.All, Scale: replicas,
		New:     func() scheme.Object { return new(appsv1.Deployment) },
		Columns: deploymentColumns, Rules: deploymentRules,
	},
	{
		Group: "apps", Version: "v1", Name: "ReplicaSet", Plural: "replicasets", Singular: "replicaset", ShortNames: []string{"rs"},
		Namespaced: true, Subresources: replicatedSubresources, Categories: scheme.All, Scale: replicas,
		New:     func() scheme.Object { return new(appsv1.ReplicaSet) },
		Columns: replicaSetColumns, Rules: replicaSetRules,
	},
	{
		Group: "apps", Version: "v1", Name: "StatefulSet", Plural: "statefulsets", Singular: "statefulset", ShortNames: []string{"sts"},
		Namespaced: true, Subresources: replicatedSubresources, Categories: scheme.All, Scale: replicas,
		New:     func() scheme.Object { return new(appsv1.StatefulSet) },
		Columns: statefulSetColumns, Rules: statefulSetRules,
	},
}

// replicas is where Deployments, ReplicaSets and StatefulSets hold their number of replicas.
var replicas = &scheme.Scale{Replicas: ".spec.replicas", StatusReplicas: ".status.replicas", Selector: ".spec.selector"}

var replicatedSubresources = []scheme.Subresource{scheme.ScaleSubresource, scheme.StatusSubresource}
