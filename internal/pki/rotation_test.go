package pki

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// party is one host's certificate as the store has it at some step.
type party struct{ ca, cert, key []byte }

func (p party) source(t *testing.T) *Source {
	t.Helper()
	s, err := NewMemorySource(p.ca, &Pair{CertPEM: p.cert, KeyPEM: p.key})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRotationTrustsAcrossEveryStep meets, at each step, hosts that have its files with hosts that
// have those of the step before: that is how it is while files are being brought out.
func TestRotationTrustsAcrossEveryStep(t *testing.T) {
	_, dir := newStore(t)
	issue := func() (p party) {
		t.Helper()
		s, err := OpenStore(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ensure("hosts/a/tls", ClusterAuthority, ServiceRequest("gateway", "a"), Renewal{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Trust("hosts/a/ca.crt", ClusterAuthority); err != nil {
			t.Fatal(err)
		}
		for file, to := range map[string]*[]byte{"ca.crt": &p.ca, "tls.crt": &p.cert, "tls.key": &p.key} {
			if *to, err = os.ReadFile(filepath.Join(dir, "hosts/a", file)); err != nil {
				t.Fatal(err)
			}
		}
		return p
	}
	rotate := func(step RotationStep, want ...Authority) {
		t.Helper()
		if taken, err := Rotate(dir, step); err != nil || !slices.Equal(taken, want) {
			t.Errorf("%s took %v, %v; want %v", step, taken, err, want)
		}
	}
	meet := func(when string, a, b party) {
		t.Helper()
		for _, pair := range [][2]party{{a, b}, {b, a}} {
			_, clientErr, serverErr := handshake(pair[0].source(t).ClientConfig(AnyServer), pair[1].source(t).ServerConfig())
			if clientErr != nil || serverErr != nil {
				t.Errorf("%s: %v, %v", when, clientErr, serverErr)
			}
		}
	}
	if _, err := Rotate(dir, RotationSwitch); err == nil || !strings.Contains(err.Error(), "prepare comes first") {
		t.Errorf("switch before prepare: %v", err)
	}
	first := issue()
	before := first
	for _, step := range RotationSteps() {
		rotate(step, ClusterAuthority, EtcdAuthority)
		if step == RotationPrepare {
			if _, err := Rotate(dir, RotationFinish); err == nil || !strings.Contains(err.Error(), "switch comes first") {
				t.Errorf("finish before switch: %v", err)
			}
		} else {
			rotate(step)
		}
		now := issue()
		meet(string(step), before, now)
		before = now
	}
	if _, clientErr, serverErr := handshake(first.source(t).ClientConfig(AnyServer), before.source(t).ServerConfig()); clientErr == nil && serverErr == nil {
		t.Error("after all steps the old authority is trusted still")
	}
	if issuer := before.source(t).Leaf().Issuer.CommonName; issuer != "test ca 2" {
		t.Errorf("the certificate is issued by %q", issuer)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*ca*"))
	if err != nil || len(left) != 4 {
		t.Errorf("what is left are %v, %v; want the two authorities", left, err)
	}
}

// An interruption between the replacement of key and certificate leaves what does not fit together;
// the step is taken again.
func TestRotationRepairsAnInterruptedSwitch(t *testing.T) {
	_, dir := newStore(t)
	if _, err := Rotate(dir, RotationPrepare); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "ca.next.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(dir); err == nil {
		t.Error("a key that does not fit its certificate was taken")
	}
	if taken, err := Rotate(dir, RotationSwitch); err != nil || len(taken) != 2 {
		t.Fatalf("switch took %v, %v", taken, err)
	}
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	if bundle, err := s.trusted(ClusterAuthority); err != nil || strings.Count(string(bundle), "BEGIN CERTIFICATE") != 2 {
		t.Errorf("trusted are %q, %v", bundle, err)
	}
}
