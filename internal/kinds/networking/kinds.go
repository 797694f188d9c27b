package networking

import (
	"github.com/xebec-project/xebec/internal/scheme"
	networkingv1 "github.com/xebec-project/xebec/proto/xebec/networking/v1"
)

// Kinds are the kinds of the groups networking.k8s.io and networking.xebec.io, by name.
var Kinds = []*scheme.Kind{
	{
		Group: "networking.k8s.io", Version: "v1", Name: "IPAddress", Plural: "ipaddresses", Singular: "ipaddress", ShortNames: []string{"ip"},
		New:     func() scheme.Object { return new(networkingv1.IPAddress) },
		Columns: ipAddressColumns, Rules: ipAddressRules,
	},
	{
		Group: "networking.k8s.io", Version: "v1", Name: "Ingress", Plural: "ingresses", Singular: "ingress", ShortNames: []string{"ing"},
		Namespaced: true, Subresources: scheme.StatusOnly,
		New:     func() scheme.Object { return new(networkingv1.Ingress) },
		Columns: ingressColumns, Rules: ingressRules,
	},
	{
		Group: "networking.k8s.io", Version: "v1", Name: "IngressClass", Plural: "ingressclasses", Singular: "ingressclass",
		New:     func() scheme.Object { return new(networkingv1.IngressClass) },
		Columns: ingressClassColumns, Rules: ingressClassRules,
	},
	{
		Group: "networking.k8s.io", Version: "v1", Name: "NetworkPolicy", Plural: "networkpolicies", Singular: "networkpolicy",
		ShortNames: []string{"netpol"},
		Namespaced: true,
		New:        func() scheme.Object { return new(networkingv1.NetworkPolicy) },
		Columns:    networkPolicyColumns, Rules: networkPolicyRules,
	},
	{
		Group: "networking.k8s.io", Version: "v1", Name: "ServiceCIDR", Plural: "servicecidrs", Singular: "servicecidr",
		Subresources: scheme.StatusOnly,
		New:          func() scheme.Object { return new(networkingv1.ServiceCIDR) },
		Columns:      serviceCIDRColumns, Rules: serviceCIDRRules,
	},
	{
		Group: GroupNetworking, Version: "v1", Name: "NodePort", Plural: "nodeports", Singular: "nodeport",
		New:     func() scheme.Object { return new(networkingv1.NodePort) },
		Columns: nodePortColumns, Rules: nodePortRules,
	},
}
