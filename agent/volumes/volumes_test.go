package volumes_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/volumes"
)

func file(text string, mode fs.FileMode) volumes.File {
	return volumes.File{Content: []byte(text), Mode: mode}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestProject(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	project := func(want bool, files map[string]volumes.File) {
		t.Helper()
		if changed, err := volumes.Project(dir, files, nil, nil, false); err != nil || changed != want {
			t.Fatalf("changed %v, %v", changed, err)
		}
	}
	first := map[string]volumes.File{"a": file("1", 0o600), "sub/dir/b": file("2", 0o444)}
	project(true, first)
	project(false, first)
	if got := read(t, filepath.Join(dir, "a")) + read(t, filepath.Join(dir, "sub/dir/b")); got != "12" {
		t.Errorf("files hold %q", got)
	}
	if st, err := os.Stat(filepath.Join(dir, "a")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	last := map[string]volumes.File{"a": file("1", 0o640)}
	project(true, last)
	project(false, last)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("beside the file, its directory and the link there are: %v, %v", entries, err)
	}
	if _, err := volumes.Project(dir, map[string]volumes.File{"../x": file("", 0)}, nil, nil, false); !errors.Is(err, volumes.ErrUnfit) {
		t.Errorf("a path out of the volume: %v", err)
	}
}

// A volume of an agent that wrote the files without links is taken over.
func TestProjectTakesOver(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "old"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("before"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := volumes.Project(dir, map[string]volumes.File{"a": file("now", 0o644)}, nil, nil, false); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "a")); got != "now" {
		t.Errorf("a holds %q", got)
	}
	if _, err := os.Lstat(filepath.Join(dir, "old")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the other file is still there: %v", err)
	}
}

// A reader that holds on to the directory the link leads to sees files of one turn only.
func TestProjectIsAtomic(t *testing.T) {
	dir := t.TempDir()
	turn := func(n int) map[string]volumes.File {
		text := fmt.Sprint(n)
		return map[string]volumes.File{"a": file(text, 0o644), "b": file(text, 0o644)}
	}
	if _, err := volumes.Project(dir, turn(0), nil, nil, false); err != nil {
		t.Fatal(err)
	}
	var reads atomic.Int64
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
			}
			root, err := os.OpenRoot(filepath.Join(dir, "..data"))
			if err != nil {
				t.Errorf("there was a moment without files: %v", err)
				return
			}
			a, errA := root.ReadFile("a")
			b, errB := root.ReadFile("b")
			root.Close()
			if errA != nil || errB != nil || string(a) != string(b) {
				t.Errorf("read %s (%v) and %s (%v)", a, errA, b, errB)
				return
			}
			reads.Add(1)
		}
	}()
	defer func() {
		close(stop)
		<-ended
	}()
	// What a turn replaces outlives it, not the one after: a read is overtaken once at most, as it is
	// when the next turn waits for it to end.
	for n := range 300 {
		if _, err := volumes.Project(dir, turn(n+1), nil, nil, false); err != nil {
			t.Fatal(err)
		}
		for before := reads.Load(); reads.Load() == before; runtime.Gosched() {
			if t.Failed() {
				return
			}
		}
	}
	if got := len(generations(t, dir)); got != 2 {
		t.Errorf("%d turns are kept, want the present one and the one before", got)
	}
	if _, err := volumes.Project(dir, turn(300), nil, nil, false); err != nil {
		t.Fatal(err)
	}
	if got := len(generations(t, dir)); got != 1 {
		t.Errorf("%d turns are kept once nothing changed, want the present one", got)
	}
}

// generations lists the directories of a projected volume that hold its files of one turn each.
func generations(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "..data-*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	root := t.TempDir()
	defer func() {
		if err := volumes.Remove(root); err != nil {
			t.Error(err)
		}
	}()
	group := int64(2000)
	dir := filepath.Join(root, "m")
	for range 2 {
		if err := volumes.Memory(dir, 1<<20, &group, false); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Type) != unix.TMPFS_MAGIC || int64(st.Blocks)*st.Bsize != 1<<20 {
		t.Errorf("file system %x of %d bytes: %v", st.Type, int64(st.Blocks)*st.Bsize, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 2<<20), 0o644); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing past the limit: %v", err)
	}
	secret := filepath.Join(root, "s")
	if _, err := volumes.Project(secret, map[string]volumes.File{"key": file("k", 0o400)}, nil, &group, true); err != nil {
		t.Fatal(err)
	}
	var own unix.Stat_t
	if err := unix.Stat(filepath.Join(secret, "key"), &own); err != nil || own.Gid != 2000 || own.Mode&0o777 != 0o440 {
		t.Errorf("group %d, mode %o, %v", own.Gid, own.Mode, err)
	}
	if err := unix.Statfs(secret, &st); err != nil || int64(st.Type) != unix.TMPFS_MAGIC {
		t.Errorf("the secret is not in memory: %x, %v", st.Type, err)
	}
}

func TestUsage(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	if n, err := volumes.Usage(dir); err != nil || n < 1<<20 || n > 1<<20+64<<10 {
		t.Errorf("%d bytes, %v", n, err)
	}
}
