package cli

import (
	"context"
	"slices"
	"testing"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
	gatewayv1 "github.com/xebec-project/xebec/proto/xebec/gateway/v1"
)

func TestAccess(t *testing.T) {
	c := startCluster(t)
	c.access = &clusterv1.AccessResponse{From: "the gateway's configuration", Private: &clusterv1.Listener{AllowedCidrs: []string{"10.0.0.0/8", "fd00::/8"}},
		Source: "10.0.0.7", Listener: "private"}
	c.run(t, "cluster", "access").want(t, exit.OK, "LISTENER   ADMITS\n"+
		"private    10.0.0.0/8, fd00::/8\n"+
		"public     not configured\n\n"+
		"Reported by the gateway's configuration. Your address is 10.0.0.7, at the private listener.\n")
	c.access.Private, c.access.Public, c.access.AlwaysAdmitted = &clusterv1.Listener{Closed: true}, &clusterv1.Listener{}, true
	c.run(t, "cluster", "access", "get").want(t, exit.OK, "LISTENER   ADMITS\n"+
		"private    masters only (off)\n"+
		"public     any address\n\n"+
		"Reported by the gateway's configuration. Your address is 10.0.0.7, at the private listener (a master, always admitted).\n")
	c.run(t, "cluster", "access", "-o", "jsonpath={.private.closed}").want(t, exit.OK, "true")

	stored := func() *gatewayv1.GatewayAccessSpec {
		t.Helper()
		conn, err := c.connect()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		access, err := client.Get[*gatewayv1.GatewayAccess](t.Context(), client.New(conn), "", "cluster")
		if err != nil {
			t.Fatal(err)
		}
		return access.GetSpec()
	}
	const set = "gatewayaccess.gateway.xebec.io/cluster set\n"
	c.run(t, "cluster", "access", "set", "--public-cidrs", "203.0.113.0/24,198.51.100.7/32").want(t, exit.OK, set)
	if spec := stored(); spec.GetPrivate() != nil || !slices.Equal(spec.GetPublic().GetAllowedCidrs(), []string{"203.0.113.0/24", "198.51.100.7/32"}) {
		t.Errorf("stored %v", spec)
	}
	c.run(t, "cluster", "access", "set", "--private", "on", "--private-cidrs", "10.0.0.0/8").want(t, exit.OK, set)
	if spec := stored(); len(spec.GetPublic().GetAllowedCidrs()) != 2 || !spec.GetPrivate().GetEnabled() || len(spec.GetPrivate().GetAllowedCidrs()) != 1 {
		t.Errorf("stored %v: what no flag names must stay", spec)
	}
	c.run(t, "cluster", "access", "set", "--public", "off").want(t, exit.OK, set)
	if spec := stored(); spec.GetPublic().GetEnabled() || len(spec.GetPublic().GetAllowedCidrs()) != 0 {
		t.Errorf("stored %v", spec)
	}
	c.run(t, "cluster", "access", "set", "--private-cidrs", "").want(t, exit.OK, set)
	if spec := stored(); len(spec.GetPrivate().GetAllowedCidrs()) != 0 {
		t.Errorf("stored %v", spec)
	}
	c.run(t, "get", "gwa", "cluster", "-o", "jsonpath={.spec.public.enabled}").want(t, exit.OK, "false")
	c.run(t, "cluster", "access", "set").want(t, exit.Usage, "", "at least one of --public")
	c.run(t, "cluster", "access", "set", "--public", "maybe").want(t, exit.Usage, "", "want on or off")
	c.run(t, "cluster", "access", "set", "--private-cidrs", "10.0.0.1/8").want(t, exit.Failed, "", "has host bits set: write 10.0.0.0/8")
	c.run(t, "cluster", "access", "reset").want(t, exit.OK, "gatewayaccess.gateway.xebec.io/cluster reset\n")
	c.run(t, "cluster", "access", "reset").want(t, exit.OK, "gatewayaccess.gateway.xebec.io/cluster reset\n")
}

// fakeAuth lets ann read, and makes tokens that say what they were asked for.
type fakeAuth struct {
	authv1.UnimplementedTokenServiceServer
	authv1.UnimplementedAccessServiceServer
	asked   *authv1.CheckAccessRequest
	created *authv1.CreateTokenRequest
}

func (a *fakeAuth) CheckAccess(_ context.Context, req *authv1.CheckAccessRequest) (*authv1.CheckAccessResponse, error) {
	a.asked = req
	if req.GetVerb() == "get" {
		return &authv1.CheckAccessResponse{Allowed: true}, nil
	}
	return &authv1.CheckAccessResponse{Reason: "it only reads"}, nil
}

func (a *fakeAuth) CreateToken(_ context.Context, req *authv1.CreateTokenRequest) (*authv1.CreateTokenResponse, error) {
	a.created = req
	if req.GetServiceAccount() == "none" {
		return nil, apierr.New(5, apierr.ReasonNotFound, `serviceaccounts "none" not found`)
	}
	return &authv1.CreateTokenResponse{Token: "a.b.c"}, nil
}

func TestAuth(t *testing.T) {
	c := startCluster(t)
	c.run(t, "auth", "can-i", "get", "pods/web", "-n", "shop").want(t, exit.OK, "yes\n")
	if a := c.auth.asked; a.GetKind() != "pods" || a.GetName() != "web" || a.GetNamespace() != "shop" || a.GetUser() != "" {
		t.Errorf("asked %v", a)
	}
	c.run(t, "auth", "can-i", "delete", "deploy", "--as", "bob", "--as-group", "devs,ops", "-A").want(t, exit.Failed, "no: it only reads\n")
	if a := c.auth.asked; a.GetNamespace() != "" || a.GetUser() != "bob" || len(a.GetGroups()) != 2 {
		t.Errorf("asked %v", a)
	}
	c.run(t, "auth", "can-i", "delete", "pods", "-q").want(t, exit.Failed, "")
	c.run(t, "auth", "can-i", "get", "pods", "--as-group", "devs").want(t, exit.Usage, "", "requires --as")
	c.run(t, "auth", "can-i", "get").want(t, exit.Usage, "", "accepts 2 arg")

	c.run(t, "create", "token", "web", "-n", "shop", "--duration", "10m", "--audience", "vault", "--bound-pod", "web-1").want(t, exit.OK, "a.b.c\n")
	if r := c.auth.created; r.GetNamespace() != "shop" || r.GetExpirationSeconds() != 600 || r.GetAudiences()[0] != "vault" || r.GetBoundPod().GetName() != "web-1" {
		t.Errorf("asked for %v", r)
	}
	c.run(t, "create", "token", "none").want(t, exit.Failed, "", "not found")
	c.run(t, "create", "token", "web", "--bound-pod-uid", "u").want(t, exit.Usage, "", "requires --bound-pod")
}
