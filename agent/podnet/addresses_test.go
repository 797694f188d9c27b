package podnet

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestAddresses(t *testing.T) {
	dir := t.TempDir()
	cidr := netip.MustParsePrefix("10.244.1.0/29") // .2 to .6 are for pods
	open := func() *addresses {
		t.Helper()
		a, err := openAddresses(dir, cidr)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := open()
	seen := make(map[netip.Addr]bool)
	for i := range 5 {
		ip, err := a.allocate(fmt.Sprint("pod-", i))
		if err != nil || seen[ip] || !cidr.Contains(ip) {
			t.Fatalf("pod %d: %v, %v", i, ip, err)
		}
		seen[ip] = true
	}
	for _, kept := range []string{"10.244.1.0", "10.244.1.1", "10.244.1.7"} {
		if seen[netip.MustParseAddr(kept)] {
			t.Errorf("%s was given out", kept)
		}
	}
	if _, err := a.allocate("one-too-many"); !errors.Is(err, ErrNoAddress) {
		t.Errorf("a sixth pod: %v", err)
	}

	third := a.byUID["pod-2"]
	if err := os.WriteFile(filepath.Join(dir, tempPrefix+"crashed"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a = open()
	if ip, err := a.allocate("pod-2"); err != nil || ip != third {
		t.Errorf("after a restart: %v, %v, want %v", ip, err, third)
	}
	if err := a.release("pod-2"); err != nil {
		t.Error(err)
	}
	if err := a.release("pod-2"); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if ip, err := a.allocate("new"); err != nil || ip != third {
		t.Errorf("the only free address: %v, %v, want %v", ip, err, third)
	}
	for _, bad := range []string{"", "../x", "a/b", ".", "..", ".hidden"} {
		if ip, err := a.allocate(bad); err == nil {
			t.Errorf("%q got %v", bad, ip)
		}
	}
}

// An address that was freed rests while there are others.
func TestAddressesRest(t *testing.T) {
	a, err := openAddresses(t.TempDir(), netip.MustParsePrefix("10.244.1.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[netip.Addr]bool)
	for i := range 253 {
		ip, err := a.allocate("pod")
		if err != nil || seen[ip] {
			t.Fatalf("round %d: %v, %v: came back before the others were used", i, ip, err)
		}
		seen[ip] = true
		if err := a.release("pod"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAddressesRefuseNonsense(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"no address":       {"a": "x"},
		"one for two pods": {"a": "10.244.1.2", "b": "10.244.1.2"},
	} {
		dir := t.TempDir()
		for f, text := range files {
			if err := os.WriteFile(filepath.Join(dir, f), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := openAddresses(dir, netip.MustParsePrefix("10.244.1.0/24")); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
