package etcd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/metrics"
	"github.com/xebec-project/xebec/internal/pki"
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
)

func denied(t *testing.T, what string, err error) {
	t.Helper()
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("%s: got %v, want PermissionDenied", what, err)
	}
}

// TestLeasesOfOthers has cloud end and prolong a registration of the scheduler, and keep the
// scheduler from renewing it.
func TestLeasesOfOthers(t *testing.T) {
	c := newCluster(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	cloud, scheduler := c.client(c.as(pki.EtcdClientRequest("cloud", "m"))), c.client(c.as(pki.EtcdClientRequest("scheduler", "m")))
	const theirs, own = discovery.Prefix + "scheduler/m", discovery.Prefix + "cloud/m"
	register := func(client *clientv3.Client, key string) clientv3.LeaseID {
		t.Helper()
		var grant *clientv3.LeaseGrantResponse
		await(t, "a lease for "+key, func() (ok bool) {
			var err error
			if grant, err = client.Grant(ctx, 600); err == nil {
				_, err = client.Put(ctx, key, "{}", clientv3.WithLease(grant.ID))
			}
			return err == nil
		})
		return grant.ID
	}
	lease, mine := register(scheduler, theirs), register(cloud, own)

	// Every service may read which lease a registration has.
	if got, err := cloud.Get(ctx, theirs); err != nil || got.Kvs[0].Lease != int64(lease) {
		t.Fatalf("read of a registration: %v, %v", got, err)
	}
	_, err := cloud.Revoke(ctx, lease)
	denied(t, "revoke another's lease", err)
	_, err = cloud.KeepAliveOnce(ctx, lease)
	denied(t, "renew another's lease", err)
	_, err = cloud.Put(ctx, own, "{}", clientv3.WithLease(lease))
	denied(t, "put a key under another's lease", err)
	_, err = cloud.Txn(ctx).Then(clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpPut(own, "{}", clientv3.WithLease(lease))})).Commit()
	denied(t, "put a key under another's lease in a transaction", err)
	_, err = cloud.Leases(ctx)
	denied(t, "list leases", err)
	_, err = cloud.TimeToLive(ctx, lease, clientv3.WithAttachedKeys())
	denied(t, "keys of a lease", err)

	for _, id := range []clientv3.LeaseID{mine, lease} {
		client := map[clientv3.LeaseID]*clientv3.Client{mine: cloud, lease: scheduler}[id]
		if _, err := client.KeepAliveOnce(ctx, id); err != nil {
			t.Errorf("renew the own lease: %v", err)
		}
		if _, err := client.Revoke(ctx, id); err != nil {
			t.Errorf("revoke the own lease: %v", err)
		}
	}
	if got, err := cloud.Get(ctx, discovery.Prefix, clientv3.WithPrefix()); err != nil || got.Count != 0 {
		t.Errorf("after the leases were revoked: %v, %v", got, err)
	}
	if n := c.members[0].logs.FilterMessage("Refused a call").Len() + c.members[1].logs.FilterMessage("Refused a call").Len() + c.members[2].logs.FilterMessage("Refused a call").Len(); n == 0 {
		t.Error("no refusal was logged")
	}
}

