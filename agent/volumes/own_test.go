package volumes_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/xebec-project/xebec/agent/volumes"
)

// TestOwn gives a volume with files of others in it to a group, and looks at which of them change
// when.
func TestOwn(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	root := t.TempDir()
	dir, outside := filepath.Join(root, "v"), filepath.Join(root, "outside")
	file, sub := filepath.Join(dir, "sub", "file"), filepath.Join(dir, "sub")
	if err := os.MkdirAll(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, outside} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	group := int64(2000)
	expect := func(what, path string, gid uint32, mode fs.FileMode) {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Gid; got != gid || info.Mode()&fs.ModeSymlink == 0 && info.Mode()&(fs.ModePerm|fs.ModeSetgid) != mode {
			t.Errorf("%s: %s is of group %d, mode %v, not %d, %v", what, path, got, info.Mode(), gid, mode)
		}
	}
	own := func(always bool) {
		t.Helper()
		if err := volumes.Empty(dir, &group, always); err != nil {
			t.Fatal(err)
		}
	}
	own(false)
	expect("root mismatch", dir, 2000, 0o777|fs.ModeSetgid)
	expect("root mismatch", sub, 2000, 0o770|fs.ModeSetgid)
	expect("root mismatch", file, 2000, 0o660)
	expect("root mismatch", link, 2000, 0)
	expect("where a link leads", outside, 0, 0o600)

	if err := os.Chown(file, 0, 7); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	own(false)
	expect("the root is as it should be", file, 7, 0o600)
	own(true)
	expect("always", file, 2000, 0o660)
	if err := volumes.Own(dir, nil, true); err != nil {
		t.Error(err)
	}
	expect("no group", file, 2000, 0o660)
}
