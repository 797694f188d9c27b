package logs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzRead reads files that a crash or a container may have left, in every way they can be read.
func FuzzRead(f *testing.F) {
	f.Add([]byte("2026-01-02T15:04:05.999999999Z stdout F hello\n"), 1, true)
	f.Add([]byte("2026-01-02T15:04:05.999999999Z stdout P hel\n2026-01-02T15:04:05.999999999Z stdout F lo\n"), 0, false)
	f.Add([]byte("cut short"), 3, true)
	f.Add([]byte("a b P\n\n \n  \n"), -1, true)
	f.Fuzz(func(t *testing.T, content []byte, tail int, timestamps bool) {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		opts := Options{Timestamps: timestamps, Tail: int64(tail)}
		ended := make(chan struct{})
		close(ended)
		var out bytes.Buffer
		if err := Read(t.Context(), path, opts, ended, &out); err != nil {
			t.Fatal(err)
		}
		if limit := len(content); out.Len() > limit {
			t.Errorf("%d bytes were read out of %d", out.Len(), limit)
		}
		if tail == 0 && out.Len() > 0 {
			t.Errorf("the last 0 lines are %q", out.Bytes())
		}
	})
}
