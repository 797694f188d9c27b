package logs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLinksAreNoLogs puts links and a pipe where a log, or its directory, is looked for.
func TestLinksAreNoLogs(t *testing.T) {
	root := t.TempDir()
	secret := filepath.Join(root, "secret")
	line := "2026-01-02T15:04:05.999999999Z stdout F of the node\n"
	if err := errors.Join(os.Mkdir(filepath.Join(root, "c"), 0o755), os.Mkdir(filepath.Join(root, "other"), 0o755),
		os.WriteFile(secret, []byte(line), 0o600), os.WriteFile(filepath.Join(root, "other", "0.log"), []byte(line), 0o600),
		os.Symlink(secret, filepath.Join(root, "c", "link.log")), os.Symlink("../secret", filepath.Join(root, "c", "old.log.1")),
		os.Symlink("other", filepath.Join(root, "linked")), unix.Mkfifo(filepath.Join(root, "c", "pipe.log"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"c/link.log", "c/old.log", "linked/0.log", "c/pipe.log"} {
		path = filepath.Join(root, path)
		for _, follow := range []bool{false, true} {
			ended := make(chan struct{})
			close(ended)
			var b bytes.Buffer
			err := Read(t.Context(), path, Options{Tail: -1, Follow: follow}, ended, &b)
			if b.Len() > 0 || err == nil && !(follow && strings.HasSuffix(path, "old.log")) {
				t.Errorf("reading %s, following %v: %q, %v", path, follow, b.String(), err)
			}
		}
		if f, err := openFile(path, MaxBytes); err == nil && !strings.HasSuffix(path, "old.log") {
			t.Errorf("%s was opened to be written", path)
			f.f.Close()
		}
	}
	if got, err := os.ReadFile(secret); err != nil || string(got) != line {
		t.Errorf("the file of the node holds %q, %v", got, err)
	}
}
