package volumes_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xebec-project/xebec/agent/volumes"
)

func inode(t *testing.T, info fs.FileInfo) uint64 {
	t.Helper()
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("no inode of %s", info.Name())
	}
	return st.Ino
}

func open(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := volumes.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestHostPath(t *testing.T) {
	dir := t.TempDir()
	regular := filepath.Join(dir, "file")
	if err := os.Symlink("/dev", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, sort string
		fits       bool
	}{
		{regular, "File", false},
		{regular, "FileOrCreate", true},
		{regular, "File", true},
		{regular, "Directory", false},
		{regular, "Socket", false},
		{filepath.Join(dir, "no", "file"), "FileOrCreate", false},
		{filepath.Join(dir, "d"), "Directory", false},
		{filepath.Join(dir, "d", "deep"), "DirectoryOrCreate", true},
		{filepath.Join(dir, "d"), "Directory", true},
		{filepath.Join(dir, "any", "deep"), "", true},
		{filepath.Join(dir, "link", "null"), "CharDevice", true},
		{"/", "Directory", true},
		{"/dev/null", "CharDevice", true},
		{"/dev/null", "BlockDevice", false},
		{"/proc/self/root", "Directory", false},
		{"/proc/self/fd/0", "", false},
	} {
		f, err := volumes.HostPath(c.path, c.sort)
		if c.fits && err != nil || !c.fits && !errors.Is(err, volumes.ErrUnfit) {
			t.Errorf("%s as %q: %v", c.path, c.sort, err)
		}
		if err != nil {
			continue
		}
		got, err := f.Stat()
		want, err2 := os.Stat(c.path)
		if err := errors.Join(err, err2, f.Close()); err != nil || !os.SameFile(got, want) {
			t.Errorf("%s as %q is another file: %v", c.path, c.sort, err)
		}
	}
}

func TestWithin(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Symlink("/etc", filepath.Join(dir, "out")), os.Symlink("in", filepath.Join(dir, "link")),
		os.Symlink("/proc/self/root", filepath.Join(dir, "magic")), os.Symlink("nowhere", filepath.Join(dir, "dangling")),
		os.Symlink("../in", filepath.Join(dir, "up")), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600), os.Chmod(dir, 0o777|fs.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	volume := open(t, dir)
	for _, c := range []struct {
		sub  string
		fits bool
	}{
		{"in", true}, {"in/deep/er", true}, {"link", true}, {"link/new", true}, {"file", true}, {"./in//deep/", true},
		{"out", false}, {"out/new", false}, {"../x", false}, {"in/../in", false}, {"/etc", false}, {"magic", false}, {"magic/etc", false},
		{"dangling", false}, {"up", false}, {"file/x", false},
	} {
		f, err := volumes.Within(volume, c.sub)
		if c.fits && err != nil || !c.fits && !errors.Is(err, volumes.ErrUnfit) {
			t.Errorf("%s: %v", c.sub, err)
		}
		if err != nil {
			continue
		}
		got, err := f.Stat()
		want, err2 := os.Stat(filepath.Join(dir, c.sub))
		if err := errors.Join(err, err2, f.Close()); err != nil || !os.SameFile(got, want) {
			t.Errorf("%s is another file: %v", c.sub, err)
		}
	}
	if _, err := os.Lstat("/etc/new"); err == nil {
		t.Error("a directory was made outside of the volume")
	}
	// What was missing is as open as the volume is, whatever the agent's umask.
	if st, err := os.Stat(filepath.Join(dir, "in", "deep")); err != nil || st.Mode() != fs.ModeDir|fs.ModeSetgid|0o777 {
		t.Errorf("a directory that was made has mode %v: %v", st.Mode(), err)
	}
}

// TestWithinWhilePathsChange opens paths in a volume in which another one keeps exchanging a
// directory and a link that leads out of it.
func TestWithinWhilePathsChange(t *testing.T) {
	root := t.TempDir()
	dir, outside := filepath.Join(root, "volume"), filepath.Join(root, "outside")
	inside, link := filepath.Join(dir, "d"), filepath.Join(dir, "l")
	if err := errors.Join(os.MkdirAll(inside, 0o755), os.Mkdir(outside, 0o755), os.Symlink(outside, link)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(inside)
	if err != nil {
		t.Fatal(err)
	}
	want := inode(t, info)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, inside, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
				t.Errorf("exchanging: %v", err)
				return
			}
		}
	})
	volume := open(t, dir)
	opened, refused := 0, 0
	for n := 0; (opened < 200 || refused < 200) && n < 200_000 && !t.Failed(); n++ {
		f, err := volumes.Within(volume, "d")
		if errors.Is(err, volumes.ErrUnfit) {
			refused++
		} else if err != nil {
			t.Error(err)
		} else {
			opened++
			info, err := f.Stat()
			if err := errors.Join(err, f.Close()); err != nil || inode(t, info) != want {
				t.Errorf("what was opened is not in the volume: %v, %v", info, err)
			}
		}
		if f, err := volumes.Within(volume, fmt.Sprintf("d/%d/deep", n%50)); err == nil {
			f.Close()
		}
	}
	close(stop)
	wg.Wait()
	if opened < 200 || refused < 200 {
		t.Errorf("opened %d times, refused %d times: the path hardly changed", opened, refused)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("made outside of the volume: %v, %v", entries, err)
	}
}

func TestMountPoint(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Symlink("/etc", filepath.Join(dir, "out")), os.Mkdir(filepath.Join(dir, "d"), 0o755)); err != nil {
		t.Fatal(err)
	}
	volume := open(t, dir)
	for _, c := range []struct {
		path      string
		directory bool
		fits      bool
	}{
		{"a", true, true}, {"a", true, true}, {"a", false, false}, {"b", false, true}, {"b", false, true}, {"b", true, false},
		{"d/x/y", true, true}, {"d/e/file", false, true}, {"out/x", true, false}, {"../x", true, false}, {".", true, false},
	} {
		err := volumes.MountPoint(volume, c.path, c.directory)
		if c.fits && err != nil || !c.fits && !errors.Is(err, volumes.ErrUnfit) {
			t.Errorf("%s: %v", c.path, err)
		}
		if info, err := os.Stat(filepath.Join(dir, c.path)); c.fits && (err != nil || info.IsDir() != c.directory) {
			t.Errorf("%s is %v, %v", c.path, info, err)
		}
	}
}
