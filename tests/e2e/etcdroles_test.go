package e2e

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/osthread"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/lab/machine"
	"github.com/xebec-project/xebec/lab/topology"
	"github.com/xebec-project/xebec/tests/etcdroles"
)

// dialEtcd returns a client of a lab's etcd with an identity, as seen from a master.
func (s *ship) dialEtcd(t *testing.T, master topology.Host, identity *pki.Source) *clientv3.Client {
	t.Helper()
	dial := func(ctx context.Context, addr string) (conn net.Conn, err error) {
		return conn, osthread.Do(func() error {
			namespace, err := os.Open(filepath.Join(machine.NetnsDir, master.Namespace))
			if err != nil {
				return err
			}
			defer namespace.Close()
			if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			// A dialer given an address opens its one socket on the calling thread.
			var d net.Dialer
			conn, err = d.DialContext(ctx, "tcp4", addr)
			return err
		})
	}
	var endpoints []string
	for _, m := range s.Spec.MasterHosts() {
		endpoints = append(endpoints, "https://"+m.Addr.String()+":2379")
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: identity.ClientConfig(pki.AnyServer), Logger: zap.NewNop(), DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)},
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestServicesReachTheirOwnKeysAlone tries, on a lab's etcd, the certificates that its services
// use, while they do.
func TestServicesReachTheirOwnKeysAlone(t *testing.T) {
	s := sharedShip(t)
	s.awaitWhole(t)
	master := s.Spec.MasterHosts()[0]
	authority, err := pki.LoadCA(filepath.Join(s.Spec.StateDir, "pki", "etcd-ca.crt"), filepath.Join(s.Spec.StateDir, "pki", "etcd-ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(pki.AdminRequest("admin"))
	if err != nil {
		t.Fatal(err)
	}
	identity, err := pki.NewMemorySource(authority.CertPEM(), pair)
	if err != nil {
		t.Fatal(err)
	}
	admin := s.dialEtcd(t, master, identity)
	for _, service := range etcdroles.Services {
		file := func(name string) string { return filepath.Join(master.Disk, "etc", "pki", name) }
		own, err := pki.NewSource(pki.Files{CA: file("etcd-ca.crt"), Cert: file(service + "-etcd.crt"), Key: file(service + "-etcd.key")})
		if err != nil {
			t.Fatal(err)
		}
		etcdroles.Check(t, service, s.dialEtcd(t, master, own), admin)
	}
	s.awaitWhole(t)
}
