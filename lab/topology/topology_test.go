package topology

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/internal/pki"
)

func example(dir string) Spec {
	return Spec{
		Name: "default", Index: 3, StateDir: dir, BinDir: "/opt/bin", Masters: 3, Nodes: 2,
		ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
	}
}

func TestValidate(t *testing.T) {
	if err := example("/x").Validate(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*Spec)
		want   string
	}{
		"empty name":       {func(s *Spec) { s.Name = "" }, `name ""`},
		"name with dash":   {func(s *Spec) { s.Name = "a-b" }, `name "a-b"`},
		"long name":        {func(s *Spec) { s.Name = strings.Repeat("a", 17) }, "must be 1 to 16"},
		"no master":        {func(s *Spec) { s.Masters = 0 }, "masters: 0"},
		"many masters":     {func(s *Spec) { s.Masters = 10 }, "masters: 10"},
		"negative nodes":   {func(s *Spec) { s.Nodes = -1 }, "nodes: -1"},
		"many nodes":       {func(s *Spec) { s.Nodes = 100 }, "nodes: 100"},
		"many segments":    {func(s *Spec) { s.Segments = 5 }, "segments: 5"},
		"second segment":   {func(s *Spec) { s.Segments, s.ServiceCIDR = 2, netip.MustParsePrefix("10.90.0.0/16") }, "overlaps service CIDR"},
		"relative":         {func(s *Spec) { s.StateDir = "x" }, "must be absolute"},
		"no cluster CIDR":  {func(s *Spec) { s.ClusterCIDR = netip.Prefix{} }, "cluster CIDR invalid Prefix"},
		"host bits":        {func(s *Spec) { s.ClusterCIDR = netip.MustParsePrefix("10.244.1.0/16") }, "without host bits"},
		"IPv6":             {func(s *Spec) { s.ServiceCIDR = netip.MustParsePrefix("fd00::/64") }, "must be an IPv4 prefix"},
		"small":            {func(s *Spec) { s.ClusterCIDR = netip.MustParsePrefix("10.244.0.0/25") }, "too small"},
		"overlap":          {func(s *Spec) { s.ServiceCIDR = netip.MustParsePrefix("10.244.128.0/20") }, "overlaps cluster CIDR"},
		"overlap with lab": {func(s *Spec) { s.ServiceCIDR = netip.MustParsePrefix("10.89.0.0/16") }, "overlaps service CIDR"},
	} {
		t.Run(name, func(t *testing.T) {
			s := example("/x")
			test.change(&s)
			if err := s.Validate(); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want %q in it", err, test.want)
			}
		})
	}
}

