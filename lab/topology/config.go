package topology

import (
	"net/netip"
	"path/filepath"
	"time"
)

// document is a configuration file before it is written as YAML.
type document map[string]any

// serviceConfig is the configuration of a control-plane service on a master.
func (s Spec) serviceConfig(h Host, service Service) document {
	if service.Name == "etcd" {
		return s.etcdConfig(h)
	}
	etcd := h.tlsFiles("etcd-ca", etcdIdentity(service.Name))
	etcd["endpoints"] = s.etcdEndpoints()
	config := document{
		"host":   h.Name,
		"listen": h.addrPort(service.Port),
		"tls":    h.tlsFiles("ca", service.Name),
		"etcd":   etcd,
	}
	switch service.Name {
	case "apiserver":
		config["serviceCIDR"] = s.families(s.ServiceCIDR, ServiceCIDR6)
		config["clusterDNS"] = s.clusterDNS().String()
	case "gateway":
		config["access"] = document{
			"public": document{"listen": h.addrPort(PublicPort)},
			"keep":   filepath.Join(h.Disk, "gateway", "access.json"),
		}
	case "nodes":
		config["clusterCIDR"] = s.families(s.ClusterCIDR, ClusterCIDR6)
		config["serviceCIDR"] = s.families(s.ServiceCIDR, ServiceCIDR6)
	case "cloud":
		pools := []string{s.LoadBalancerPool().String()}
		if s.DualStack {
			pools = append(pools, s.LoadBalancerPool6().String())
		}
		config["pools"] = pools
		config["clusterCIDR"] = s.families(s.ClusterCIDR, ClusterCIDR6)
		config["serviceCIDR"] = s.families(s.ServiceCIDR, ServiceCIDR6)
	}
	return config
}

// clusterDNS is the tenth address of the services' range, as Kubernetes' installers have it.
func (s Spec) clusterDNS() netip.Addr {
	addr := s.ServiceCIDR.Addr()
	for range 10 {
		addr = addr.Next()
	}
	return addr
}

// EtcdElection is the silence after which etcd's members replace their leader. They share this
// machine's processors, which may be busy for longer than members on machines of their own are
// silent: that is no reason to replace a leader.
const EtcdElection = 1500 * time.Millisecond

func (s Spec) etcdConfig(h Host) document {
	var members []string
	for _, m := range s.MasterHosts() {
		members = append(members, m.Name+"=https://"+m.addrPort(EtcdPeerPort))
	}
	files := h.tlsFiles("etcd-ca", "etcd")
	return document{
		"name":           h.Name,
		"dataDir":        filepath.Join(h.Disk, "etcd"),
		"peerURL":        "https://" + h.addrPort(EtcdPeerPort),
		"clientURL":      "https://" + h.addrPort(EtcdPort),
		"initialCluster": members,
		"token":          "xebec-lab-" + s.Name,
		"peer":           files,
		"client":         files,
		"election":       EtcdElection.String(),
	}
}

func (s Spec) etcdEndpoints() []string {
	var endpoints []string
	for _, m := range s.MasterHosts() {
		endpoints = append(endpoints, "https://"+m.addrPort(EtcdPort))
	}
	return endpoints
}

func (h Host) tlsFiles(ca, identity string) document {
	return document{"ca": h.certFile(ca), "cert": h.certFile(identity), "key": h.keyFile(identity)}
}

// agentConfig is the configuration of a node's agent.
func (s Spec) agentConfig(h Host) document {
	var gateways []string
	for _, m := range s.MasterHosts() {
		gateways = append(gateways, m.GatewayAddr().String())
	}
	address := h.Addr.String()
	if h.Addr6.IsValid() {
		address += "," + h.Addr6.String()
	}
	return document{
		"node":        h.Name,
		"address":     address,
		"gateways":    gateways,
		"tls":         h.tlsFiles("ca", "agent"),
		"stateDir":    filepath.Join(h.Disk, "agent"),
		"staticPods":  h.StaticPods(),
		"cgroup":      "/" + h.Cgroup,
		"containerd":  containerdSocket,
		"clusterCIDR": s.families(s.ClusterCIDR, ClusterCIDR6),
		"serviceCIDR": s.families(s.ServiceCIDR, ServiceCIDR6),
		"clusterDNS":  s.clusterDNS().String(),
	}
}
