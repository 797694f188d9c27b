package kind

import (
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// table has a row per kind, in the order in which people are shown them: by group, then by name.
var table = []*Kind{
	{
		Version: "v1", Name: "ConfigMap", Plural: "configmaps", Singular: "configmap", ShortNames: []string{"cm"},
		Namespaced: true,
		New:        func() Object { return new(corev1.ConfigMap) },
		Columns:    configMapColumns, rules: configMapRules,
	},
	{
		Version: "v1", Name: "Event", Plural: "events", Singular: "event", ShortNames: []string{"ev"},
		Namespaced: true,
		New:        func() Object { return new(corev1.Event) },
		Columns:    eventColumns, Fields: eventFields, rules: eventRules,
		HideName: true,
	},
	{
		Version: "v1", Name: "Namespace", Plural: "namespaces", Singular: "namespace", ShortNames: []string{"ns"},
		HasStatus: true,
		New:       func() Object { return new(corev1.Namespace) },
		Columns:   namespaceColumns, Fields: namespaceFields, rules: namespaceRules,
	},
	{
		Version: "v1", Name: "Node", Plural: "nodes", Singular: "node", ShortNames: []string{"no"},
		HasStatus: true,
		New:       func() Object { return new(corev1.Node) },
		Columns:   nodeColumns, Fields: nodeFields, rules: nodeRules,
	},
	{
		Version: "v1", Name: "Pod", Plural: "pods", Singular: "pod", ShortNames: []string{"po"},
		Namespaced: true, HasStatus: true,
		New:     func() Object { return new(corev1.Pod) },
		Columns: podColumns, Fields: podFields, rules: podRules,
		GracePeriod: podGracePeriod,
	},
	{
		Version: "v1", Name: "Secret", Plural: "secrets", Singular: "secret",
		Namespaced: true,
		New:        func() Object { return new(corev1.Secret) },
		Columns:    secretColumns, Fields: secretFields, rules: secretRules,
	},
	{
		Version: "v1", Name: "Service", Plural: "services", Singular: "service", ShortNames: []string{"svc"},
		Namespaced: true, HasStatus: true,
		New:     func() Object { return new(corev1.Service) },
		Columns: serviceColumns, Fields: serviceFields, rules: serviceRules,
	},
	{
		Version: "v1", Name: "ServiceAccount", Plural: "serviceaccounts", Singular: "serviceaccount", ShortNames: []string{"sa"},
		Namespaced: true,
		New:        func() Object { return new(corev1.ServiceAccount) },
		Columns:    serviceAccountColumns, rules: serviceAccountRules,
	},
	{
		Group: "apps", Version: "v1", Name: "Deployment", Plural: "deployments", Singular: "deployment", ShortNames: []string{"deploy"},
		Namespaced: true, HasStatus: true,
		New:     func() Object { return new(appsv1.Deployment) },
		Columns: deploymentColumns, rules: deploymentRules,
	},
	{
		Group: "apps", Version: "v1", Name: "ReplicaSet", Plural: "replicasets", Singular: "replicaset", ShortNames: []string{"rs"},
		Namespaced: true, HasStatus: true,
		New:     func() Object { return new(appsv1.ReplicaSet) },
		Columns: replicaSetColumns, rules: replicaSetRules,
	},
	{
		Group: "coordination.k8s.io", Version: "v1", Name: "Lease", Plural: "leases", Singular: "lease",
		Namespaced: true,
		New:        func() Object { return new(coordinationv1.Lease) },
		Columns:    leaseColumns, rules: leaseRules,
	},
	{
		Group: "discovery.k8s.io", Version: "v1", Name: "EndpointSlice", Plural: "endpointslices", Singular: "endpointslice",
		Namespaced: true,
		New:        func() Object { return new(discoveryv1.EndpointSlice) },
		Columns:    endpointSliceColumns, rules: endpointSliceRules,
	},
	{
		Group: GroupGateway, Version: "v1", Name: "GatewayAccess", Plural: "gatewayaccesses", Singular: "gatewayaccess", ShortNames: []string{"gwa"},
		New:     func() Object { return new(gatewayv1.GatewayAccess) },
		Columns: gatewayAccessColumns, rules: gatewayAccessRules,
	},
	{
		Group: "networking.k8s.io", Version: "v1", Name: "IPAddress", Plural: "ipaddresses", Singular: "ipaddress", ShortNames: []string{"ip"},
		New:     func() Object { return new(networkingv1.IPAddress) },
		Columns: ipAddressColumns, rules: ipAddressRules,
	},
	{
		Group: "networking.k8s.io", Version: "v1", Name: "NetworkPolicy", Plural: "networkpolicies", Singular: "networkpolicy", ShortNames: []string{"netpol"},
		Namespaced: true,
		New:        func() Object { return new(networkingv1.NetworkPolicy) },
		Columns:    networkPolicyColumns, rules: networkPolicyRules,
	},
	{
		Group: GroupNetworking, Version: "v1", Name: "NodePort", Plural: "nodeports", Singular: "nodeport",
		New:     func() Object { return new(networkingv1.NodePort) },
		Columns: nodePortColumns, rules: nodePortRules,
	},
}
