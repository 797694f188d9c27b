package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/xebec-project/xebec/internal/ipalloc"
	"github.com/xebec-project/xebec/internal/pki"
)

// clusterDomain is the DNS domain of the lab's services, which is that of agents whose
// configuration names none.
const clusterDomain = "cluster.local"

// PKI files of the lab itself.
func (s Spec) pkiFile(name string) string { return filepath.Join(s.StateDir, "pki", name) }

// AdminFiles are the authorities, certificate and key of the person who administers the lab.
func (s Spec) AdminFiles() pki.Files {
	return pki.Files{CA: s.pkiFile("ca.crt"), Cert: s.pkiFile("admin.crt"), Key: s.pkiFile("admin.key")}
}

// WriteFiles writes the certificates and configuration of every machine, and the administrator's
// certificate. The authorities are made the first time and kept; everything else is recreated.
func (s Spec) WriteFiles() error {
	cluster, err := s.authority("ca")
	if err != nil {
		return err
	}
	etcd, err := s.authority("etcd-ca")
	if err != nil {
		return err
	}
	admin, err := cluster.Issue(pki.AdminRequest("admin"))
	if err != nil {
		return fmt.Errorf("issue administrator's certificate: %w", err)
	}
	files := s.AdminFiles()
	if err := admin.WriteFiles(files.Cert, files.Key); err != nil {
		return err
	}
	for _, h := range s.Hosts() {
		if err := s.writeHost(h, cluster, etcd); err != nil {
			return fmt.Errorf("write files of %s: %w", h.Name, err)
		}
	}
	return nil
}

// authority loads a certificate authority of the lab, or makes it.
func (s Spec) authority(name string) (*pki.CA, error) {
	cert, key := s.pkiFile(name+".crt"), s.pkiFile(name+".key")
	if _, err := os.Stat(cert); err == nil {
		return pki.LoadCA(cert, key)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ca, err := pki.CreateCA("xebec lab "+s.Name+" "+name, 0)
	if err != nil {
		return nil, err
	}
	return ca, ca.WriteFiles(cert, key)
}

func (s Spec) writeHost(h Host, cluster, etcd *pki.CA) error {
	write := func(path string, data []byte) error { return pki.WriteFile(path, data) }
	issue := func(ca *pki.CA, name string, request pki.Request) error {
		pair, err := ca.Issue(request)
		if err != nil {
			return fmt.Errorf("issue certificate %s: %w", name, err)
		}
		return pair.WriteFiles(h.certFile(name), h.keyFile(name))
	}
	ip := net.IP(h.Addr.AsSlice())
	errs := []error{
		write(h.HostsFile(), s.hostsFile()),
		// No name server: the lab has no outside to ask about.
		write(h.ResolverFile(), []byte("options timeout:1 attempts:1\n")),
		write(h.certFile("ca"), cluster.CertPEM()),
	}
	switch h.Role {
	case Master:
		errs = append(errs, write(h.certFile("etcd-ca"), etcd.CertPEM()))
		for _, service := range Services {
			switch service.Name {
			case pki.EtcdMember:
				errs = append(errs, issue(etcd, etcdIdentity(service.Name), pki.EtcdMemberRequest(h.Name, ip)))
			case "gateway":
				errs = append(errs, issue(cluster, service.Name, pki.GatewayRequest(h.Name, clusterDomain, ipalloc.First(s.ServiceCIDR), ip)))
			default:
				errs = append(errs, issue(cluster, service.Name, pki.ServiceRequest(service.Name, h.Name, ip)))
			}
			if service.Name != pki.EtcdMember {
				// Towards etcd every service is a client with a certificate of etcd's own authority.
				errs = append(errs, issue(etcd, etcdIdentity(service.Name), pki.EtcdClientRequest(service.Name, h.Name)))
			}
			config, err := yaml.Marshal(s.serviceConfig(h, service))
			errs = append(errs, err, write(h.configFile(service.Name), config))
		}
	case Node:
		errs = append(errs, issue(cluster, "agent", pki.NodeRequest(h.Name, ip)))
		config, err := yaml.Marshal(s.agentConfig(h))
		errs = append(errs, err, write(h.configFile("agent"), config), write(h.containerdConfigFile(), h.containerdConfig()))
	}
	return errors.Join(errs...)
}

// etcdIdentity names the certificate with which a service calls etcd.
func etcdIdentity(service string) string {
	if service == pki.EtcdMember {
		return service
	}
	return service + "-etcd"
}

// hostsFile makes the machines known to each other by name.
func (s Spec) hostsFile() []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, h := range s.Hosts() {
		fmt.Fprintf(&b, "%s %s\n", h.Addr, h.Name)
	}
	return []byte(b.String())
}

// containerdConfig leaves out what the agent does itself and what would write outside of the node's
// own directories.
func (h Host) containerdConfig() []byte {
	return fmt.Appendf(nil, `version = 2
root = %q
state = "/run/containerd"
oom_score = 0
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[grpc]
address = %q

[plugins."io.containerd.internal.v1.opt"]
path = %q
`, filepath.Join(h.Disk, "containerd"), containerdSocket, filepath.Join(h.Disk, "opt"))
}

// LoadEndpoints returns the loopback addresses that the lab had last, none when there were none.
func (s Spec) LoadEndpoints() []netip.AddrPort {
	data, err := os.ReadFile(filepath.Join(s.StateDir, "endpoints"))
	if err != nil {
		return nil
	}
	var endpoints []netip.AddrPort
	for field := range strings.FieldsSeq(string(data)) {
		endpoint, err := netip.ParseAddrPort(field)
		if err != nil {
			return nil
		}
		endpoints = append(endpoints, endpoint)
	}
	return endpoints
}

// SaveEndpoints keeps the loopback addresses for LoadEndpoints.
func (s Spec) SaveEndpoints(endpoints []string) error {
	return pki.WriteFile(filepath.Join(s.StateDir, "endpoints"), []byte(strings.Join(endpoints, "\n")+"\n"))
}
