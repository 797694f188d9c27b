package snapshot_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/xebec-project/xebec/agent/snapshot"
)

// FuzzLoad loads files of any content: they are refused, or can be saved and loaded again.
func FuzzLoad(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed")
	if err := snapshot.Save(path, slices.Values(objects())); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "cluster")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := snapshot.Load(path)
		if err != nil {
			return
		}
		if err := snapshot.Save(path, slices.Values(loaded)); err != nil {
			t.Fatal(err)
		}
		expect(t, path, loaded)
	})
}
