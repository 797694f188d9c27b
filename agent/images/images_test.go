package images

import (
	"errors"
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
