// Package topology computes what a lab consists of: its machines, their addresses, the processes
// that run on each, and the certificates and configuration files those need. Everything follows
// from a Spec.
package topology

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/lab/machine"
)

// Limits of a lab.
const (
	// MaxMasters and MaxNodes keep machines' addresses apart.
	MaxMasters = 9
	MaxNodes   = 99
	// MaxIndex is the highest Spec.Index.
	MaxIndex = 250
	// MaxSegments keeps a lab's networks apart from others that people use.
	MaxSegments = 4
)

// Spec says what a lab is. Its JSON form is kept in the lab's state directory.
type Spec struct {
	// Name tells labs apart: lower-case letters and digits, at most 16.
	Name string `json:"name"`
	// Index numbers the labs on this machine from 1 to MaxIndex; the wire's addresses are
	// 10.89.<index>.0/24, those of its second segment 10.90.<index>.0/24, and so on.
	Index int `json:"index"`
	// StateDir holds everything that the lab writes to disk; absolute.
	StateDir string `json:"stateDir"`
	// BinDir holds the programs xebecd and xebec-agent; absolute.
	BinDir string `json:"binDir"`
	// Masters and Nodes count the machines.
	Masters int `json:"masters"`
	Nodes   int `json:"nodes"`
	// Segments counts the networks that nodes are spread over, with a router between them; 0 is 1.
	// Masters are on the first.
	Segments int `json:"segments,omitempty"`
	// DualStack gives machines, pods and services IPv6 addresses beside IPv4: of
	// fd89:<index>:<segment>::/64 and of ClusterCIDR6 and ServiceCIDR6.
	DualStack bool `json:"dualStack,omitempty"`
	// ClusterCIDR and ServiceCIDR hold the addresses of pods and services.
	ClusterCIDR netip.Prefix `json:"clusterCIDR"`
	ServiceCIDR netip.Prefix `json:"serviceCIDR"`
	// Ephemeral keeps the machines' disks in memory.
	Ephemeral bool `json:"ephemeral"`
	// ContextFile is the command line's configuration that has the lab's context; empty when none was
	// written.
	ContextFile string `json:"contextFile,omitempty"`
}

// The IPv6 addresses of pods and services in dual-stack labs.
var (
	ClusterCIDR6 = netip.MustParsePrefix("fd00:10:244::/56")
	ServiceCIDR6 = netip.MustParsePrefix("fd00:10:96::/112")
)

var nameRule = regexp.MustCompile(`^[a-z][a-z0-9]{0,15}$`)

// Validate checks the spec and reports everything that is wrong with it.
func (s Spec) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !nameRule.MatchString(s.Name) {
		fail("name %q: must be 1 to 16 lower-case letters and digits, a letter first", s.Name)
	}
	if s.Masters < 1 || s.Masters > MaxMasters {
		fail("masters: %d is not from 1 to %d", s.Masters, MaxMasters)
	}
	if s.Nodes < 0 || s.Nodes > MaxNodes {
		fail("nodes: %d is not from 0 to %d", s.Nodes, MaxNodes)
	}
	if s.Segments < 0 || s.Segments > MaxSegments {
		fail("segments: %d is not from 1 to %d", s.Segments, MaxSegments)
	}
	if s.Index < 1 || s.Index > MaxIndex {
		fail("index: %d is not from 1 to %d", s.Index, MaxIndex)
	}
	if !filepath.IsAbs(s.StateDir) || !filepath.IsAbs(s.BinDir) {
		fail("state directory %q and program directory %q must be absolute", s.StateDir, s.BinDir)
	}
	type named struct {
		name   string
		prefix netip.Prefix
		bits   int
	}
	cidrs := []named{{"cluster CIDR", s.ClusterCIDR, 24}, {"service CIDR", s.ServiceCIDR, 28}}
	for i := range s.segments() {
		cidrs = append(cidrs, named{"lab network", s.network(i), 32})
	}
	for i, c := range cidrs {
		if !c.prefix.IsValid() || !c.prefix.Addr().Is4() || c.prefix != c.prefix.Masked() {
			fail("%s %s: must be an IPv4 prefix without host bits, such as 10.244.0.0/16", c.name, c.prefix)
			continue
		}
		if c.prefix.Bits() > c.bits {
			fail("%s %s: is too small, /%d at the least", c.name, c.prefix, c.bits)
		}
		for _, other := range cidrs[:i] {
			if other.prefix.IsValid() && c.prefix.Overlaps(other.prefix) {
				fail("%s %s overlaps %s %s: choose other addresses with --cluster-cidr or --service-cidr", c.name, c.prefix, other.name, other.prefix)
			}
		}
	}
	return errors.Join(errs...)
}

// Load reads the spec from a state directory.
func Load(stateDir string) (Spec, error) {
	var s Spec
	path := filepath.Join(stateDir, "lab.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return s, fmt.Errorf("read lab: %w", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read lab: %s: %w", path, err)
	}
	if err := s.Validate(); err != nil {
		return s, fmt.Errorf("read lab: %s: %w", path, err)
	}
	return s, nil
}

// Save writes the spec into its state directory, which it makes.
func (s Spec) Save() error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.StateDir, 0o700); err != nil {
		return fmt.Errorf("save lab: %w", err)
	}
	if err := pki.WriteFile(filepath.Join(s.StateDir, "lab.json"), append(data, '\n')); err != nil {
		return fmt.Errorf("save lab: %w", err)
	}
	return nil
}

// Cgroup is the path of the cgroup, in every hierarchy, that holds all of a lab's processes.
func Cgroup(lab string) string { return "xb-" + lab }

