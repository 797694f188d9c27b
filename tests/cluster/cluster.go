// Package cluster runs control planes for tests and benchmarks: every service a process of its own,
// as on real masters, with certificates and configurations, on loopback addresses and with etcd's
// data in memory. Masters are addresses of 127.0.0.0/8, so that each has the usual ports. Any
// process can be killed, paused and started again, and tells what it used.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
)

// Services are the control plane's processes on each master, in the order in which they start, with
// their ports. An etcd's port is that of its clients.
var Services = []struct {
	Name string
	Port int
}{
	{"etcd", 2379},
	{"apiserver", 7001},
	{"auth", 7002},
	{"gateway", 6443},
	{"scheduler", 7003},
	{"workloads", 7004},
	{"nodes", 7005},
	{"endpoints", 7006},
	{"collector", 7007},
	{"cloud", 7008},
}

// etcd's port for its own members, and for its metrics.
const (
	etcdPeerPort    = 2380
	etcdMetricsPort = 2381
)

// hollowPort is that of simulated nodes, which serve their metrics alone.
const hollowPort = 7099

// Config says what to run.
type Config struct {
	// Binaries is a directory with the programs; see Build.
	Binaries string
	// Masters is how many; 1 or 3 make sense. 0 is 1.
	Masters int
	// Services are the names of those to run on each; nil is all.
	Services []string
	// Settings, when not nil, changes a service's configuration before it is written: its keys are
	// those of the file.
	Settings func(service string, settings map[string]any)
}

// Cluster is a running control plane.
type Cluster struct {
	dir      string
	binaries string
	masters  []*Master
	agents   []*Process
	// The identity of an administrator, and that of a client of etcd.
	admin, etcd *pki.Source
	authority   *pki.CA
}

// Master is one host of a control plane.
type Master struct {
	// Name is such as "master-1".
	Name string
	// Address is the loopback address of the host.
	Address   string
	processes []*Process
}

