package cp

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzUnpack unpacks archives of any content: nothing is written but the destination.
func FuzzUnpack(f *testing.F) {
	add := func(entries ...tar.Header) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range entries {
			if err := w.WriteHeader(&h); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(b.Bytes())
		f.Add(b.Bytes()[:b.Len()/2])
	}
	add(dirEntry("up"), fileEntry("up/a"), linkEntry("up/b", "a"), linkEntry("up/c", "../../outside"), hardEntry("up/d", "up/a"))
	add(fileEntry("up"))
	add(dirEntry("up"), linkEntry("up/l", "/etc"), fileEntry("up/l/passwd"), fileEntry("../x"))
	f.Fuzz(func(t *testing.T, content []byte) {
		top := t.TempDir()
		home := filepath.Join(top, "home")
		if err := os.Mkdir(home, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(home)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		u := &unpacker{dir: root, base: "up", name: "up", warn: func(string, ...any) {}}
		_ = u.unpack(bytes.NewReader(content)) // An error is as good as a result here.
		for dir, allowed := range map[string]string{top: "home", home: "up"} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.Name() != allowed {
					t.Errorf("%s was written in %s", e.Name(), dir)
				}
			}
		}
	})
}
