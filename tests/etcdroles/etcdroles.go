// Package etcdroles tries what a service can do in etcd with its own certificate, against the
// members and certificates of labs, of hosts that Ansible installs, and of test clusters.
package etcdroles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/discovery"
)

// Services are those with a certificate towards etcd.
var Services = []string{"apiserver", "auth", "gateway", "scheduler", "workloads", "nodes", "endpoints", "collector", "cloud"}

// Keys that are there while Check runs. The object is of a kind that no apiserver knows, which
// ignores it.
const (
	object  = "/xebec/registry/etcdroles/Object/default/object"
	authKey = "/xebec/auth/etcd-roles"
	victim  = discovery.Prefix + "etcd-roles/master-1"
)

// Keys that may be there and are only read.
const (
	secrets   = "/xebec/registry/core/Secret/"
	tokenKeys = "/xebec/auth/token-keys"
)

// limit is how long one call may take on a machine with much else to do.
const limit = 30 * time.Second

// attempt is a call, and which services it is allowed to; the apiserver may read everything.
type attempt struct {
	what  string
	call  func(ctx context.Context, c *clientv3.Client) error
	by    []string
	reads bool
	// tells says that it tells of leases or members alone: etcd's own roles do not refuse it.
	tells bool
	// members says that Xebec's members alone allow it: in another etcd it takes the root user.
	members bool
}

// Check tries, with the client of a service, calls that it may make and calls that it may not.
// admin is a client that may do everything. A control plane may run beside it.
func Check(t *testing.T, service string, client, admin *clientv3.Client) {
	t.Helper()
	check(t, service, client, admin, false)
}

// CheckForeign is Check for an etcd that is not Xebec's, in which services have roles of etcd's
// own.
func CheckForeign(t *testing.T, service string, client, admin *clientv3.Client) {
	t.Helper()
	check(t, service, client, admin, true)
}

// refused knows a refusal by a call's code, by etcd's own error, and by the words of a watch that
// etcd cancels.
func refused(err error) bool {
	return status.Code(err) == codes.PermissionDenied || errors.Is(err, rpctypes.ErrPermissionDenied) ||
		err != nil && strings.Contains(err.Error(), rpctypes.ErrPermissionDenied.Error())
}

func check(t *testing.T, service string, client, admin *clientv3.Client, foreign bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*limit)
	defer cancel()
	for _, key := range []string{object, authKey, victim} {
		if _, err := admin.Put(ctx, key, "{}"); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		for _, key := range []string{object, authKey, victim, discovery.Prefix + service + "/etcd-roles"} {
			_, _ = admin.Delete(context.WithoutCancel(ctx), key)
		}
	}()
	for _, a := range attempts(service) {
		if foreign && a.tells {
			continue
		}
		allowed := slices.Contains(a.by, service) && !(foreign && a.members) || a.reads && service == "apiserver"
		call, cancel := context.WithTimeout(ctx, limit)
		err := a.call(call, client)
		cancel()
		switch {
		case allowed && err != nil:
			t.Errorf("%s may not %s: %v", service, a.what, err)
		case !allowed && !refused(err):
			t.Errorf("%s may %s: got %v, want PermissionDenied", service, a.what, err)
		}
	}
	checkRegistration(ctx, t, service, client)
	for key, writer := range map[string]string{object: "apiserver", authKey: "auth", victim: ""} {
		got, err := admin.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if changed := len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "{}"; changed != (service == writer) {
			t.Errorf("after %s: %s changed is %v", service, key, changed)
		}
	}
}

