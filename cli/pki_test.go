package cli

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/pki"
)

// pkiRun runs a command line without a cluster and returns its exit code and outputs.
func pkiRun(t *testing.T, args ...string) (code int, out, errors string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = Run(t.Context(), args, session.Streams{In: strings.NewReader(""), Out: &stdout, Err: &stderr})
	return code, stdout.String(), stderr.String()
}

func TestPKIIssuesForHostsOnce(t *testing.T) {
	dir := t.TempDir()
	if code, out, errors := pkiRun(t, "pki", "init", "--dir", dir); code != exit.OK || strings.Count(out, "created") != 2 {
		t.Fatalf("init: %d %s%s", code, out, errors)
	}
	issue := []string{"pki", "issue", "--dir", dir, "--master", "m1=10.0.0.1,10.0.0.100", "--etcd", "m1=10.0.0.1", "--node", "n1=10.0.0.9",
		"--admin", "ann", "--services", "gateway,scheduler"}
	code, out, errors := pkiRun(t, issue...)
	if code != exit.OK || strings.Count(out, "issued") != 2*2+1+1+1 {
		t.Fatalf("issue: %d\n%s%s", code, out, errors)
	}
	if code, out, errors := pkiRun(t, issue...); code != exit.OK || out != "" {
		t.Errorf("issue again: %d\n%s%s", code, out, errors)
	}
	for directory, want := range map[string]struct{ user, file string }{
		"hosts/m1/gateway": {"xebec:gateway", "tls"},
		"hosts/n1/agent":   {"system:node:n1", "tls"},
		"hosts/m1/etcd":    {"xebec:etcd", "tls"},
		"admins/ann":       {"ann", "tls"},
	} {
		at := func(name string) string { return filepath.Join(dir, directory, name) }
		source, err := pki.NewSource(pki.Files{CA: at("ca.crt"), Cert: at(want.file + ".crt"), Key: at(want.file + ".key")})
		if err != nil {
			t.Errorf("%s: %v", directory, err)
			continue
		}
		if user := source.Leaf().Subject.CommonName; user != want.user {
			t.Errorf("%s is for %q, want %q", directory, user, want.user)
		}
	}
	// A service is a client of etcd, whose place it must not be able to take.
	file := filepath.Join(dir, "hosts/m1/gateway/etcd")
	source, err := pki.NewSource(pki.Files{CA: filepath.Join(dir, "hosts/m1/gateway/etcd-ca.crt"), Cert: file + ".crt", Key: file + ".key"})
	if err != nil {
		t.Fatal(err)
	}
	if got := source.Leaf().ExtKeyUsage; source.Leaf().Subject.CommonName != "xebec:gateway" || len(got) != 1 || got[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("towards etcd the gateway is %v, with usages %v", source.Leaf().Subject, got)
	}
	if code, out, errors := pkiRun(t, append(issue, "--service-cidr", "10.97.0.0/16")...); code != exit.OK || out != "issued hosts/m1/gateway/tls.crt: it was for other names\n" {
		t.Errorf("issue for another range of services: %d\n%s%s", code, out, errors)
	}
	for flag, want := range map[string]string{"--service-cidr=10.97.0.0": "--service-cidr", "--cluster-domain=a_b": "--cluster-domain"} {
		if code, _, errors := pkiRun(t, append(issue, flag)...); code != exit.Usage || !strings.Contains(errors, want) {
			t.Errorf("%s: %d %s", flag, code, errors)
		}
	}
	keys, _ := filepath.Glob(filepath.Join(dir, "hosts/*/*/*ca.key"))
	if len(keys) > 0 {
		t.Errorf("authorities' keys are meant for hosts: %v", keys)
	}
	if info, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key: %v, %v", info, err)
	}
}

// Each step of a rotation changes what hosts have to be given: bundles, then certificates, then
// bundles again.
func TestPKIRotates(t *testing.T) {
	dir := t.TempDir()
	pkiRun(t, "pki", "init", "--dir", dir)
	issue := []string{"pki", "issue", "--dir", dir, "--node", "n1=10.0.0.9"}
	pkiRun(t, issue...)
	if code, _, errors := pkiRun(t, "pki", "rotate", "finsh", "--dir", dir); code != exit.Usage || !strings.Contains(errors, "want prepare, switch or finish") {
		t.Errorf("a step that does not exist: %d %s", code, errors)
	}
	for _, step := range []struct{ name, changes string }{
		{"prepare", "wrote hosts/n1/agent/ca.crt\n"},
		{"switch", "issued hosts/n1/agent/tls.crt: it was signed by another authority\n"},
		{"finish", "wrote hosts/n1/agent/ca.crt\n"},
	} {
		for _, want := range []int{2, 0} { // taken again it does nothing
			if code, out, errors := pkiRun(t, "pki", "rotate", step.name, "--dir", dir); code != exit.OK || strings.Count(out, "\n") != want {
				t.Errorf("%s: %d %s%s", step.name, code, out, errors)
			}
		}
		if code, out, errors := pkiRun(t, issue...); code != exit.OK || out != step.changes {
			t.Errorf("issue after %s: %d %s\n%s", step.name, code, errors, out)
		}
	}
}

func TestPKIRefusesNonsense(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"init"}, exit.Usage, "--dir"},
		{[]string{"issue", "--dir", dir, "--master", "m1"}, exit.Usage, "name=address"},
		{[]string{"issue", "--dir", dir, "--node", "N_1=10.0.0.1"}, exit.Usage, "invalid host name"},
		{[]string{"issue", "--dir", dir, "--node", "a=10.0.0.1", "--node", "a=10.0.0.2"}, exit.Usage, "duplicate"},
		{[]string{"issue", "--dir", dir, "--node", "a=10.0.0.1"}, exit.Failed, "xebec pki init"},
	} {
		code, _, errors := pkiRun(t, append([]string{"pki"}, tt.args...)...)
		if code != tt.code || !strings.Contains(errors, tt.want) {
			t.Errorf("%v: %d %s, want %d and %q", tt.args, code, errors, tt.code, tt.want)
		}
	}
}