func TestSaveAndLoad(t *testing.T) {
	s := example(filepath.Join(t.TempDir(), "state"))
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	back, err := Load(s.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	if back != s {
		t.Errorf("loaded %+v, saved %+v", back, s)
	}
	if err := os.WriteFile(filepath.Join(s.StateDir, "lab.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(s.StateDir); err == nil || !strings.Contains(err.Error(), "lab.json") {
		t.Errorf("error of a broken file = %v", err)
	}
}

func TestHosts(t *testing.T) {
	var got []string
	for _, h := range example("/x").Hosts() {
		got = append(got, fmt.Sprintf("%s %s %s %s", h.Name, h.Addr, h.Namespace, h.Cgroup))
	}
	want := []string{
		"master-1 10.89.3.11 xb-default-master-1 xb-default/master-1",
		"master-2 10.89.3.12 xb-default-master-2 xb-default/master-2",
		"master-3 10.89.3.13 xb-default-master-3 xb-default/master-3",
		"node-1 10.89.3.101 xb-default-node-1 xb-default/node-1",
		"node-2 10.89.3.102 xb-default-node-2 xb-default/node-2",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("hosts:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Nodes take turns with the segments; what is not a node is on the first.
func TestSegments(t *testing.T) {
	s := example("/x")
	s.Segments, s.Nodes = 2, 3
	var got []string
	for _, h := range s.Hosts()[2:] {
		got = append(got, fmt.Sprint(h.Name, " ", h.Addr))
	}
	want := "master-3 10.89.3.13, node-1 10.89.3.101, node-2 10.90.3.102, node-3 10.89.3.103"
	if all := strings.Join(got, ", "); all != want {
		t.Errorf("hosts: %s; want %s", all, want)
	}
	if segments := fmt.Sprint(s.WireSegments()); segments != "[{10.89.3.1/24 invalid Prefix} {10.90.3.1/24 invalid Prefix}]" {
		t.Errorf("segments: %s", segments)
	}
}

// A dual-stack lab has IPv6 addresses everywhere, and its processes are configured for them.
func TestDualStack(t *testing.T) {
	s := example("/x")
	s.Segments, s.DualStack = 2, true
	if segments := fmt.Sprint(s.WireSegments()); segments != "[{10.89.3.1/24 fd89:3::1/64} {10.90.3.1/24 fd89:3:1::1/64}]" {
		t.Errorf("segments: %s", segments)
	}
	node := s.Hosts()[4]
	const pods, services = "10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:10:96::/112"
	for what, test := range map[string]struct{ got, want any }{
		"address of the agent":   {s.agentConfig(node)["address"], "10.90.3.102,fd89:3:1::66"},
		"pods of the agent":      {s.agentConfig(node)["clusterCIDR"], pods},
		"services of the agent":  {s.agentConfig(node)["serviceCIDR"], services},
		"pods of nodes":          {s.serviceConfig(s.Hosts()[0], Service{Name: "nodes"})["clusterCIDR"], pods},
		"services of nodes":      {s.serviceConfig(s.Hosts()[0], Service{Name: "nodes"})["serviceCIDR"], services},
		"services of apiservers": {s.serviceConfig(s.Hosts()[0], Service{Name: "apiserver"})["serviceCIDR"], services},
		"services of cloud":      {s.serviceConfig(s.Hosts()[0], Service{Name: "cloud"})["serviceCIDR"], services},
		"load balancers":         {fmt.Sprint(s.serviceConfig(s.Hosts()[0], Service{Name: "cloud"})["pools"]), "[10.89.3.224/27 fd89:3::100/120]"},
		"DNS":                    {s.agentConfig(node)["clusterDNS"], "10.96.0.10"},
	} {
		if test.got != test.want {
			t.Errorf("%s: %v, want %v", what, test.got, test.want)
		}
	}
	if plain := example("/x"); plain.Hosts()[4].Addr6.IsValid() || plain.LoadBalancerPool6().IsValid() || plain.agentConfig(plain.Hosts()[4])["address"] != "10.89.3.102" {
		t.Error("a lab of one family has IPv6 addresses")
	}
}

func TestParseTarget(t *testing.T) {
	for target, want := range map[string]string{
		"node-1": "node-1|", "master-2/scheduler": "master-2|scheduler",
		"": "", "/": "", "node-1/": "", "/agent": "", "a/b/c": "",
	} {
		host, process, err := ParseTarget(target)
		if err != nil {
			host, process = "", ""
		} else {
			host += "|"
		}
		if host+process != want {
			t.Errorf("ParseTarget(%q) = %q, %v, want %q", target, host+process, err, want)
		}
	}
}

func TestWriteFiles(t *testing.T) {
	s := example(t.TempDir())
	if err := s.WriteFiles(); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.NewSource(s.AdminFiles()); err != nil {
		t.Errorf("administrator's certificate: %v", err)
	}
	ca, err := os.ReadFile(s.AdminFiles().CA)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range s.MasterHosts() {
		for _, service := range Services {
			if service.Name == "etcd" {
				continue
			}
			data, err := os.ReadFile(h.configFile(service.Name))
			if err != nil {
				t.Fatal(err)
			}
			var config daemon.Config
			if err := yaml.Unmarshal(data, &config); err != nil {
				t.Fatal(err)
			}
			config.Metrics, config.Log, config.Drain.Limit = "off", daemon.LogConfig{Level: "info", Format: "json"}, 1
			if err := config.Validate(); err != nil {
				t.Errorf("%s on %s: %v\n%s", service.Name, h.Name, err, data)
			}
			for _, files := range []pki.Files{config.TLS, config.Etcd.Files} {
				source, err := pki.NewSource(files)
				if err != nil {
					t.Errorf("%s on %s: %v", service.Name, h.Name, err)
					continue
				}
				if user := source.Leaf().Subject.CommonName; user != pki.ServiceUser(service.Name) {
					t.Errorf("%s on %s acts as %s", service.Name, h.Name, user)
				}
			}
			if service.Name == "gateway" {
				source, err := pki.NewSource(config.TLS)
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"127.0.0.1", "localhost", h.Addr.String()} {
					if err := source.Leaf().VerifyHostname(name); err != nil {
						t.Error(err)
					}
				}
			}
		}
	}
	for _, h := range s.Hosts() {
		for _, p := range s.Processes(h) {
			if _, err := os.Stat(p.Args[len(p.Args)-1]); err != nil {
				t.Errorf("configuration of %s on %s: %v", p.Name, h.Name, err)
			}
		}
	}
	// A second time: the authorities stay, for certificates in use elsewhere depend on them.
	if err := s.WriteFiles(); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(s.AdminFiles().CA); err != nil || string(again) != string(ca) {
		t.Errorf("the authority changed: %v", err)
	}
}

func TestEndpoints(t *testing.T) {
	s := example(t.TempDir())
	if got := s.LoadEndpoints(); got != nil {
		t.Errorf("endpoints before any = %v", got)
	}
	if err := s.SaveEndpoints([]string{"127.0.0.1:4001", "127.0.0.1:4002"}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(s.LoadEndpoints()); got != "[127.0.0.1:4001 127.0.0.1:4002]" {
		t.Errorf("endpoints = %s", got)
	}
}
