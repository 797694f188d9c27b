package e2e

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/lab/topology"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
)

// from connects to one master's gateway, at one of its listeners, from another of the lab's
// machines.
func (s *ship) from(t *testing.T, host, master string, port int, identity *pki.Source, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append(options, grpc.WithDisableHealthCheck(), grpc.WithContextDialer(func(ctx context.Context, address string) (conn net.Conn, err error) {
		err = s.onHost(host, func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
			return err
		})
		return conn, err
	}))
	conn, err := rpc.Dial(fmt.Sprintf("%s:%d", s.wireAddr(master), port), rpc.ClientConfig{TLS: identity, Options: options})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func whoAmI(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	who, err := clusterv1.NewClusterServiceClient(conn).WhoAmI(ctx, &clusterv1.WhoAmIRequest{})
	return who.GetUser(), err
}

// TestAccessList changes from where the gateways take connections, as an administrator on a machine
// that is no master.
func TestAccessList(t *testing.T) {
	s := sharedShip(t)
	p := s.inDefault()
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	admin, err := pki.NewSource(s.Spec.AdminFiles())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Other tests share the lab; the test's own context has ended.
		if o := run(t, p.command(context.Background(), "cluster", "access", "reset")); o.code != 0 {
			t.Errorf("reset: %s", o)
		}
	})
	type caller struct {
		master          string
		public, private *grpc.ClientConn
		cut             chan error
	}
	var callers []caller
	for i := range sharedMasters {
		master := fmt.Sprintf("master-%d", i+1)
		c := caller{master: master, cut: make(chan error, 1),
			public:  s.from(t, "node-1", master, topology.PublicPort, admin),
			private: s.from(t, "node-1", master, topology.GatewayPort, admin)}
		for _, conn := range []*grpc.ClientConn{c.public, c.private} {
			if user, err := whoAmI(ctx, conn); err != nil || user != "admin" {
				t.Fatalf("%s: %q, %v", master, user, err)
			}
		}
		began := make(chan struct{})
		go func() {
			var once bool
			for event, err := range client.Watch[*corev1.Namespace](ctx, client.New(c.public), client.WatchOptions{}) {
				if err != nil {
					c.cut <- err
					return
				}
				if event.Object.GetMetadata().GetName() == "default" && !once {
					once = true
					close(began)
				}
			}
		}()
		select {
		case <-began:
		case err := <-c.cut:
			t.Fatalf("%s: the watch ended before it began: %v", master, err)
		case <-ctx.Done():
			t.Fatalf("%s: the watch does not begin: %v", master, ctx.Err())
		}
		callers = append(callers, c)
	}

	p.do(t, "cluster", "access", "set", "--public-cidrs", "203.0.113.0/24")
	for _, c := range callers {
		// Each gateway hears of the list in its own time.
		if err := <-c.cut; !apierr.IsUnavailable(err) {
			t.Errorf("%s: the watch of a caller that is denied now ended with %v", c.master, err)
		}
		if _, err := whoAmI(ctx, c.public); !apierr.IsUnavailable(err) {
			t.Errorf("%s: a denied caller gets in: %v", c.master, err)
		}
		if user, err := whoAmI(ctx, c.private); err != nil || user != "admin" {
			t.Errorf("%s: at the other listener: %q, %v", c.master, user, err)
		}
	}
	if out := p.do(t, "cluster", "access"); !strings.Contains(out, "203.0.113.0/24") || !strings.Contains(out, "by GatewayAccess. Your address is ") {
		t.Errorf("access says:\n%s", out)
	}
	if out := p.do(t, "get", "gatewayaccess"); !strings.Contains(out, "203.0.113.0/24") {
		t.Errorf("get says:\n%s", out)
	}

	t.Run("administrators cannot lock themselves out", func(t *testing.T) {
		mine := client.New(callers[0].private, client.WithFieldManager("e2e"))
		list := func(private string) error {
			_, err := client.Patch[*gatewayv1.GatewayAccess](ctx, mine, "", "cluster", []byte(`{"spec":{"private":{"allowedCIDRs":[`+private+`]}}}`))
			return err
		}
		node := s.wireAddr("node-1").String()
		if err := list(`"203.0.113.0/24"`); apierr.Reason(err) != apierr.ReasonLockout || !strings.Contains(err.Error(), node) {
			t.Errorf("a list without its writer: %v", err)
		}
		if err := list(`"` + node + `/32"`); apierr.Reason(err) != apierr.ReasonLockout || !strings.Contains(err.Error(), "node-2") {
			t.Errorf("a list without a node: %v", err)
		}
		if err := list(`"` + s.Spec.Network().String() + `"`); err != nil {
			t.Errorf("a list with all: %v", err)
		}
	})
	for args, want := range map[string]string{
		"--public-cidrs=10.0.0.1/8":                "has host bits set: write 10.0.0.0/8",
		"--public-cidrs=10.0.0.0/8,10.1.0.0/16":    "overlaps 10.0.0.0/8",
		"--private-cidrs=office":                   "is no prefix",
		"--public=off --private=off":               "one listener must take connections",
		"--public=maybe":                           "want on or off",
		"--public=off --public-cidrs=192.0.2.0/24": "must be empty where enabled is false",
	} {
		if o := p.try(t, append([]string{"cluster", "access", "set"}, strings.Fields(args)...)...); o.code == 0 || !strings.Contains(o.stderr, want) {
			t.Errorf("%s: %s", args, o)
		}
	}

	p.do(t, "cluster", "access", "reset")
	for _, c := range callers {
		eventually(t, c.master+" admits everyone again", waitLimit, func() error {
			_, err := whoAmI(ctx, c.public)
			return err
		})
	}
}

