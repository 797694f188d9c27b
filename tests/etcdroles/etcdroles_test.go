package etcdroles_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"

	"github.com/xebec-project/xebec/cli"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/daemon"
	"github.com/xebec-project/xebec/internal/loopbacktest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/lab/topology"
	"github.com/xebec-project/xebec/services/etcd"
	"github.com/xebec-project/xebec/tests/etcdroles"
)

// start runs a member of etcd for the test.
func start(t testing.TB, cfg etcd.Config) {
	t.Helper()
	service, err := etcd.New(cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-service.Ready():
	case err := <-done:
		done <- nil
		t.Fatal(err)
	case <-time.After(time.Minute):
		t.Fatal("etcd has no leader after a minute")
	}
}

func client(t *testing.T, endpoint string, source *pki.Source) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: source.ClientConfig(pki.AnyServer), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// check starts a member with its configuration, moved to an address of loopback, and tries the
// certificates of services.
func check(t *testing.T, cfg etcd.Config, authority *pki.CA, services map[string]pki.Files) {
	t.Helper()
	at := func() string { return "https://" + loopbacktest.Address(t).String() }
	cfg.DataDir, cfg.PeerURL, cfg.ClientURL, cfg.ListenPeer, cfg.ListenClient = filepath.Join(t.TempDir(), "data"), at(), at(), "", ""
	cfg.MetricsURL = "https://" + loopbacktest.Address(t).String()
	cfg.InitialCluster = []string{cfg.Name + "=" + cfg.PeerURL}
	start(t, cfg)
	pair, err := authority.Issue(pki.AdminRequest("admin"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := pki.NewMemorySource(authority.CertPEM(), pair)
	if err != nil {
		t.Fatal(err)
	}
	admin := client(t, cfg.ClientURL, source)
	if got := slices.Sorted(maps.Keys(services)); !slices.Equal(got, slices.Sorted(slices.Values(etcdroles.Services))) {
		t.Errorf("services with a certificate towards etcd: %v", got)
	}
	for service, files := range services {
		t.Run(service, func(t *testing.T) {
			source, err := pki.NewSource(files)
			if err != nil {
				t.Fatal(err)
			}
			if usages := source.Leaf().ExtKeyUsage; len(usages) != 1 {
				t.Errorf("with the certificate of %s one can serve as etcd: usages %v", service, usages)
			}
			etcdroles.Check(t, service, client(t, cfg.ClientURL, source), admin)
		})
	}
}

// TestCertificatesOfLabs tries the certificates of a lab on a member with a lab's configuration.
func TestCertificatesOfLabs(t *testing.T) {
	spec := topology.Spec{
		Name: "roles", Index: 1, StateDir: t.TempDir(), BinDir: "/nowhere", Masters: 1,
		ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
	}
	if err := spec.WriteFiles(); err != nil {
		t.Fatal(err)
	}
	read := func(service string, into any) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(spec.MasterHosts()[0].Disk, "etc", service+".yaml"))
		if err == nil {
			err = yaml.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cfg := etcd.DefaultConfig()
	read("etcd", &cfg)
	services := map[string]pki.Files{}
	for _, s := range topology.Services {
		if s.Name == pki.EtcdMember {
			continue
		}
		var own daemon.Config
		read(s.Name, &own)
		services[s.Name] = own.Etcd.Files
	}
	authority, err := pki.LoadCA(filepath.Join(spec.StateDir, "pki", "etcd-ca.crt"), filepath.Join(spec.StateDir, "pki", "etcd-ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	check(t, cfg, authority, services)
}

// TestCertificatesOfHosts tries the certificates that the Ansible role pki issues, and brings to
// hosts as they are.
func TestCertificatesOfHosts(t *testing.T) {
	dir := t.TempDir()
	for _, args := range []string{
		"pki init --dir " + dir + " --cluster roles",
		"pki issue --dir " + dir + " --services " + strings.Join(etcdroles.Services, ",") + " --service-cidr 10.96.0.0/16 --master m1=127.0.0.1 --etcd m1=127.0.0.1",
	} {
		var errors bytes.Buffer
		if code := cli.Run(t.Context(), strings.Fields(args), session.Streams{In: strings.NewReader(""), Out: io.Discard, Err: &errors}); code != exit.OK {
			t.Fatalf("xebec %s: %s", args, &errors)
		}
	}
	files := func(service, ca, name string) pki.Files {
		at := func(file string) string { return filepath.Join(dir, "hosts", "m1", service, file) }
		return pki.Files{CA: at(ca), Cert: at(name + ".crt"), Key: at(name + ".key")}
	}
	cfg := etcd.DefaultConfig()
	cfg.Name = "m1"
	cfg.Peer = files(pki.EtcdMember, "ca.crt", "tls")
	cfg.Client = cfg.Peer
	services := map[string]pki.Files{}
	for _, service := range etcdroles.Services {
		services[service] = files(service, "etcd-ca.crt", "etcd")
	}
	authority, err := pki.LoadCA(filepath.Join(dir, "etcd-ca.crt"), filepath.Join(dir, "etcd-ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	check(t, cfg, authority, services)
}
