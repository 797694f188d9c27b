package guests

import "testing"

func TestName(t *testing.T) {
	for want, image := range map[string]Image{
		"kernel-trixie":                {Kind: "kernel", Suite: "trixie"},
		"hosts-bookworm-2cf24dba5fb0":  {Kind: "hosts", Suite: "bookworm", Recipe: "hello"},
		"vm-bookworm-2cf24dba5fb0.box": {Kind: "vm", Suite: "bookworm", Recipe: "hello", Extension: ".box"},
	} {
		if got := image.name(); got != want {
			t.Errorf("%+v is called %s, want %s", image, got, want)
		}
	}
}

func TestLastLines(t *testing.T) {
	if got := LastLines([]byte("a\nb\nc\n"), 2); got != "b\nc" {
		t.Errorf("last lines are %q", got)
	}
	if got := LastLines([]byte("a\n"), 2); got != "a" {
		t.Errorf("last lines are %q", got)
	}
}
