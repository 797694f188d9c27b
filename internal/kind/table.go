package kind

import (
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	discoveryv1 "github.com/xebec-project/xebec/proto/xebec/discovery/v1"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// builtin has the description of each compiled-in kind, by group and then by name.
var builtin = []*Kind{
	{
		Version: "v1", Name: "ConfigMap", Plural: "configmaps", Singular: "configmap", ShortNames: []string{"cm"},
		Namespaced: true,
		New:        func() Object { return new(corev1.ConfigMap) },
		Columns:    configMapColumns, Rules: configMapRules,
	},
	{
		Version: "v1", Name: "Event", Plural: "events", Singular: "event", ShortNames: []string{"ev"},
		Namespaced: true,
		New:        func() Object { return new(corev1.Event) },
		Columns:    eventColumns, Fields: eventFields, Rules: eventRules,
		HideName: true,
	},
	{
		Version: "v1", Name: "Namespace", Plural: "namespaces", Singular: "namespace", ShortNames: []string{"ns"},
		Subresources: status,
		New:          func() Object { return new(corev1.Namespace) },
		Columns:      namespaceColumns, Fields: namespaceFields, Rules: namespaceRules,
	},
	{
		Version: "v1", Name: "Node", Plural: "nodes", Singular: "node", ShortNames: []string{"no"},
		Subresources: nodeSubresources,
		New:          func() Object { return new(corev1.Node) },
		Columns:      nodeColumns, Fields: nodeFields, Rules: nodeRules,
	},
	{
		Version: "v1", Name: "Pod", Plural: "pods", Singular: "pod", ShortNames: []string{"po"},
		Namespaced: true, Subresources: podSubresources,
		New:     func() Object { return new(corev1.Pod) },
		Columns: podColumns, Fields: podFields, Rules: podRules,
		GracePeriod: podGracePeriod,
	},
	{
		Version: "v1", Name: "Secret", Plural: "secrets", Singular: "secret",
		Namespaced: true,
		New:        func() Object { return new(corev1.Secret) },
		Columns:    secretColumns, Fields: secretFields, Rules: secretRules,
	},
	{
		Version: "v1", Name: "Service", Plural: "services", Singular: "service", ShortNames: []string{"svc"},
		Namespaced: true, Subresources: status,
		New:     func() Object { return new(corev1.Service) },
		Columns: serviceColumns, Fields: serviceFields, Rules: serviceRules,
	},
	{
		Version: "v1", Name: "ServiceAccount", Plural: "serviceaccounts", Singular: "serviceaccount", ShortNames: []string{"sa"},
		Namespaced:   true,
		Subresources: serviceAccountSubresources,
		New:          func() Object { return new(corev1.ServiceAccount) },
		Columns:      serviceAccountColumns, Rules: serviceAccountRules,
	},
	{
		Group: "apps", Version: "v1", Name: "Deployment", Plural: "deployments", Singular: "deployment", ShortNames: []string{"deploy"},
		Namespaced: true, Subresources: replicatedSubresources, Scale: replicas,
		New:     func() Object { return new(appsv1.Deployment) },
		Columns: deploymentColumns, Rules: deploymentRules,
	},
	{
		Group: "apps", Version: "v1", Name: "ReplicaSet", Plural: "replicasets", Singular: "replicaset", ShortNames: []string{"rs"},
		Namespaced: true, Subresources: replicatedSubresources, Scale: replicas,
		New:     func() Object { return new(appsv1.ReplicaSet) },
		Columns: replicaSetColumns, Rules: replicaSetRules,
	},
	{
		Group: "coordination.k8s.io", Version: "v1", Name: "Lease", Plural: "leases", Singular: "lease",
		Namespaced: true,
		New:        func() Object { return new(coordinationv1.Lease) },
		Columns:    leaseColumns, Rules: leaseRules,
	},
	{
		Group: "discovery.k8s.io", Version: "v1", Name: "EndpointSlice", Plural: "endpointslices", Singular: "endpointslice",
		Namespaced:   true,
		Subresources: endpointSliceSubresources,
		New:          func() Object { return new(discoveryv1.EndpointSlice) },
		Columns:      endpointSliceColumns, Rules: endpointSliceRules,
	},
	{
		Group: GroupGateway, Version: "v1", Name: "GatewayAccess", Plural: "gatewayaccesses", Singular: "gatewayaccess",
		ShortNames: []string{"gwa"},
		New:        func() Object { return new(gatewayv1.GatewayAccess) },
		Columns:    gatewayAccessColumns, Rules: gatewayAccessRules,
	},
	{
		Group: "networking.k8s.io", Version: "v1", Name: "IPAddress", Plural: "ipaddresses", Singular: "ipaddress", ShortNames: []string{"ip"},
		New:     func() Object { return new(networkingv1.IPAddress) },
		Columns: ipAddressColumns, Rules: ipAddressRules,
	},
	{
		Group: "networking.k8s.io", Version: "v1", Name: "NetworkPolicy", Plural: "networkpolicies", Singular: "networkpolicy",
		ShortNames: []string{"netpol"},
		Namespaced: true,
		New:        func() Object { return new(networkingv1.NetworkPolicy) },
		Columns:    networkPolicyColumns, Rules: networkPolicyRules,
	},
	{
		Group: GroupNetworking, Version: "v1", Name: "NodePort", Plural: "nodeports", Singular: "nodeport",
		New:     func() Object { return new(networkingv1.NodePort) },
		Columns: nodePortColumns, Rules: nodePortRules,
	},
}