func attempts(service string) []attempt {
	get := func(key string, options ...clientv3.OpOption) func(context.Context, *clientv3.Client) error {
		return func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Get(ctx, key, options...)
			return err
		}
	}
	do := func(ops ...clientv3.Op) func(context.Context, *clientv3.Client) error {
		return func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Txn(ctx).Then(ops...).Commit()
			return err
		}
	}
	watch := func(key string, options ...clientv3.OpOption) func(context.Context, *clientv3.Client) error {
		return func(ctx context.Context, c *clientv3.Client) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			resp, ok := <-c.Watch(ctx, key, append(options, clientv3.WithCreatedNotify())...)
			if !ok {
				return errors.New("the watch ended")
			}
			return resp.Err()
		}
	}
	prefix, everything := clientv3.WithPrefix(), clientv3.WithFromKey()
	own := discovery.Prefix + service + "/etcd-roles"
	auth, apiserver := []string{"auth"}, []string{"apiserver"}
	return []attempt{
		{what: "read a secret", call: get(secrets + "default/a"), reads: true},
		{what: "read secrets", call: get(secrets, prefix), reads: true},
		{what: "read an object", call: get(object), reads: true},
		{what: "count objects", call: get("/xebec/registry/", prefix, clientv3.WithCountOnly()), reads: true},
		{what: "read all of Xebec", call: get("/xebec/", prefix, clientv3.WithKeysOnly()), reads: true},
		{what: "read everything", call: get("\x00", everything, clientv3.WithKeysOnly())},
		{what: "read on from the registrations", call: get(discovery.Prefix, everything, clientv3.WithKeysOnly())},
		{
			what:  "read a secret in a transaction",
			call:  do(clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet(secrets + "default/a")}, nil)),
			reads: true,
		},
		{what: "compare a secret", call: func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value(secrets+"default/a"), "=", "guess")).Commit()
			return err
		}, reads: true},
		{what: "watch secrets", call: watch(secrets, prefix), reads: true},
		{what: "watch everything", call: watch("\x00", everything)},
		{what: "write an object", call: do(clientv3.OpPut(object, "changed")), by: apiserver},
		{what: "delete an object", call: do(clientv3.OpDelete(object)), by: apiserver},
		{what: "delete objects", call: do(clientv3.OpDelete("/xebec/registry/etcdroles/", prefix)), by: apiserver},
		{what: "read the token keys", call: get(tokenKeys), reads: true, by: auth},
		{what: "watch the token keys", call: watch(tokenKeys), reads: true, by: auth},
		{what: "write keys of auth", call: do(clientv3.OpPut(authKey, "changed")), by: auth},
		{what: "read the previous keys of auth", call: do(clientv3.OpPut(authKey, "changed", clientv3.WithPrevKV())), by: auth},
		{what: "read a registration", call: get(victim), by: Services},
		{what: "watch the registrations", call: watch(discovery.Prefix, prefix), by: Services},
		{what: "write another's registration", call: do(clientv3.OpPut(victim, "{}"))},
		{what: "take off another's registration", call: do(clientv3.OpDelete(victim))},
		{what: "take off all registrations", call: do(clientv3.OpDelete(discovery.Prefix, prefix))},
		{what: "write its own registration", call: do(clientv3.OpPut(own, "{}")), by: Services},
		{what: "take off its own registration", call: do(clientv3.OpDelete(own)), by: Services},
		{what: "write beside Xebec's keys", call: do(clientv3.OpPut("/etcd-roles", ""))},
		{what: "list leases", call: func(ctx context.Context, c *clientv3.Client) error { _, err := c.Leases(ctx); return err }, tells: true},
		{
			what:    "compact",
			call:    func(ctx context.Context, c *clientv3.Client) error { _, err := c.Compact(ctx, 1); return err },
			by:      apiserver,
			members: true,
		},
		{
			what:  "list members",
			call:  func(ctx context.Context, c *clientv3.Client) error { _, err := c.MemberList(ctx); return err },
			by:    []string{"gateway"},
			tells: true,
		},
		{what: "see a member's status", call: func(ctx context.Context, c *clientv3.Client) error {
			_, err := pb.NewMaintenanceClient(c.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
			return err
		}, by: []string{"apiserver", "gateway"}, tells: true},
		{what: "copy the database", call: func(ctx context.Context, c *clientv3.Client) error {
			snapshot, err := c.Snapshot(ctx)
			if err != nil {
				return err
			}
			defer snapshot.Close()
			_, err = io.Copy(io.Discard, snapshot)
			return err
		}},
		{what: "add a user", call: func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.UserAdd(ctx, "etcd-roles", "x")
			return err
		}},
		{what: "enable users", call: func(ctx context.Context, c *clientv3.Client) error { _, err := c.AuthEnable(ctx); return err }},
		// Last: a member that was added and does not run would cost a single member its quorum.
		{what: "add a member", call: func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.MemberAdd(ctx, []string{"https://127.0.0.1:1"})
			return err
		}},
	}
}

// checkRegistration registers the service as its process does, and finds it.
func checkRegistration(ctx context.Context, t *testing.T, service string, client *clientv3.Client) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	registered, done := make(chan bool, 8), make(chan error, 1)
	go func() {
		done <- discovery.Register(ctx, client, discovery.Instance{Service: service, Host: "etcd-roles", Addr: "127.0.0.1:1"}, zap.NewNop(),
			func(on bool) { registered <- on })
	}()
	select {
	case <-registered:
		directory := discovery.New(client, zap.NewNop())
		defer directory.Close()
		instances, err := directory.Instances(ctx)
		if err != nil ||
			!slices.ContainsFunc(instances, func(i discovery.Instance) bool { return i.Service == service && i.Host == "etcd-roles" }) {
			t.Errorf("%s is not among the instances: %v, %v", service, instances, err)
		}
	case <-ctx.Done():
		t.Errorf("%s can't register itself", service)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("%s: %v", service, err)
	}
	// Its lease was revoked, and the registration went with it.
	left, err := client.Get(context.WithoutCancel(ctx), discovery.Prefix+service+"/etcd-roles")
	if err != nil || left.Count != 0 {
		t.Errorf("after %s took its registration off: %v, %v", service, left, err)
	}
	// Nor is there one for another, as which a lease of its own does not help.
	grant, err := client.Grant(context.WithoutCancel(ctx), 60)
	if err != nil {
		t.Errorf("%s gets no lease: %v", service, err)
		return
	}
	if _, err = client.Put(context.WithoutCancel(ctx), victim, "{}", clientv3.WithLease(grant.ID)); !refused(err) {
		t.Errorf("%s registers another under a lease of its own: %v", service, err)
	}
	if _, err := client.Revoke(context.WithoutCancel(ctx), grant.ID); err != nil {
		t.Error(fmt.Errorf("%s revokes its own lease: %w", service, err))
	}
}
