package images

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"busybox":                 "docker.io/library/busybox:latest",
		"busybox:1.36":            "docker.io/library/busybox:1.36",
		"team/app":                "docker.io/team/app:latest",
		"127.0.0.1:5000/app":      "127.0.0.1:5000/app:latest",
		"registry.test/a/b/c:tag": "registry.test/a/b/c:tag",
		"app@sha256:0123456789012345678901234567890123456789012345678901234567890123": "docker.io/library/app@sha256:0123456789012345678901234567890123456789012345678901234567890123",
	} {
		if got, err := Normalize(in); err != nil || got != want {
			t.Errorf("Normalize(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "UPPER", "a b", ":tag", "app:"} {
		if got, err := Normalize(in); !errors.Is(err, ErrInvalidName) {
			t.Errorf("Normalize(%q) = %q, %v; want ErrInvalidName", in, got, err)
		}
	}
}

func TestKeyring(t *testing.T) {
	k := Keyring{}
	for place, user := range map[string]string{
		"https://index.docker.io/v1/": "hub", "registry.test": "all", "https://registry.test/team": "team", "*.example.com": "any",
	} {
		if err := k.Add(fmt.Appendf(nil, `{"auths": {%q: {"username": %q, "password": "p"}}}`, place, user), false); err != nil {
			t.Fatal(err)
		}
	}
	for image, want := range map[string]string{
		"docker.io/library/app:1": "hub", "registry.test/team/app:1": "team all", "registry.test/teammate/app:1": "all",
		"a.example.com/x:1": "any", "a.b.example.com/x:1": "", "registry.test.evil.org/team/app:1": "", "UPPER": "",
	} {
		var users []string
		for _, c := range k.For(image) {
			users = append(users, c.User)
		}
		if got := strings.Join(users, " "); got != want {
			t.Errorf("%s: %q, want %q", image, got, want)
		}
	}
	for _, bad := range []string{`{`, `{"auths": {"a": {"auth": "???"}}}`, `{"auths": {"a": {"auth": "YQ=="}}}`} {
		if err := (Keyring{}).Add([]byte(bad), false); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}
