package topology

import (
	"net/netip"
	"path/filepath"
	"strconv"
)

// Service is one control-plane service as `xebecd` runs it.
type Service struct {
	// Name is the subcommand of xebecd and the service's name everywhere.
	Name string
	// Port is where it serves on every master.
	Port int
}

// Services are what runs on every master, etcd first.
var Services = []Service{
	{"etcd", 2379},
	{"apiserver", 7001},
	{"auth", 7002},
	{"gateway", GatewayPort},
	{"scheduler", 7003},
	{"workloads", 7004},
	{"nodes", 7005},
	{"endpoints", 7006},
	{"collector", 7007},
	{"cloud", 7008},
}

// Ports that others must know.
const (
	GatewayPort  = 6443
	PublicPort   = 6444
	EtcdPort     = 2379
	EtcdPeerPort = 2380
	AgentPort    = 10250
)

// Process is one supervised process of a machine.
type Process struct {
	// Name is unique on its host.
	Name string
	// Args is the program and its arguments.
	Args []string
	// Stage orders starts on a host: what has a higher stage waits until everything of a lower one is
	// ready.
	Stage int
	// Ready is where a process of an early stage listens once it is ready: an address, or a socket's
	// path inside the machine. Empty for processes that nothing waits for.
	Ready string
	// Weight is how many times the processor time of another process of its host it gets when there is
	// not enough; 0 is 1.
	Weight int
	// Log is the file for its output.
	Log string
}

// Weights of a lab's parts where there is not enough processor time for all: how many times that of
// a sibling a part gets. etcd loses its leader when it waits for a processor too long, and with it
// the whole cluster waits, so that it comes first on each master, masters come before nodes, and
// the lab comes before another program of the machine.
const (
	LabWeight    = 4
	masterWeight = 4
	etcdWeight   = 8
)

// Weight is how many times the processor time of a node the host gets.
func (h Host) Weight() int {
	if h.Role == Master {
		return masterWeight
	}
	return 1
}

// containerdSocket is the same on every node: /run is each machine's own.
const containerdSocket = "/run/containerd/containerd.sock"

// Processes returns what runs on a host, in the order of starting.
func (s Spec) Processes(h Host) []Process {
	var processes []Process
	add := func(name string, stage int, ready string, args ...string) {
		processes = append(processes, Process{Name: name, Args: args, Stage: stage, Ready: ready, Log: s.LogFile(h.Name, name)})
	}
	switch h.Role {
	case Master:
		for _, service := range Services {
			stage, ready := 1, ""
			if service.Name == "etcd" {
				stage, ready = 0, netip.AddrPortFrom(h.Addr, uint16(service.Port)).String()
			}
			add(service.Name, stage, ready, filepath.Join(s.BinDir, "xebecd"), service.Name, "--config", h.configFile(service.Name))
			if service.Name == "etcd" {
				processes[len(processes)-1].Weight = etcdWeight
			}
		}
	case Node:
		add("containerd", 0, containerdSocket, "containerd", "--config", h.containerdConfigFile())
		add("agent", 1, "", filepath.Join(s.BinDir, "xebec-agent"), "--config", h.configFile("agent"))
	}
	return processes
}

// GatewayAddr is where a master's gateway serves on the wire.
func (h Host) GatewayAddr() netip.AddrPort { return netip.AddrPortFrom(h.Addr, GatewayPort) }

func (h Host) etc() string                      { return filepath.Join(h.Disk, "etc") }
func (h Host) configFile(process string) string { return filepath.Join(h.etc(), process+".yaml") }
func (h Host) containerdConfigFile() string     { return filepath.Join(h.etc(), "containerd.toml") }
func (h Host) certFile(name string) string      { return filepath.Join(h.etc(), "pki", name+".crt") }
func (h Host) keyFile(name string) string       { return filepath.Join(h.etc(), "pki", name+".key") }

// HostsFile and ResolverFile are put over the machine's /etc/hosts and /etc/resolv.conf.
func (h Host) HostsFile() string    { return filepath.Join(h.etc(), "hosts") }
func (h Host) ResolverFile() string { return filepath.Join(h.etc(), "resolv.conf") }

// StaticPods is the directory of manifests that the machine, if it is a node, runs by itself. Who
// uses it makes it.
func (h Host) StaticPods() string { return filepath.Join(h.Disk, "static-pods") }

func (h Host) addrPort(port int) string { return h.Addr.String() + ":" + strconv.Itoa(port) }