// Start makes a control plane and waits until every service on every master takes calls. Close ends
// it.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	dir, err := memoryDir()
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, binaries: cfg.Binaries}
	if err := c.prepare(cfg); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	for _, m := range c.masters {
		for _, p := range m.processes {
			if err := p.Start(); err != nil {
				return nil, errors.Join(err, c.Close())
			}
		}
	}
	if err := c.WaitServing(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// memoryDir makes a directory in memory where there is one: shared disks stall, and no figure
// should measure that.
func memoryDir() (string, error) {
	if dir, err := os.MkdirTemp("/dev/shm", "xebec-cluster-"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "xebec-cluster-")
}

// Close ends all processes and removes their files.
func (c *Cluster) Close() error {
	for _, p := range append(c.Processes(), c.agents...) {
		p.Kill()
	}
	return os.RemoveAll(c.dir)
}

// Masters returns the masters, in order.
func (c *Cluster) Masters() []*Master { return c.masters }

// Processes returns the processes of all masters, master by master.
func (c *Cluster) Processes() []*Process {
	var all []*Process
	for _, m := range c.masters {
		all = append(all, m.processes...)
	}
	return all
}

// Process returns the process of a service on the master, nil when it runs none.
func (m *Master) Process(service string) *Process {
	for _, p := range m.processes {
		if p.Service == service {
			return p
		}
	}
	return nil
}

// Processes returns the master's processes.
func (m *Master) Processes() []*Process { return m.processes }

// prepare writes what the processes read, and makes them, not started.
func (c *Cluster) prepare(cfg Config) error {
	network, err := freeNetwork(max(cfg.Masters, 1))
	if err != nil {
		return err
	}
	for i := range max(cfg.Masters, 1) {
		c.masters = append(c.masters, &Master{Name: fmt.Sprintf("master-%d", i+1), Address: network(i)})
	}
	authorities, err := newAuthorities(c.dir)
	if err != nil {
		return err
	}
	c.authority = authorities.cluster
	if c.admin, err = authorities.source(authorities.cluster, "admin", pki.AdminRequest("admin")); err != nil {
		return err
	}
	if c.etcd, err = authorities.source(authorities.etcd, "admin-etcd", pki.AdminRequest("admin")); err != nil {
		return err
	}
	for _, m := range c.masters {
		for _, s := range Services {
			if cfg.Services != nil && !slices.Contains(cfg.Services, s.Name) {
				continue
			}
			settings, err := c.settings(authorities, m, s.Name, s.Port)
			if err != nil {
				return err
			}
			if cfg.Settings != nil {
				cfg.Settings(s.Name, settings)
			}
			p := &Process{
				Service: s.Name, Master: m, cluster: c, port: s.Port, dir: filepath.Join(c.dir, m.Name),
				program: []string{filepath.Join(c.binaries, "xebecd"), s.Name},
			}
			if err := p.configure(settings); err != nil {
				return err
			}
			m.processes = append(m.processes, p)
		}
	}
	return nil
}

// freeNetwork picks a part of 127.0.0.0/8 that no process listens at, for hosts masters.
func freeNetwork(hosts int) (address func(host int) string, err error) {
	for range 20 {
		prefix := fmt.Sprintf("127.%d.%d.", 64+rand.N(128), rand.N(256))
		address = func(host int) string { return prefix + strconv.Itoa(host+1) }
		if err = free(address, hosts); err == nil {
			return address, nil
		}
	}
	return nil, fmt.Errorf("find loopback addresses that are free: %w", err)
}

func free(address func(host int) string, hosts int) error {
	for host := range hosts {
		for _, s := range Services {
			listener, err := net.Listen("tcp", net.JoinHostPort(address(host), strconv.Itoa(s.Port)))
			if err != nil {
				return err
			}
			_ = listener.Close()
		}
	}
	return nil
}

// settings returns the configuration of a service on a master.
func (c *Cluster) settings(a *authorities, m *Master, service string, port int) (map[string]any, error) {
	ip := net.ParseIP(m.Address)
	at := func(port int) string { return net.JoinHostPort(m.Address, strconv.Itoa(port)) }
	name := m.Name + "-" + service
	request := pki.EtcdClientRequest(service, m.Name)
	if service == pki.EtcdMember {
		request = pki.EtcdMemberRequest(m.Name, ip)
	}
	etcd, err := a.files(a.etcd, name+"-etcd", request)
	if err != nil {
		return nil, err
	}
	if service == pki.EtcdMember {
		var members []string
		for _, m := range c.masters {
			members = append(members, fmt.Sprintf("%s=https://%s:%d", m.Name, m.Address, etcdPeerPort))
		}
		return map[string]any{
			"name": m.Name, "dataDir": filepath.Join(c.dir, m.Name, "etcd"),
			"peerURL": "https://" + at(etcdPeerPort), "clientURL": "https://" + at(port),
			"metricsURL": "https://" + at(etcdMetricsPort), "initialCluster": members,
			"peer": section(etcd), "client": section(etcd),
		}, nil
	}
	files, err := a.files(a.cluster, name, pki.ServiceRequest(service, m.Name, ip))
	if err != nil {
		return nil, err
	}
	client := section(etcd)
	client["endpoints"] = c.etcdEndpoints()
	return map[string]any{
		"host": m.Name, "listen": at(port), "metrics": at(port + 1000), "tls": section(files), "etcd": client,
	}, nil
}

func (c *Cluster) etcdEndpoints() []string {
	var endpoints []string
	for _, m := range c.masters {
		endpoints = append(endpoints, fmt.Sprintf("https://%s:%d", m.Address, Services[0].Port))
	}
	return endpoints
}

func section(f pki.Files) map[string]any {
	return map[string]any{"ca": f.CA, "cert": f.Cert, "key": f.Key}
}

// Etcd returns a client of all members of etcd, which the caller closes.
func (c *Cluster) Etcd() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: c.etcdEndpoints(), TLS: c.etcd.ClientConfig(pki.AnyServer), Logger: zap.NewNop(),
		DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
	})
}

