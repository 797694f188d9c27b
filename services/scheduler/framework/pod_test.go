package framework

import "testing"

func TestImageNamesAreCompleted(t *testing.T) {
	for in, want := range map[string]string{
		"echo": "docker.io/library/echo:latest", "echo:1": "docker.io/library/echo:1", "me/echo": "docker.io/me/echo:latest",
		"docker.io/echo:1": "docker.io/library/echo:1", "localhost:5000/echo": "localhost:5000/echo:latest",
		"r.example/a/b@sha256:00": "r.example/a/b@sha256:00",
	} {
		if got := normalImage(in); got != want {
			t.Errorf("normalImage(%q) = %q, want %q", in, got, want)
		}
	}
}
