package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/loopbacktest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/internal/rpc/rpctest"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// person makes an authority and a person's context for gateways at an address.
func person(t *testing.T, ca *pki.CA, endpoint string, validity time.Duration) cliconfig.Context {
	t.Helper()
	request := pki.AdminRequest("ann")
	request.Validity = validity
	pair, err := ca.Issue(request)
	if err != nil {
		t.Fatal(err)
	}
	return cliconfig.Context{Name: "real", Endpoints: []string{endpoint}, CA: cliconfig.PEM{Data: ca.CertPEM()},
		Cert: cliconfig.PEM{Data: pair.CertPEM}, Key: cliconfig.PEM{Data: pair.KeyPEM}}
}

func authority(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.CreateCA("test", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// gateway serves the fake cluster's own service as a gateway would, with mutual TLS.
func gateway(t *testing.T, ca *pki.CA) string {
	t.Helper()
	pair, err := ca.Issue(pki.ServiceRequest("gateway", "master-1", net.IPv4(127, 0, 0, 1)))
	if err != nil {
		t.Fatal(err)
	}
	source, err := pki.NewMemorySource(ca.CertPEM(), pair)
	if err != nil {
		t.Fatal(err)
	}
	tokens := &rpctest.Tokens{Known: func(token string) (edge.Identity, time.Time, error) {
		if token != "good.robot.token" {
			return edge.Identity{}, time.Time{}, apierr.New(codes.Unauthenticated, edge.ReasonBadToken, "invalid token: it is another")
		}
		return edge.Identity{User: "system:serviceaccount:shop:robot", Groups: []string{"system:serviceaccounts"}}, time.Time{}, nil
	}}
	everyone := func(context.Context, edge.Identity, string) error { return nil }
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0", TLS: source, DrainDelay: -1, Tokens: tokens, Authorize: everyone}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	clusterv1.RegisterClusterServiceServer(server, &fakeCluster{})
	done := make(chan error, 1)
	go func() { done <- server.Serve(t.Context()) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return server.Addr().String()
}

// runReal runs a command line over a connection of its own, by a configuration with one context.
func runReal(t *testing.T, c cliconfig.Context, args ...string) result {
	t.Helper()
	path := writeFile(t, "config", "")
	config := &cliconfig.Config{CurrentContext: c.Name, Contexts: []cliconfig.Context{c}}
	if err := config.Save(path); err != nil {
		t.Fatal(err)
	}
	t.Setenv(cliconfig.EnvPath, path)
	var out, errs bytes.Buffer
	code := Run(t.Context(), args, session.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	return result{out.String(), errs.String(), code}
}

func TestRealConnection(t *testing.T) {
	ca := authority(t)
	me := person(t, ca, gateway(t, ca), time.Hour)
	runReal(t, me, "auth", "whoami").want(t, exit.OK, "USER   GROUPS\nann    system:masters\n")
	r := runReal(t, me, "auth", "whoami", "-v")
	if r.code != exit.OK || !strings.Contains(r.err, "WhoAmI") || !strings.Contains(r.err, "OK in ") || !strings.Contains(r.err, ", request id ") {
		t.Errorf("code %d, error output:\n%s", r.code, r.err)
	}

	// One gateway that is down does not matter.
	dead := deadAddress(t)
	me.Endpoints = []string{dead, me.Endpoints[0]}
	runReal(t, me, "auth", "whoami").want(t, exit.OK, "USER   GROUPS\nann    system:masters\n")
	runReal(t, me, "auth", "whoami", "--endpoints", dead).want(t, exit.Unreachable, "", "cannot connect to", dead)
}

// TestTokens is known by a token, of the command line or of a file, which counts in place of a
// certificate.
func TestTokens(t *testing.T) {
	ca := authority(t)
	me := person(t, ca, gateway(t, ca), time.Hour)
	const robot = "USER                               GROUPS\nsystem:serviceaccount:shop:robot   system:serviceaccounts\n"
	runReal(t, me, "auth", "whoami", "--token", "good.robot.token").want(t, exit.OK, robot)
	runReal(t, me, "auth", "whoami", "--token", "bad.robot.token").want(t, exit.Failed, "", "invalid token", "xebec create token")
	runReal(t, me, "auth", "whoami", "--token", "robot.token").want(t, exit.Usage, "", "--token: not a token", "tokenFile")

	file := writeFile(t, "token", "good.robot.token\n")
	byFile := cliconfig.Context{Name: "real", Endpoints: me.Endpoints, CA: me.CA, TokenFile: file}
	runReal(t, byFile, "auth", "whoami").want(t, exit.OK, robot)
	runReal(t, byFile, "auth", "whoami", "--token", "bad.robot.token").want(t, exit.Failed, "", "invalid token")
	byFile.TokenFile = writeFile(t, "token", "")
	runReal(t, byFile, "auth", "whoami").want(t, exit.Failed, "", `context "real"`, "token file "+byFile.TokenFile, "not a token")
	byFile.TokenFile = "/nonexistent/token"
	runReal(t, byFile, "auth", "whoami").want(t, exit.Failed, "", "read token /nonexistent/token: no such file")

	// What speaks plain text never sees a token.
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	heard := make(chan string, 64)
	go func() {
		for {
			conn, err := plain.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 4096)
			n, _ := conn.Read(buffer)
			heard <- string(buffer[:n])
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	runReal(t, me, "auth", "whoami", "--token", "good.robot.token", "--endpoints", plain.Addr().String()).want(t, exit.Unreachable, "", "does not use TLS", "TLS")
	if got := <-heard; strings.Contains(got, "robot") {
		t.Errorf("plain text was sent %q", got)
	}
}

// deadAddress is one where nothing listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	return loopbacktest.Address(t).String()
}

func TestUnreachable(t *testing.T) {
	ca := authority(t)
	dead := deadAddress(t)
	runReal(t, person(t, ca, dead, time.Hour), "get", "pods").want(t, exit.Unreachable, "",
		fmt.Sprintf(`cannot connect to the cluster of context "real" at %s: connection refused`, dead), "lab up", "config get-contexts")
	// The authority of another cluster, as after a lab was recreated at the same address.
	runReal(t, person(t, authority(t), gateway(t, ca), time.Hour), "auth", "whoami").want(t, exit.Unreachable, "", "belongs to another cluster")
}

func TestBadCertificates(t *testing.T) {
	ca := authority(t)
	missing := person(t, ca, "127.0.0.1:1", time.Hour)
	missing.Cert = cliconfig.PEM{File: "/nonexistent/me.pem"}
	runReal(t, missing, "get", "pods").want(t, exit.Failed, "", `context "real"`, "read certificate /nonexistent/me.pem: no such file")
	foreign := person(t, ca, "127.0.0.1:1", time.Hour)
	foreign.Key = person(t, ca, "127.0.0.1:1", time.Hour).Key
	runReal(t, foreign, "get", "pods").want(t, exit.Failed, "", `context "real"`, "private key does not match")
}

func TestConfig(t *testing.T) {
	t.Setenv(cliconfig.EnvPath, writeFile(t, "config", ""))
	run := func(args ...string) result {
		var out, errs bytes.Buffer
		code := Run(t.Context(), append([]string{"config"}, args...), session.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
		return result{out.String(), errs.String(), code}
	}
	run("get-contexts").want(t, exit.OK, "", "No contexts in")
	run("current-context").want(t, exit.Failed, "", "use-context")
	run("set-context", "prod", "--endpoints", "10.0.0.1:8443").want(t, exit.Failed, "", `context "prod" has no ca`)
	run("set-context", "prod", "--endpoints", "10.0.0.1:8443,10.0.0.2:8443", "--ca=/c/ca", "--cert=/c/cert", "--key=/c/key").want(t, exit.OK, "Context \"prod\" created.\n")
	run("use-context", "prod").want(t, exit.OK, "Switched to context \"prod\".\n")
	run("use-context", "dev").want(t, exit.Failed, "", `no context "dev": there are prod`)
	run("set-context", "--current", "-n", "shop").want(t, exit.OK, "Context \"prod\" modified.\n")
	run("get-contexts").want(t, exit.OK, "CURRENT   NAME   ENDPOINTS                     NAMESPACE\n*         prod   10.0.0.1:8443,10.0.0.2:8443   shop\n")
	run("get-contexts", "-o", "name").want(t, exit.OK, "prod\n")
	if r := run("view"); r.code != exit.OK || !strings.Contains(r.out, "cert: /c/cert") {
		t.Errorf("view: code %d\n%s", r.code, r.out)
	}
	run("set-context", "prod", "--token-file=/c/token", "--cert=/c/cert").want(t, exit.Usage, "", "--token-file cannot be combined")
	run("set-context", "prod", "--token-file=/c/token").want(t, exit.OK, "Context \"prod\" modified.\n")
	if r := run("view"); r.code != exit.OK || !strings.Contains(r.out, "tokenFile: /c/token") || strings.Contains(r.out, "cert:") {
		t.Errorf("view: code %d\n%s", r.code, r.out)
	}
	run("set-context", "prod", "--cert=/c/cert", "--key=/c/key").want(t, exit.OK, "Context \"prod\" modified.\n")
	run("delete-context", "prod").want(t, exit.OK, "Context \"prod\" deleted.\n")
	run("delete-context", "prod").want(t, exit.Failed, "", `no context "prod"`)
}

// TestHelp: every command has a summary and, unless it only holds others, an example.
func TestHelp(t *testing.T) {
	s := session.New(session.Streams{})
	root := rootCommand(s)
	for _, c := range root.Commands() {
		for _, leaf := range append(c.Commands(), c) {
			if leaf.Short == "" {
				t.Errorf("%s has no summary", leaf.CommandPath())
			}
			if !leaf.HasSubCommands() && leaf.Example == "" && leaf.Name() != "help" {
				t.Errorf("%s has no example", leaf.CommandPath())
			}
		}
	}
}
