package pki

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newStore(t *testing.T) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	made, err := InitStore(dir, "test")
	if err != nil || len(made) != 2 {
		t.Fatalf("InitStore = %v, %v", made, err)
	}
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func TestInitStoreKeepsWhatIsThere(t *testing.T) {
	_, dir := newStore(t)
	before, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	if made, err := InitStore(dir, "test"); err != nil || len(made) != 0 {
		t.Errorf("InitStore again = %v, %v", made, err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "ca.key")); string(after) != string(before) {
		t.Error("the authority's key changed")
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := InitStore(dir, "test"); err == nil {
		t.Error("an authority that lost its key was taken for whole, or replaced")
	}
}

func TestEnsure(t *testing.T) {
	s, dir := newStore(t)
	const name = "hosts/node-1/agent/tls"
	request := NodeRequest("node-1", net.IPv4(10, 0, 0, 7))
	steps := []struct {
		what    string
		by      Authority
		change  func()
		renewal Renewal
		want    string
	}{
		{"the first time", ClusterAuthority, func() {}, Renewal{Before: time.Hour}, "there was none"},
		{"again", ClusterAuthority, func() {}, Renewal{Before: time.Hour}, ""},
		{"near its end", ClusterAuthority, func() {}, Renewal{Before: 366 * 24 * time.Hour}, "it ends on"},
		{"always", ClusterAuthority, func() {}, Renewal{Always: true}, "renewal was asked for"},
		{"another address", ClusterAuthority, func() { request.IPs[0] = net.IPv4(10, 0, 0, 8) }, Renewal{}, "other names"},
		{"another use", ClusterAuthority, func() { request.Server = false }, Renewal{}, "other uses"},
		{"another authority", EtcdAuthority, func() {}, Renewal{}, "another authority"},
		{"damaged", EtcdAuthority, func() {
			if err := os.WriteFile(filepath.Join(dir, name+".crt"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, Renewal{}, "could not be read"},
		{"afterwards", EtcdAuthority, func() {}, Renewal{}, ""},
	}
	for _, step := range steps {
		step.change()
		before, _ := os.ReadFile(filepath.Join(dir, name+".crt"))
		reason, err := s.Ensure(name, step.by, request, step.renewal)
		if err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		after, _ := os.ReadFile(filepath.Join(dir, name+".crt"))
		if changed := string(after) != string(before); changed != (step.want != "") || !strings.Contains(reason, step.want) || step.want == "" && reason != "" {
			t.Errorf("%s: reason %q, changed %t, want %q", step.what, reason, changed, step.want)
		}
	}
}

func TestTrustFollowsTheAuthority(t *testing.T) {
	s, dir := newStore(t)
	for i, want := range []bool{true, false} {
		if written, err := s.Trust("hosts/a/ca.crt", ClusterAuthority); err != nil || written != want {
			t.Errorf("Trust, call %d = %t, %v", i, written, err)
		}
	}
	have, err := os.ReadFile(filepath.Join(dir, "hosts/a/ca.crt"))
	if err != nil || string(have) != string(s.authorities[ClusterAuthority].CertPEM()) {
		t.Errorf("the file holds %q, %v", have, err)
	}
}
