package pki

import (
	"net"
	"net/netip"
	"slices"
)

// Groups and users that certificates name. They are Kubernetes' own where it has them.
const (
	// GroupMasters may do everything.
	GroupMasters = "system:masters"
	// GroupNodes holds the node agents.
	GroupNodes = "system:nodes"
	// GroupServices holds the control-plane services.
	GroupServices = "xebec:services"
	// GroupMonitors may read the metrics of every process, and nothing else.
	GroupMonitors = "xebec:monitors"
	// NodeUserPrefix precedes a node's name in its agent's user name.
	NodeUserPrefix = "system:node:"
	// ServiceUserPrefix precedes a service's name in its user name.
	ServiceUserPrefix = "xebec:"
	// EtcdMember is the service that etcd's members are instances of.
	EtcdMember = "etcd"
)

// NodeUser returns the user that the agent of a node acts as.
func NodeUser(node string) string { return NodeUserPrefix + node }

// ServiceUser returns the user that a control-plane service acts as.
func ServiceUser(service string) string { return ServiceUserPrefix + service }

// AdminRequest asks for the certificate of a person who may do everything.
func AdminRequest(name string) Request {
	return Request{CommonName: name, Organizations: []string{GroupMasters}, Client: true}
}

// MonitorRequest asks for the certificate of a program that may read the metrics of every process
// and nothing else.
func MonitorRequest(name string) Request {
	return Request{CommonName: name, Organizations: []string{GroupMonitors}, Client: true}
}

// NodeRequest asks for the certificate of a node's agent, which both serves and calls.
func NodeRequest(node string, ips ...net.IP) Request {
	return Request{
		CommonName:    NodeUser(node),
		Organizations: []string{GroupNodes},
		DNSNames:      []string{node},
		IPs:           ips,
		Server:        true,
		Client:        true,
	}
}

// GatewayRequest asks for the certificate of one gateway. It is also good for the names and the
// address by which pods reach the gateways: those of the service default/kubernetes, at cluster, in
// the cluster's DNS domain.
func GatewayRequest(host, domain string, cluster netip.Addr, ips ...net.IP) Request {
	r := ServiceRequest("gateway", host, slices.Concat(ips, []net.IP{cluster.AsSlice()})...)
	r.DNSNames = append(r.DNSNames, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc."+domain)
	return r
}

// ServiceRequest asks for the certificate of one instance of a control-plane service, which both
// serves and calls.
func ServiceRequest(service, host string, ips ...net.IP) Request {
	return Request{
		CommonName:    ServiceUser(service),
		Organizations: []string{GroupServices},
		DNSNames:      []string{host, "localhost"},
		IPs:           append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, ips...),
		Server:        true,
		Client:        true,
	}
}

// EtcdClientRequest asks for the certificate, of etcd's authority, by which one instance of a
// control-plane service calls etcd. It is valid for clients only, so that a service can't serve in
// place of a member.
func EtcdClientRequest(service, host string) Request {
	return Request{CommonName: ServiceUser(service), Organizations: []string{GroupServices}, DNSNames: []string{host}, Client: true}
}

// EtcdMemberRequest asks for the certificate, of etcd's authority, of one member of etcd, which
// serves clients and members, and calls members.
func EtcdMemberRequest(host string, ips ...net.IP) Request {
	return ServiceRequest(EtcdMember, host, ips...)
}