// EtcdLeader returns the master whose etcd member leads.
func (c *Cluster) EtcdLeader(ctx context.Context) (*Master, error) {
	client, err := c.Etcd()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	for {
		for i, endpoint := range c.etcdEndpoints() {
			call, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			status, err := client.Status(call, endpoint)
			cancel()
			if err == nil && status.Leader == status.Header.MemberId {
				return c.masters[i], nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no member of etcd leads: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Dial connects an administrator to the given service on the given masters, on all when none is
// given. The caller closes the connection.
func (c *Cluster) Dial(service string, masters ...*Master) (*grpc.ClientConn, error) {
	return c.DialAs(c.admin, service, masters...)
}

// DialAs is Dial with another identity, such as one that Identity returned.
func (c *Cluster) DialAs(identity *pki.Source, service string, masters ...*Master) (*grpc.ClientConn, error) {
	if len(masters) == 0 {
		masters = c.masters
	}
	var addresses []string
	for _, m := range masters {
		p := m.Process(service)
		if p == nil {
			return nil, fmt.Errorf("%s runs no %s", m.Name, service)
		}
		addresses = append(addresses, p.Address())
	}
	return rpc.Dial(rpc.SchemeStatic+":///"+strings.Join(addresses, ","), rpc.ClientConfig{
		TLS: identity, ServerUser: pki.ServiceUser(service), UserAgent: "xebec-tests",
		Options: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			// Tests measure how soon a server is back.
			Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.2, MaxDelay: 100 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		})},
	})
}

// HTTPClient returns a client that reads metrics and profiles as an administrator.
func (c *Cluster) HTTPClient() *http.Client {
	config := c.admin.ClientConfig(pki.AnyServer)
	config.NextProtos = nil
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
}

// StartHollow starts a process that simulates nodes: they register, keep their leases and run every
// pod at once, without containers. Each has a connection and a certificate of its own. It needs the
// program xebec-agent among the binaries. settings, which may be nil, are further keys of its
// configuration.
func (c *Cluster) StartHollow(nodes int, settings map[string]any) (*Process, error) {
	var gateways []string
	for _, m := range c.masters {
		gateways = append(gateways, m.Process("gateway").Address())
	}
	p := &Process{
		Service: "agent", Master: c.masters[0], cluster: c, port: hollowPort, dir: filepath.Join(c.dir, "hollow"),
		program: []string{filepath.Join(c.binaries, "xebec-agent")},
	}
	files, err := c.Identity("hollow", pki.ServiceRequest("hollow", c.masters[0].Name))
	if err != nil {
		return nil, err
	}
	authority := filepath.Join(c.dir, "pki", "ca")
	all := map[string]any{
		"gateways": gateways, "tls": section(files), "metrics": p.Diagnostics(),
		"hollow": nodes, "hollowCACert": authority + ".crt", "hollowCAKey": authority + ".key",
	}
	maps.Copy(all, settings)
	if err := p.configure(all); err != nil {
		return nil, err
	}
	c.agents = append(c.agents, p)
	return p, p.Start()
}

// Identity issues a certificate of the cluster's authority.
func (c *Cluster) Identity(name string, request pki.Request) (pki.Files, error) {
	return (&authorities{dir: filepath.Join(c.dir, "pki"), cluster: c.authority}).files(c.authority, name, request)
}

// WaitServing waits until every process that was started takes calls, and every gateway knows of
// all of them: an instance that serves is listed a moment later.
func (c *Cluster) WaitServing(ctx context.Context) error {
	var running []*Process
	for _, p := range c.Processes() {
		if !p.Running() {
			continue
		}
		if err := p.WaitServing(ctx); err != nil {
			return err
		}
		running = append(running, p)
	}
	for _, p := range running {
		if p.Service != "gateway" {
			continue
		}
		if err := p.waitKnows(ctx, running); err != nil {
			return err
		}
	}
	return nil
}
