package environment

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/agent/pods/objects"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// TestFileVariable has the format that Kubernetes 1.36 reads.
func TestFileVariable(t *testing.T) {
	for _, c := range []struct{ content, key, want, err string }{
		{"A='1'\nB='2'\n", "B", "2", ""},
		{"\n  \n# comment\n\t# another\n \tA='1' # why\n", "A", "1", ""},
		{"A='1'\n", "B", "", ""},
		{"", "A", "", ""},
		{"A=''\n", "A", "", ""},
		{"A= '1'\n", "A", "", ""},
		{"A= '1'\nB='2'", "B", "2", ""},
		{"A='a=b#c \"$HOME\" \\n `x` '\n", "A", "a=b#c \"$HOME\" \\n `x` ", ""},
		{"A='1\n 2\n\n3'\nB='4'\n", "A", "1\n 2\n\n3", ""},
		{"A='1\n2'\nB='4'\n", "B", "4", ""},
		{"A='1'\r\nB='2'\r\n", "B", "2", ""},
		{"A='first'\nA='second'\n", "A", "first", ""},
		{"A='1'\nnonsense\n", "A", "1", ""},
		{"A='1'\nnonsense\n", "B", "", "line 2: missing '='"},
		{"='1'\n", "A", "", "line 1: empty variable name"},
		{"A ='1'\n", "A", "", "line 1: whitespace before '='"},
		{"A=1\n", "A", "", "line 1: the value must be enclosed in single quotes"},
		{"A=\"1\"\n", "B", "", "line 1: the value must be enclosed in single quotes"},
		{"A=", "A", "", "line 1: the value must be enclosed in single quotes"},
		{"A='1''2'\n", "A", "", "line 1: unexpected content"},
		{"A='1'B='2'\n", "B", "", "line 1: unexpected content"},
		{"\nA='1\nB=2\n", "B", "", "line 2: unclosed single quote"},
		{"A='" + strings.Repeat("x", 1<<16) + "'\n", "A", "", "line 1: bufio.Scanner: token too long"},
	} {
		got, err := fileVariable([]byte(c.content), c.key)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s of %.60q is %q, %v; want %q, %q", c.key, c.content, got, err, c.want, c.err)
		}
	}
}

func FuzzFileVariable(f *testing.F) {
	for _, seed := range []string{"A='1'\n", "A='1\n2' # x\nB= '1'", "A ='1'", "='"} {
		f.Add([]byte(seed), "A")
	}
	f.Fuzz(func(t *testing.T, content []byte, key string) {
		if value, err := fileVariable(content, key); err != nil && value != "" || strings.Contains(value, "'") {
			t.Errorf("%q, %v", value, err)
		}
	})
}

func TestFileValue(t *testing.T) {
	dir := t.TempDir()
	volume := filepath.Join(dir, "volume")
	if err := os.MkdirAll(filepath.Join(volume, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{
		filepath.Join(dir, "outside"): "A='the node's'\n", filepath.Join(volume, "sub", "env"): "A='1'\nEMPTY=''\n",
		filepath.Join(volume, "large"): "A='1'\n#" + strings.Repeat("x", maxFile),
	} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"out": "../outside", "absolute": "/sub/env", "abroad": filepath.Join(dir, "outside")} {
		if err := os.Symlink(to, filepath.Join(volume, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path, key string
		optional  bool
		want      string
		ok        bool
		err       string
	}{
		{path: "sub/env", key: "A", want: "1", ok: true},
		{path: "/sub/env", key: "A", want: "1", ok: true},
		{path: "absolute", key: "A", want: "1", ok: true},
		{path: "sub/env", key: "B", err: `environment variable key "B" not found in file "sub/env" of volume "v"`},
		{path: "sub/env", key: "EMPTY", err: `environment variable key "EMPTY" not found`},
		{path: "sub/env", key: "B", optional: true},
		{path: "sub/env", key: "EMPTY", optional: true},
		{path: "none", key: "A", err: `couldn't read file "none" of volume "v"`},
		{path: "none", key: "A", optional: true},
		{path: "out", key: "A", err: "no such file"},
		{path: "abroad", key: "A", err: "no such file"},
		{path: "sub", key: "A", optional: true, err: "is a directory, want a file"},
		{path: "large", key: "A", optional: true, err: "has more than 1048576 bytes"},
	} {
		ref := &corev1.FileKeySelector{VolumeName: "v", Path: c.path, Key: c.key, Optional: &c.optional}
		got, ok, err := fileValue(ref, func(string) string { return volume })
		if got != c.want || ok != c.ok || (c.err == "") != (err == nil) ||
			err != nil && (!errors.Is(err, objects.ErrConfig) || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s of %s is %q, %v, %v; want %q, %v, %q", c.key, c.path, got, ok, err, c.want, c.ok, c.err)
		}
	}
}
