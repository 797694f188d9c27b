package etcdroles_test

import (
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/xebec-project/xebec/internal/loopbacktest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/services/etcd"
	"github.com/xebec-project/xebec/tests/etcdroles"
)

// foreign is an etcd that is not Xebec's, with mutual TLS.
type foreign struct {
	endpoint  string
	authority *pki.CA
	files     pki.Files // a member's
}

func newForeign(tb testing.TB, run func(tb testing.TB, f *foreign, data string)) *foreign {
	tb.Helper()
	dir := tb.TempDir()
	f := &foreign{endpoint: "https://" + loopbacktest.Address(tb).String()}
	var err error
	if f.authority, err = pki.CreateCA("etcd", 0); err != nil {
		tb.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	f.files = pki.Files{CA: at("ca.crt"), Cert: at("tls.crt"), Key: at("tls.key")}
	pair, err := f.authority.Issue(pki.EtcdMemberRequest("m", loopbacktest.Address(tb).Addr().AsSlice()))
	if err != nil {
		tb.Fatal(err)
	}
	if err := pair.WriteFiles(f.files.Cert, f.files.Key); err != nil {
		tb.Fatal(err)
	}
	if err := pki.WriteFile(f.files.CA, f.authority.CertPEM()); err != nil {
		tb.Fatal(err)
	}
	run(tb, f, at("data"))
	return f
}

// embedded runs etcd as its makers configure it.
func embedded(tb testing.TB, f *foreign, data string) {
	tb.Helper()
	parse := func(s string) url.URL {
		u, err := url.Parse(s)
		if err != nil {
			tb.Fatal(err)
		}
		return *u
	}
	cfg := embed.NewConfig()
	cfg.Dir, cfg.Name, cfg.ZapLoggerBuilder = data, "m", embed.NewZapLoggerBuilder(zap.NewNop())
	peer := parse("http://" + loopbacktest.Address(tb).String())
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls, cfg.InitialCluster = []url.URL{peer}, []url.URL{peer}, "m="+peer.String()
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{parse(f.endpoint)}, []url.URL{parse(f.endpoint)}
	cfg.ListenClientHttpUrls = []url.URL{parse("http://" + loopbacktest.Address(tb).String())}
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: f.files.Cert, KeyFile: f.files.Key, TrustedCAFile: f.files.CA, ClientCertAuth: true}
	cfg.MaxTxnOps = etcd.MaxTxnOps
	member, err := embed.StartEtcd(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(member.Close)
	select {
	case <-member.Server.ReadyNotify():
	case <-time.After(time.Minute):
		tb.Fatal("etcd is not ready after a minute")
	}
}

func (f *foreign) client(tb testing.TB, request pki.Request) *clientv3.Client {
	tb.Helper()
	pair, err := f.authority.Issue(request)
	if err != nil {
		tb.Fatal(err)
	}
	source, err := pki.NewMemorySource(f.authority.CertPEM(), pair)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{f.endpoint}, TLS: source.ClientConfig(pki.AnyServer), Logger: zap.NewNop()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// grant makes the users and roles that docs/operations/bring-up.md gives for an external etcd.
func grant(tb testing.TB, root *clientv3.Client) {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	user := func(name string) {
		_, err := root.UserAddWithOptions(tb.Context(), name, "", &clientv3.UserAddOptions{NoPassword: true})
		must(err)
		_, err = root.RoleAdd(tb.Context(), name)
		must(err)
		_, err = root.UserGrantRole(tb.Context(), name, name)
		must(err)
	}
	permit := func(role string, what clientv3.PermissionType, key string) {
		end := ""
		if key[len(key)-1] == '/' {
			end = clientv3.GetPrefixRangeEnd(key)
		}
		_, err := root.RoleGrantPermission(tb.Context(), role, key, end, what)
		must(err)
	}
	const read, write = clientv3.PermissionType(clientv3.PermRead), clientv3.PermissionType(clientv3.PermReadWrite)
	user("root")
	for _, service := range etcdroles.Services {
		name := pki.ServiceUser(service)
		user(name)
		permit(name, read, "/xebec/services/")
		permit(name, write, "/xebec/services/"+service+"/")
		switch service {
		case "apiserver":
			permit(name, read, "/xebec/")
			for _, key := range []string{"/xebec/registry/", "/xebec/leases/", "/xebec/epoch", "/xebec/clock"} {
				permit(name, write, key)
			}
		case "auth":
			permit(name, write, "/xebec/auth/")
		}
	}
	_, err := root.AuthEnable(tb.Context())
	must(err)
}

// TestRolesInForeignEtcd tries the roles that an external etcd can give to Xebec's services.
func TestRolesInForeignEtcd(t *testing.T) {
	f := newForeign(t, embedded)
	root := f.client(t, pki.Request{CommonName: "root", Client: true})
	grant(t, root)
	for _, service := range etcdroles.Services {
		t.Run(service, func(t *testing.T) {
			etcdroles.CheckForeign(t, service, f.client(t, pki.EtcdClientRequest(service, "m")), root)
		})
	}
}

// BenchmarkWrites is what roles cost the apiserver's writes: none, those of Xebec's members, and
// those of etcd itself.
func BenchmarkWrites(b *testing.B) {
	xebec := func(tb testing.TB, f *foreign, data string) {
		cfg := etcd.DefaultConfig()
		cfg.Name, cfg.DataDir, cfg.Peer, cfg.Client, cfg.ClientURL = "m", data, f.files, f.files, f.endpoint
		cfg.PeerURL, cfg.MetricsURL = "https://"+loopbacktest.Address(tb).String(), "https://"+loopbacktest.Address(tb).String()
		cfg.InitialCluster = []string{"m=" + cfg.PeerURL}
		start(tb, cfg)
	}
	for _, of := range []struct {
		name  string
		run   func(testing.TB, *foreign, string)
		grant bool
	}{{"none", embedded, false}, {"xebec", xebec, false}, {"etcd", embedded, true}} {
		f := newForeign(b, of.run)
		if of.grant {
			grant(b, f.client(b, pki.Request{CommonName: "root", Client: true}))
		}
		c := f.client(b, pki.EtcdClientRequest("apiserver", "m"))
		// As the apiserver commits: small transactions in a larger one.
		for _, transactions := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%d", of.name, transactions), func(b *testing.B) {
				var n atomic.Int64
				var group sync.WaitGroup
				for range 4 {
					group.Go(func() {
						for n.Add(1) <= int64(b.N) {
							var ops []clientv3.Op
							for i := range transactions {
								key := fmt.Sprintf("/xebec/registry/core/Pod/default/pod-%d-%d", n.Load(), i)
								ops = append(ops, clientv3.OpTxn(
									[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), ">", -1), clientv3.Compare(clientv3.ModRevision("/xebec/epoch"), "=", 0)},
									[]clientv3.Op{clientv3.OpPut(key, "value")}, []clientv3.Op{clientv3.OpGet(key), clientv3.OpGet("/xebec/epoch")}))
							}
							if _, err := c.Txn(b.Context()).Then(ops...).Commit(); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				group.Wait()
			})
		}
	}
}