// TestAdministratorsCallsByGateway has a gateway call a member for an administrator and for others.
func TestAdministratorsCallsByGateway(t *testing.T) {
	c := newCluster(t, 1, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	behalf := func(user string, groups ...string) context.Context {
		md := metadata.MD{}
		edge.Identity{User: user, Groups: groups}.Forward(edge.Headers(md))
		return metadata.NewOutgoingContext(ctx, md)
	}
	admin := behalf("ann", pki.GroupMasters)
	gateway := c.client(c.as(pki.EtcdClientRequest("gateway", "m")))
	members := etcdv1.NewEtcdServiceClient(gateway.ActiveConnection())

	got, err := members.Status(admin, &etcdv1.StatusRequest{})
	if err != nil || len(got.GetMembers()) != 1 || got.GetMembers()[0].GetError() != "" || !got.GetMembers()[0].GetLeader() {
		t.Fatalf("status for an administrator: %v, %v", got, err)
	}
	stream, err := members.Snapshot(admin, &etcdv1.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	size := 0
	for {
		part, err := stream.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		size += len(part.GetChunk())
	}
	if size < 4096 {
		t.Errorf("a snapshot of %d bytes", size)
	}
	entries := c.members[0].logs.FilterMessage("Administrator's call").All()
	if len(entries) != 2 {
		t.Fatalf("logged %v", entries)
	}
	fields := entries[1].ContextMap()
	if id, _ := fields[metrics.KeyRequestID].(string); id == "" {
		t.Errorf("logged %v, want a request id", fields)
	}
	delete(fields, metrics.KeyRequestID)
	if fmt.Sprint(fields) != "map[caller:ann forwarder:xebec:gateway method:/xebec.etcd.v1.EtcdService/Snapshot]" {
		t.Errorf("logged %v", fields)
	}

	for what, ctx := range map[string]context.Context{
		"for itself": ctx, "for a person": behalf("bob"), "for a service": behalf("xebec:etcd", pki.GroupServices), "for a node": behalf("system:node:n", pki.GroupNodes),
	} {
		_, err := members.Status(ctx, &etcdv1.StatusRequest{})
		denied(t, "status "+what, err)
		stream, err := members.Snapshot(ctx, &etcdv1.SnapshotRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		denied(t, "snapshot "+what, err)
	}
	for _, service := range []string{"cloud", "apiserver", "auth"} {
		other := etcdv1.NewEtcdServiceClient(c.client(c.as(pki.EtcdClientRequest(service, "m"))).ActiveConnection())
		for _, ctx := range []context.Context{ctx, admin} {
			_, err := other.Status(ctx, &etcdv1.StatusRequest{})
			denied(t, "status by "+service, err)
		}
	}
	// On behalf of an administrator a gateway's role stays its own for all else.
	_, err = gateway.Get(admin, "/xebec/registry/core/Secret/default/a")
	denied(t, "read of a secret", err)
	snapshot, err := gateway.Snapshot(admin)
	if err == nil {
		_, err = io.ReadAll(snapshot)
	}
	denied(t, "etcd's own snapshot", err)
	if list, err := gateway.MemberList(ctx); err != nil || len(list.Members) != 1 {
		t.Errorf("members: %v, %v", list, err)
	}
	if _, err := gateway.Status(ctx, c.members[0].cfg.ClientURL); err != nil {
		t.Errorf("a member's status: %v", err)
	}
}

// TestServicesAreNoMembers connects to the port for members, which serves raft's messages and the
// log.
func TestServicesAreNoMembers(t *testing.T) {
	c := newCluster(t, 1, nil)
	get := func(request pki.Request) error {
		client := http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: c.as(request), DisableKeepAlives: true}}
		client.Transport.(*http.Transport).TLSClientConfig.NextProtos = nil
		resp, err := client.Get(c.members[0].cfg.PeerURL + "/members")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	}
	if err := get(pki.EtcdMemberRequest("m")); err != nil {
		t.Errorf("as a member: %v", err)
	}
	// The second is what services' certificates towards etcd were at first, good for their host's
	// address as members' are.
	for _, request := range []pki.Request{pki.EtcdClientRequest("cloud", "m"), pki.ServiceRequest("cloud", "localhost"), pki.ServiceRequest("apiserver", "localhost")} {
		if err := get(request); err == nil || !strings.Contains(err.Error(), "bad certificate") {
			t.Errorf("as %s: %v", request.CommonName, err)
		}
	}
}

// A member with another's certificate says so at once.
func TestMemberRefusesAForeignIdentity(t *testing.T) {
	for _, part := range []string{"peer", "client"} {
		c := &cluster{t: t, dir: memoryDir(t)}
		var err error
		if c.ca, err = pki.CreateCA("etcd", time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := c.ca.WriteFiles(c.dir+"/ca.crt", c.dir+"/ca.key"); err != nil {
			t.Fatal(err)
		}
		cfg := DefaultConfig()
		cfg.Name, cfg.DataDir, cfg.PeerURL, cfg.ClientURL = "m0", c.dir+"/m0", "https://127.0.0.1:2380", "https://127.0.0.1:2379"
		cfg.InitialCluster = []string{"m0=" + cfg.PeerURL}
		cfg.Peer, cfg.Client = c.files("member", pki.EtcdMemberRequest("m")), c.files("member", pki.EtcdMemberRequest("m"))
		map[string]*pki.Files{"peer": &cfg.Peer, "client": &cfg.Client}[part].Cert = c.files("cloud", pki.ServiceRequest("cloud", "m")).Cert
		map[string]*pki.Files{"peer": &cfg.Peer, "client": &cfg.Client}[part].Key = c.dir + "/cloud.key"
		service, err := New(cfg, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		if err := service.Run(t.Context()); err == nil || !strings.Contains(err.Error(), part+`.cert: `) || !strings.Contains(err.Error(), `"xebec:cloud", want "xebec:etcd"`) {
			t.Errorf("%s: %v", part, err)
		}
	}
}