// TestServiceAccountTokens is a program with nothing but a token.
func TestServiceAccountTokens(t *testing.T) {
	s := sharedShip(t)
	p := s.person(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*waitLimit)
	defer cancel()
	trust, err := pki.NewTrustSource(s.authority(t).CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	p.apply(t, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\n")
	token := strings.TrimSpace(p.do(t, "create", "token", "robot"))
	want := "system:serviceaccount:" + p.namespace + ":robot"
	var robots []*grpc.ClientConn
	for i := range sharedMasters {
		robots = append(robots, s.from(t, "node-1", fmt.Sprintf("master-%d", i+1), topology.GatewayPort, trust, grpc.WithPerRPCCredentials(rpc.Bearer(token))))
	}
	for _, robot := range robots {
		eventually(t, "the token is known", waitLimit, func() error {
			user, err := whoAmI(ctx, robot)
			if err == nil && user != want {
				t.Fatalf("the robot is %q", user)
			}
			return err
		})
		_, _, err := client.List[*corev1.Pod](ctx, client.New(robot), client.ListOptions{Namespace: p.namespace})
		mustBe(t, "list pods", err, apierr.ReasonForbidden)
	}
	if o := p.try(t, "auth", "can-i", "get", "pods", "--as", want, "--as-group", "system:serviceaccounts"); o.code != 1 || !strings.HasPrefix(o.stdout, "no: ") {
		t.Errorf("can-i: %s", o)
	}
	if out := p.do(t, "auth", "can-i", "get", "pods"); out != "yes\n" {
		t.Errorf("can-i says %q", out)
	}
	p.do(t, "delete", "serviceaccount", "robot")
	for _, robot := range robots {
		eventually(t, "the token of an account that is gone is refused", waitLimit, func() error {
			_, err := whoAmI(ctx, robot)
			if apierr.Reason(err) == edge.ReasonBadToken {
				return nil
			}
			return fmt.Errorf("got %v", err)
		})
	}
	if o := p.try(t, "create", "token", "robot"); o.code == 0 || !strings.Contains(o.stderr, "not found") {
		t.Errorf("a token without a user: %s", o)
	}
	p.says(t, []string{"serviceaccount/default\n"}, "get", "serviceaccount", "default", "-o", "name")
}

// TestEtcdThroughTheGateway looks after etcd as an administrator does.
func TestEtcdThroughTheGateway(t *testing.T) {
	s := sharedShip(t)
	p := s.inDefault()
	// On a busy machine members lose their leader now and then, and elect another.
	eventually(t, "etcd is well", waitLimit, func() error {
		if o := p.try(t, "etcd", "status", "--check"); o.code != 0 || strings.Count(o.stdout, "\n") != sharedMasters+1 || strings.Count(o.stdout, "leader") != 1 {
			return fmt.Errorf("%s", o)
		}
		return nil
	})
	if out := p.do(t, "etcd", "members", "-o", "jsonpath={.members[*].name}"); out != "master-1 master-2 master-3" {
		t.Errorf("members: %q", out)
	}
	eventually(t, "the lead is handed over", waitLimit, func() error {
		if o := p.try(t, "etcd", "move-leader", "master-2"); o.code != 0 || o.stdout != "leader is now master-2\n" {
			return fmt.Errorf("%s", o)
		}
		return nil
	})
	file := filepath.Join(t.TempDir(), "backup.db")
	if out := p.do(t, "etcd", "snapshot", file); !strings.Contains(out, "checksum verified") {
		t.Errorf("snapshot: %q", out)
	}
	if out := p.do(t, "etcd", "restore", file); !strings.Contains(out, "complete etcd snapshot") {
		t.Errorf("restore: %q", out)
	}
	for args, want := range map[string]string{
		"members remove unknown":                           `etcd has no member "unknown"; it has master-1`,
		"members add master-9 --peer-url=10.0.0.9":         "is not https://host:port",
		"members promote master-1":                         "it votes already",
		"members add master-9":                             "required",
		"snapshot " + filepath.Join(t.TempDir(), "x", "y"): "no such file",
	} {
		if o := p.try(t, append([]string{"etcd"}, strings.Fields(args)...)...); o.code == 0 || !strings.Contains(o.stderr, want) {
			t.Errorf("%s: %s", args, o)
		}
	}
}