// NamespacePrefix begins the names of all network namespaces of a lab.
func NamespacePrefix(lab string) string { return "xb-" + lab + "-" }

// WireNamespace is the network namespace that holds the wire between the machines.
func (s Spec) WireNamespace() string { return NamespacePrefix(s.Name) + "wire" }

// Network is the prefix of the wire's first segment, which the masters are on.
func (s Spec) Network() netip.Prefix { return s.network(0) }

func (s Spec) segments() int { return max(min(s.Segments, MaxSegments), 1) }

func (s Spec) network(segment int) netip.Prefix { return netip.PrefixFrom(s.addr(segment, 0), 24) }

// WireSegments are the networks that the wire consists of.
func (s Spec) WireSegments() []machine.Segment {
	var out []machine.Segment
	for i := range s.segments() {
		segment := machine.Segment{Router: netip.PrefixFrom(s.addr(i, 1), 24)}
		if s.DualStack {
			segment.Router6 = netip.PrefixFrom(s.addr6(i, 1), 64)
		}
		out = append(out, segment)
	}
	return out
}

// LoadBalancerPool holds the addresses on the wire that services of type LoadBalancer get, above
// those of all machines.
func (s Spec) LoadBalancerPool() netip.Prefix { return netip.PrefixFrom(s.addr(0, 224), 27) }

// LoadBalancerPool6 holds the IPv6 addresses that they get in a dual-stack lab; in another it is
// invalid.
func (s Spec) LoadBalancerPool6() netip.Prefix {
	if !s.DualStack {
		return netip.Prefix{}
	}
	base := s.addr6(0, 0).As16()
	base[14] = 1 // apart from those of machines, which have a number in the last byte only
	return netip.PrefixFrom(netip.AddrFrom16(base), 120)
}

func (s Spec) addr(segment, host int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(89 + segment), byte(s.Index), byte(host)})
}

// addr6 is the IPv6 address of a host in a dual-stack lab, and invalid in another.
func (s Spec) addr6(segment, host int) netip.Addr {
	if !s.DualStack {
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte{0xfd, 0x89, 0, byte(s.Index), 0, byte(segment), 15: byte(host)})
}

// families writes ranges as configurations have them: that of IPv4, and in a dual-stack lab the one
// of IPv6 after it.
func (s Spec) families(four, six netip.Prefix) string {
	if s.DualStack {
		return four.String() + "," + six.String()
	}
	return four.String()
}

// ContextName is the name of the lab's context in the command line's configuration: "lab", or
// "lab-<name>" for a lab that is not the default one.
func (s Spec) ContextName() string {
	if s.Name == DefaultName {
		return "lab"
	}
	return "lab-" + s.Name
}

// DefaultName is the name of the lab that commands mean when none is named.
const DefaultName = "default"

// DisksDir holds the machines' disks; a tmpfs of its own when the lab is ephemeral.
func (s Spec) DisksDir() string { return filepath.Join(s.StateDir, "disks") }

// LogFile is where a process's output goes.
func (s Spec) LogFile(host, process string) string {
	return filepath.Join(s.StateDir, "logs", host, process+".log")
}

// SupervisorLog is where the supervisor's output goes.
func (s Spec) SupervisorLog() string { return filepath.Join(s.StateDir, "logs", "supervisor.log") }

// Socket is the path of the supervisor's control socket.
func (s Spec) Socket() string { return filepath.Join(s.StateDir, "control.sock") }

// LockFile is locked by the supervisor for as long as it lives.
func (s Spec) LockFile() string { return filepath.Join(s.StateDir, "lock") }

// Role is what a machine is for.
type Role string

// The roles.
const (
	Master Role = "master"
	Node   Role = "node"
)

// Host is one machine of a lab.
type Host struct {
	// Name is its host name, such as "master-1".
	Name string
	// Role says what runs on it.
	Role Role
	// Addr is its address on the wire, Addr6 its IPv6 address there, invalid unless the lab is
	// dual-stack.
	Addr, Addr6 netip.Addr
	// Namespace names its network namespace.
	Namespace string
	// Cgroup is the path of its cgroup.
	Cgroup string
	// Disk is the directory with everything that outlives a crash of the machine.
	Disk string
}

// Hosts returns the machines, masters first.
func (s Spec) Hosts() []Host {
	var hosts []Host
	add := func(role Role, number, segment, addr int) {
		name := fmt.Sprintf("%s-%d", role, number)
		hosts = append(hosts, Host{
			Name: name, Role: role, Addr: s.addr(segment, addr), Addr6: s.addr6(segment, addr), Namespace: NamespacePrefix(s.Name) + name,
			Cgroup: Cgroup(s.Name) + "/" + name, Disk: filepath.Join(s.DisksDir(), name),
		})
	}
	for i := range s.Masters {
		add(Master, i+1, 0, 11+i)
	}
	for i := range s.Nodes {
		add(Node, i+1, i%s.segments(), 101+i)
	}
	return hosts
}

// MasterHosts returns the masters.
func (s Spec) MasterHosts() []Host { return s.Hosts()[:s.Masters] }

// ParseTarget splits "master-2/scheduler" into host and process; the process is empty for a whole
// host.
func ParseTarget(target string) (host, process string, err error) {
	host, process, slash := strings.Cut(target, "/")
	if host == "" || slash && process == "" || strings.Contains(process, "/") {
		return "", "", fmt.Errorf("invalid target %q: want HOST, such as node-1, or HOST/PROCESS, such as master-2/scheduler", target)
	}
	return host, process, nil
}
